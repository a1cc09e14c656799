"""refrnn and the libraries beside TensorFlow agree, each within its steps' envelope.

Every oracle runs every layer that it has, in every dtype, whole and in chunks of its own. What is
not installed is skipped by name; what an oracle cannot do is data, and not run. An adapter that is
wrong in one thing is caught.
"""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from others import needs, needs_oracles

from refrnn import matrix, panel, verify
from refrnn.cases import Arrays, Case
from refrnn.cli import main
from refrnn.oracles import Unavailable, adapters, node, process
from refrnn.oracles.differences import DIFFERENCES, Difference, Measured
from refrnn.oracles.table import ORACLES, Oracle
from refrnn.verify import chunks
from refrnn.verify.subject import subject

pytestmark = pytest.mark.others
AGREES, DIFFERS, UNJUDGED = 0, 1, 2
SECOND = [(name, way) for name, oracle in ORACLES.items() if name != "keras" for way in oracle.ways]
LAYERS: dict[str, dict[str, Any]] = {
    "SimpleRNN": {"layer": "SimpleRNN"},
    "LSTM": {"layer": "LSTM"},
    "GRU": {"layer": "GRU"},
    "GRU without bias": {"layer": "GRU", "options": {"use_bias": False}},
    "GRU reset before": {"layer": "GRU", "options": {"reset_after": False}},
}
each_way = pytest.mark.parametrize(("name", "way"), SECOND, ids=[f"{n} {w}" for n, w in SECOND])
each_layer = pytest.mark.parametrize("layer", LAYERS)
each_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])


@cache
def _loaded(name: str) -> Any:
    return ORACLES[name].load()


def loaded(name: str) -> Any:
    """The oracle, or a skip that names what is missing."""
    needs_oracles(name)
    return _loaded(name)


def drawn(layer: str, dtype: str, name: str, way: str, **further: Any) -> Case:
    """A case that this way can do: right-padded where it is for masks alone."""
    limits = ORACLES[name].ways[way]
    mask = further.pop("mask", limits.masks[0])
    options = {**LAYERS[layer].get("options", {}), **further.pop("options", {})}
    settings = {"rows": 5, "steps": 8, **further}
    case = Case(LAYERS[layer]["layer"], dtype=dtype, mask=mask, options=options, **settings)
    lacks = limits.lacks(case)
    if lacks is not None:
        pytest.skip(f"{name} {way}: {lacks}")
    return case


def judged(case: Case, ask: Callable[[], Any]) -> list[verify.Row]:
    """Against refrnn whole and in its own chunks."""
    return verify.judge_case(case, {"other": ask})


def assert_agree(rows: list[verify.Row]) -> None:
    assert rows
    for row in rows:
        assert row.agrees, row
        assert row.margin is not None  # by the steps, not by a tolerance


@each_dtype
@each_layer
@each_way
def test_an_oracle_agrees(name: str, way: str, layer: str, dtype: str) -> None:
    case = drawn(layer, dtype, name, way)
    oracle = loaded(name)
    assert_agree(judged(case, partial(oracle.run, case, way)))


@each_dtype
@each_layer
@each_way
@pytest.mark.parametrize("sizes", [[1], [3, 4]], ids=["single steps", "chunks of 3 and 4"])
def test_an_oracle_in_chunks_that_hand_over_its_state_agrees(
    name: str, way: str, layer: str, dtype: str, sizes: list[int]
) -> None:
    if ORACLES[name].ways[way].masks[0] is not None:
        pytest.skip(f"{name} {way}: for padded rows, which end once")
    case = drawn(layer, dtype, name, way)
    oracle, whole = loaded(name), case.arrays()

    def in_chunks() -> dict[str, Any]:
        state, ys = whole.state, []
        for piece in chunks.pieces(case.steps, sizes):
            arrays = Arrays(whole.weights, whole.x[:, piece], state, None)
            found = oracle.run(case, way, arrays=arrays)
            ys.append(found["y"])
            state = [found[part] for part in adapters.PARTS[case.layer]]
        return {**found, "y": np.concatenate(ys, axis=1)}

    assert_agree(judged(case, in_chunks))


@each_way
@pytest.mark.parametrize("mask", ["right", "left", "holes", "row", "all"])
@pytest.mark.parametrize("backwards", [False, True])
def test_masks_agree_where_an_oracle_has_them(
    name: str, way: str, mask: str, backwards: bool
) -> None:
    options = {"go_backwards": True} if backwards else {}
    for layer in ("SimpleRNN", "LSTM", "GRU"):
        case = drawn(layer, "float32", name, way, mask=mask, options=options)
        assert_agree(judged(case, partial(loaded(name).run, case, way)))


# --- wrong adapters ---


def gates_rolled(given: adapters.Given) -> adapters.Given:
    H = given.state[0].shape[1]
    return given._replace(weights=[np.roll(a, H, axis=-1) for a in given.weights])


def bias_dropped(given: adapters.Given) -> adapters.Given:
    return given._replace(weights=[*given.weights[:2], np.zeros_like(given.weights[2])])


def state_reversed(given: adapters.Given) -> adapters.Given:
    return given._replace(state=given.state[::-1])


def state_dropped(given: adapters.Given) -> adapters.Given:
    return given._replace(state=[np.zeros_like(part) for part in given.state])


def mask_shifted(given: adapters.Given) -> adapters.Given:
    assert given.mask is not None
    mask = np.roll(given.mask, -1, axis=1)
    mask[:, -1], mask[:, 0] = False, True
    return given._replace(mask=mask)


BUGS = [gates_rolled, bias_dropped, state_reversed, state_dropped, mask_shifted]
HERE = [(name, way) for name, way in SECOND if not ORACLES[name].apart]


@pytest.mark.parametrize("bug", BUGS, ids=[bug.__name__ for bug in BUGS])
@pytest.mark.parametrize(("name", "way"), HERE, ids=[f"{n} {w}" for n, w in HERE])
def test_a_wrong_adapter_is_caught(
    name: str, way: str, bug: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = {"mask": "right"} if bug is mask_shifted else {}
    case = drawn("LSTM", ORACLES[name].ways[way].dtypes[0], name, way, **mask)
    oracle, right = loaded(name), adapters.given
    assert_agree(judged(case, partial(oracle.run, case, way)))
    monkeypatch.setattr(adapters, "given", lambda *asked: bug(right(*asked)))
    assert not any(row.agrees for row in judged(case, partial(oracle.run, case, way)))


# --- the table ---


def test_what_an_oracle_lacks_is_said_in_words() -> None:
    ways = {name: next(iter(oracle.ways.values())) for name, oracle in ORACLES.items()}
    assert ways["onnxruntime"].lacks(Case("LSTM")) == "no float64"
    assert ways["onnxruntime"].lacks(Case("LSTM", dtype="float32")) is None
    assert ways["torch"].lacks(Case("GRU", options={"reset_after": False})) == "no GRU reset before"
    assert ways["torch"].lacks(Case("LSTM", mask="holes")) == "no mask holes"
    assert ways["torch"].lacks(Case("LSTM", options={"activation": "relu"})) == "no relu/sigmoid"
    assert ways["torch"].lacks(Case("SimpleRNN", options={"activation": "relu"})) is None
    packed = ORACLES["torch"].ways["packed"]
    assert packed.lacks(Case("LSTM")) == "for masks alone"
    back = Case("LSTM", mask="right", options={"go_backwards": True})
    assert packed.lacks(back) == "no mask with go_backwards"
    nnx = ORACLES["flax"].ways["nnx"]
    assert nnx.lacks(Case("GRU")) == "no recurrent bias of a GRU"
    zeroed = Case("LSTM", mask="right", options={"zero_output_for_mask": True})
    assert packed._replace(zeroes=False).lacks(zeroed) == "no zero_output_for_mask"
    assert ways["tfjs"].lacks(Case("GRU", dtype="float32")) == "no GRU"
    old = Case("LSTM", options={"recurrent_activation": "hard_sigmoid_keras2"})
    assert ways["keras"].lacks(old) == "no tanh/hard_sigmoid_keras2"
    assert ways["tf_keras"].lacks(old) is None


def test_what_node_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert ORACLES["tfjs"].missing == ["node"]
    with pytest.raises(Unavailable, match=r"node not found: install Node\.js, and in this folder"):
        ORACLES["tfjs"].load()


def test_a_package_of_node_is_found_where_node_finds_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if shutil.which("node") is None:
        pytest.skip("no node here")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NODE_PATH", "")
    assert node.missing(["one", "two"]) == ["one", "two"]
    package = tmp_path / "node_modules" / "one"
    package.mkdir(parents=True)
    (package / "index.js").write_text("")
    assert node.missing(["one", "two", "fs"]) == ["two"]
    monkeypatch.setenv("NODE_PATH", str(tmp_path / "node_modules"))
    monkeypatch.chdir("/")
    assert node.missing(["one", "two"]) == ["two"]


def test_a_program_of_node_answers_and_says_how_it_ended() -> None:
    if shutil.which("node") is None:
        pytest.skip("no node here")
    text = """
    const lines = require('readline').createInterface({input: process.stdin});
    lines.on('line', line => {
      const x = JSON.parse(line);
      if (x === 0) throw new Error('it is zero');
      console.log(JSON.stringify(x < 0 ? {error: 'below zero'} : {root: Math.sqrt(x)}));
    });"""
    program = node.Program(text)
    assert program.ask(4) == {"root": 2}
    with pytest.raises(RuntimeError, match="below zero"):
        program.ask(-1)
    assert program.ask(9) == {"root": 3}
    with pytest.raises(RuntimeError, match=r"its process ended with 1: [\s\S]*it is zero"):
        program.ask(0)
    with pytest.raises(RuntimeError, match="its process ended with 1"):
        program.ask(4)


def test_keras_and_jax_do_every_case_and_no_way_does_none() -> None:
    for name, oracle in ORACLES.items():
        for limits in oracle.ways.values():
            done = sum(limits.lacks(case) is None for case in panel.CASES)
            assert done == len(panel.CASES) if name in ("keras", "jax") else done > 0


def test_no_case_is_there_twice() -> None:
    told = [(str(case), case.dtype) for case in panel.CASES]
    assert len(set(told)) == len(told)
    assert {str(case) for case in panel.CASES} == {str(case) for case in verify.FAMILY}


# --- in a process of its own ---


def test_an_oracle_apart_answers_as_here_and_outlives_an_error() -> None:
    here, case = loaded("jax"), Case("LSTM", mask="holes")
    apart = process.Apart("jax:Jax")
    assert apart.versions() == here.versions()
    with pytest.raises(RuntimeError, match="nope"):
        apart.run(Case("LSTM", options={"activation": "nope"}), "scan")
    found = apart.run(case, "scan")
    for part, array in here.run(case).items():  # XLA's sums may differ in order with its threads
        np.testing.assert_allclose(found[part], array, rtol=1e-12, atol=1e-15)


def test_an_oracle_apart_that_is_not_installed_or_dies_says_so() -> None:
    if ORACLES["openvino"].missing:
        with pytest.raises(Unavailable, match="install"):
            process.Apart("openvino:OpenVino")
    with pytest.raises(RuntimeError, match="No module named"):
        process.Apart("nope:Nope")


# --- known differences ---


def bfloat16_here() -> bool:
    """Of this CPU; OpenVINO computes in float32 where there is none."""
    flags = Path("/proc/cpuinfo")
    return flags.exists() and "bf16" in flags.read_text()


@cache
def measurements() -> dict[Difference, Future[Measured]]:
    """All of them, two at a time: nearly all that their processes do is to import."""
    pool = ThreadPoolExecutor(2)
    return {known: pool.submit(known.measure) for known in DIFFERENCES if not known.missing}


@pytest.mark.parametrize("known", DIFFERENCES, ids=[f"{d.who}: {d.what}" for d in DIFFERENCES])
def test_a_known_difference_is_still_there(known: Difference) -> None:
    """Where this fails a library has changed: strike the row out."""
    if known.missing and known.npm:
        pytest.skip(f"{' and '.join(known.missing)} not installed")
    needs(*known.modules)
    if "bfloat16" in known.what and not bfloat16_here():
        pytest.skip("this CPU has no bfloat16")
    found = measurements()[known].result()
    assert found.there, found
    assert len(known.program.splitlines()) <= 5
    # a program that fails is none of the library's, but where the refusal is what is known
    assert bool(found.error) == ("cannot" in known.what or "refused" in known.what), found


@pytest.mark.parametrize(
    ("program", "there", "said"),
    [
        ("print(1, 2)", True, "1, expected 2"),
        ("print('noise'); print(0.5, 0.5)", False, "(no longer: it agrees here)"),
        ("print('nan', 'nan')", False, "no longer"),
        ("print(1, 'nan')", True, "1, expected nan"),
        ("print(1, 1.0000001)", False, "no longer"),
        ("raise AttributeError('x: y')", True, "AttributeError"),
    ],
)
def test_a_difference_is_measured_in_the_run(program: str, there: bool, said: str) -> None:
    found = Difference("A", "is odd", "bug", (), program).measure()
    assert found.there is there
    assert "A: is odd (bug): " in str(found)
    assert said in str(found)


# --- the matrix ---


@pytest.fixture
def small(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three cases, and two differences: one to be measured, one of a library that is not here."""
    monkeypatch.setattr(matrix, "CASES", panel.CASES)
    known = (
        Difference("A", "is odd", "bug", (), "print(1, 2)"),
        Difference("B", "is odder", "bug", ("no_such_library",), ""),
    )
    monkeypatch.setattr(matrix, "DIFFERENCES", known)


def test_the_matrix_says_who_agrees_with_whom(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("torch", "jax"):
        loaded(name)
    report = tmp_path / "m.json"
    asked = ["verify", "--matrix", "--against", "torch,jax", "--json", str(report)]
    assert main(asked) == AGREES
    said = capsys.readouterr().out
    assert "all agree: 6 ways to run 3 cases" in said
    assert "1 of 1 known differences seen here" in said
    assert "```python\nprint(1, 2)\n```" in said
    assert "left out, no_such_library not installed: B: is odder" in said
    assert "!" not in said.partition("envelope.")[2]
    found = json.loads(report.read_text())
    ways = {way["name"]: way for way in found["ways"]}
    assert ways["jax scan"]["float64"]["cases"] == 2
    assert ways["torch whole"]["float64"]["cases"] == 1
    assert ways["torch whole"]["skipped"] == {"no mask holes": 1}
    assert all(way[d]["fits"] == d for way in ways.values() for d in way if d.startswith("float"))
    cases = {(p["a"], p["b"], p["dtype"]): p["cases"] for p in found["pairs"]}
    assert cases["refrnn", "jax scan", "float64"] == 2
    assert cases["torch whole", "jax scan", "float32"] == 1
    assert found["known"][0]["found"] == 1


def test_the_matrix_shows_the_one_that_is_wrong(
    small: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    oracle, other = loaded("jax"), loaded("torch")
    right = type(other).run

    def wrong(self: Any, case: Case, way: str, arrays: Any = None) -> Any:
        found = right(self, case, way, arrays)
        return {**found, "y": found["y"] * np.asarray(1.001, found["y"].dtype)}

    monkeypatch.setattr(type(other), "run", wrong)
    assert oracle is not None
    assert main(["verify", "--matrix", "--against", "torch,jax"]) == DIFFERS
    said = capsys.readouterr().out
    assert "NOT ALL AGREE" in said
    assert "of the bound DIFFERS, fits" in said
    grid = {line.split("|")[1].strip()[2:]: line for line in said.splitlines() if "e-" in line}
    assert "!" in grid["torch whole"]
    assert grid["jax scan"].count("!") == 2  # against torch whole and torch cells
    assert "!" not in grid["refrnn numpy"].split("|")[2]


def test_an_oracle_that_fails_in_the_matrix_is_told_and_the_others_go_on(
    small: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    oracle = loaded("jax")

    def fail(*asked: Any, **more: Any) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(type(oracle), "run", fail)
    assert main(["verify", "--matrix", "--against", "jax"]) == DIFFERS
    said = capsys.readouterr().out
    assert "jax scan cannot run it: RuntimeError: out of order" in said
    assert "2, 0" in next(line for line in said.splitlines() if "refrnn numpy" in line)


def test_a_lower_precision_is_told_by_its_name() -> None:
    """OpenVINO in bfloat16 is out of float32's envelope; what it fits is looked for."""
    if not bfloat16_here():
        pytest.skip("this CPU has no bfloat16")
    case = Case("LSTM", dtype="float32")
    oracle = loaded("openvino")
    assert_agree(judged(case, partial(oracle.run, case, "f32")))
    found = oracle.run(case, "bf16")
    assert not any(row.agrees for row in judged(case, lambda: found))
    arrays, what = case.arrays(), subject(case.build())
    tasks = what.tasks(arrays.x, arrays.state, arrays.mask)
    run = verify.Run("whole", what.parts, tasks, what.seen(found), verify.PRECISIONS["float32"])
    broken = {name: run.under(precision).broken for name, precision in verify.PRECISIONS.items()}
    assert not broken["bfloat16"]
    assert all(broken[name] for name in ("float64", "float32", "tf32", "float16 products"))


# --- the command ---


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = (Case("LSTM"), Case("LSTM", dtype="float32"), Case("GRU", mask="holes"))
    monkeypatch.setattr(panel, "CASES", cases)


def test_libraries_are_compared_and_their_skips_counted(
    few: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("torch", "onnxruntime"):
        loaded(name)
    report = tmp_path / "r.json"
    assert main(["verify", "--against", "torch,onnxruntime", "--json", str(report)]) == AGREES
    said = capsys.readouterr().out
    assert "agrees with PyTorch and ONNX Runtime" in said
    assert "not done by onnxruntime node, 2 of 3: 2 no float64" in said
    assert "not done by torch whole, 1 of 3: 1 no mask holes" in said
    found = json.loads(report.read_text())
    assert {row["against"] for row in found["rows"]} == {
        "torch whole", "torch cells", "onnxruntime node",
    }  # fmt: skip
    assert found["skipped"]["onnxruntime node"] == {"no float64": 2}
    assert {"PyTorch", "ONNX Runtime"} <= set(found["versions"])


def test_a_library_that_differs_is_an_exit_status_of_1(
    few: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded("torch")
    right = adapters.given
    monkeypatch.setattr(adapters, "given", lambda *asked: bias_dropped(right(*asked)))
    assert main(["verify", "--against", "torch"]) == DIFFERS
    assert "DIFFERS in 4 of 4 from PyTorch" in capsys.readouterr().out


def test_a_library_that_fails_is_no_verdict(
    few: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    oracle = loaded("torch")

    def fail(*asked: Any, **more: Any) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(type(oracle), "run", fail)
    assert main(["verify", "--against", "torch"]) == UNJUDGED
    assert "torch whole cannot run it: RuntimeError: out of order" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "torch,nope"], "'nope' is neither a file nor an oracle, expected some of"),
        (["--against", "torch,,jax"], "'' is neither a file nor an oracle"),
        (["--against", "absent"], "pip install no_such_library, or with all others 'refrnn[ora"),
        (["m.keras", "--against", "absent"], "pip install no_such_library"),
        (["none.keras", "--against", "torch"], "none.keras: no such file, expected a .keras"),
        (["folder", "--against", "torch"], "folder: a folder without model.json, expected a"),
        (["m.keras", "--against", "torch", "--html", "p"], "--html p: expected with MODEL and"),
        (["m.keras", "--against", "torch", "--device", "cpu"], "--device cpu: expected where"),
        (["--matrix", "--chunks", "7"], "--chunks 7: expected without --matrix, whose cases"),
        (["--matrix", "--device", "cpu"], "--device cpu: expected where TensorFlow alone"),
        (["m.keras", "--against", "out.npz"], "out.npz: No such file"),
        (["--against", "torch", "--layer", "a"], "--layer a: expected with MODEL"),
        (["m.keras", "--matrix"], "MODEL m.keras: expected without --matrix"),
        (["--against", "m.keras"], "--against m.keras: expected with MODEL"),
    ],
)
def test_a_wrong_request_is_refused_with_the_reason(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("m.keras").write_bytes((Path(verify.__file__).parent / "models/sine.keras").read_bytes())
    np.save("x.npy", np.zeros((1, 3, 1), np.float32))
    absent = Oracle("A library", "absent:Absent", ("no_such_library",), {})
    monkeypatch.setitem(ORACLES, "absent", absent)
    given = ["--input", "x.npy"] if arguments[-1].endswith(".npz") else []
    assert main(["verify", *arguments, *given]) == UNJUDGED
    assert message in capsys.readouterr().err

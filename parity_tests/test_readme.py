"""What the README says of Python runs, as it stands, from top to bottom."""

import re
from importlib import resources
from pathlib import Path

import pytest

from refrnn.layers import LAYERS
from refrnn.models import MODELS

README = Path(__file__).parents[1] / "README.md"


def test_the_python_of_the_readme_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained = resources.files("refrnn.verify") / "models" / "running_sum.keras"
    (tmp_path / "my_model.keras").write_bytes(trained.read_bytes())
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "<README>", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    (difference,) = (float(line) for line in printed if re.fullmatch(r"\d[\d.e-]*", line))
    assert difference < 1e-6  # what it prints, and what it says of it
    for said in ("agrees, as float32", "parts used: called step by step, c is lost between calls"):
        assert any(said in line for line in printed)


def test_every_layer_is_in_the_list_of_the_readme() -> None:
    """Those that have a name to type: what comes from configs only has a dot in its name."""
    _, _, text = README.read_text(encoding="utf-8").partition("## A layer\n")
    section = set(re.findall(r"\w+", text.partition("\n## ")[0]))
    named = {name for name in LAYERS if "." not in name} - set(MODELS)
    assert named - section == set()

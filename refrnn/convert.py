"""`refrnn convert IN OUT`: a model or weights in another format; said what is exact, and verified.

What is written is read back and run, by refrnn and by the library that the format belongs to where
it is installed. Only what agrees takes its place at OUT.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from refrnn import files, layouts, reading, verify
from refrnn.commands import CannotJudge, one_line
from refrnn.exports import named
from refrnn.files import arrays as array_files
from refrnn.files import foreign, onnx, openvino, tflite
from refrnn.files.graphs import Imported
from refrnn.files.groups import Group, groups
from refrnn.gates import Array
from refrnn.layers import Dropout, GaussianDropout, GaussianNoise, SpatialDropout1D
from refrnn.models import Model
from refrnn.oracles import Unavailable, onnx_file, openvino_file, tflite_file
from refrnn.oracles.tensorflow import TensorFlow
from refrnn.verify.chunks import flat
from refrnn.verify.compare import same_bits

AGREES, DIFFERS = 0, 1
HELP = "write a model or weights in another format, and verify the result"
DESCRIPTION = (
    "The suffixes choose the formats. Models: .keras, .h5, .onnx, and for tf.js a folder or its"
    " model.json; to be read, .tflite, and .xml of OpenVINO with its .bin. Weights alone: .npz,"
    " .safetensors; to be read, the state dicts of PyTorch, .pt, .pth, .bin and .ckpt, and .msgpack"
    " of Flax. A model becomes weights too; weights become no model, for which they do not tell the"
    " layers. What is written is read back, and run by ONNX Runtime or Keras where OUT is theirs,"
    " and IN by its own runtime, where they are installed; it takes its place at OUT if all agree."
)
EPILOG = (
    "Exit status: 0 written, and all that ran agrees; 1 what was written differs, OUT is as it was;"
    " 2 could not be converted."
)
Runtime = Callable[[Path, Mapping[str, Array]], dict[str, Array]]
RUNTIMES: dict[str, tuple[str, Any]] = {
    onnx.SUFFIX: ("ONNX Runtime", onnx_file),
    tflite.SUFFIX: ("TFLite's interpreter", tflite_file),
    openvino.SUFFIX: ("OpenVINO", openvino_file),
}
FOLDER = ".refrnn-"  # begins the name of the folder where OUT is tried
OUT = "OUT"  # what is written, in what is said of it
TRAINING = (Dropout, SpatialDropout1D, GaussianNoise, GaussianDropout)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `refrnn convert` takes."""
    parser.add_argument("source", type=Path, metavar="IN", help="a file of a model or of weights")
    parser.add_argument("target", type=Path, metavar="OUT", help="the file to write")
    parser.add_argument(
        "--layout", choices=sorted(layouts.LAYOUTS), metavar="NAME",
        help="of weights to weights: the recurrent ones in the layout of"
        f" {', '.join(sorted(layouts.LAYOUTS))}; by default all stay as they are",
    )  # fmt: skip
    parser.add_argument(
        "--from", dest="origin", choices=sorted(layouts.LAYOUTS), metavar="NAME",
        help="with --layout: whose layout IN has; PyTorch's and Flax's are known by their names",
    )  # fmt: skip
    parser.add_argument("--cell", help="with --from: lstm, gru, gru_reset_before or simple")
    parser.add_argument(
        "--lossy", action="append", default=[], choices=sorted(layouts.LOSSY),
        help="with --layout: a step that computes new numbers and is allowed",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """`refrnn convert`."""
    source, target = options.source, options.target
    if not target.resolve().parent.is_dir():
        raise CannotJudge(f"{target}: no such folder {target.parent}")
    if source.resolve() == target.resolve():
        raise CannotJudge(f"{target}: is {source}, expected another file to write")
    try:
        if source.suffix in array_files.ARRAYS:
            lines = _weights(options)
            status = AGREES
        else:
            if options.layout or options.origin or options.cell or options.lossy:
                raise CannotJudge(f"{source}: is a model, expected --layout with weights alone")
            status, lines = _model(source, target)
    except OSError as error:
        raise CannotJudge(f"{error.filename or source}: {error.strerror or error}") from None
    except (ValueError, TypeError, ImportError) as error:
        hidden = str(error)  # a trial is written into a folder of its own
        raise CannotJudge(re.sub(rf"\S*{FOLDER}\w+/", "", hidden)) from None
    for line in lines:
        print(line)
    written = f"{source} -> {target}"
    print(written if status == AGREES else f"{written}: NOT written, because it differs")
    return status


# --- weights to weights ---


def _weights(options: argparse.Namespace) -> list[str]:
    """Arrays by name in another file, and in another layout if one is asked for."""
    source, target = options.source, options.target
    if target.suffix not in array_files.WRITERS:
        raise CannotJudge(
            f"{target}: expected .npz or .safetensors, because {source} holds weights alone, which"
            " do not tell the layers: make the model and call its load_weights"
        )
    found = files.read_arrays(source)
    lines: list[str] = []
    if options.layout:
        found, lines = _laid_out(found, options)
    with tempfile.TemporaryDirectory(prefix=FOLDER, dir=target.resolve().parent) as folder:
        trial = Path(folder) / target.name
        files.write_arrays(found, trial)
        again = files.read_arrays(trial)
    if not same_bits(again, found):  # NaN is itself
        raise CannotJudge(f"{target}: would not hold the same bits, expected what was written")
    files.write_arrays(found, target)
    return [*lines, f"exact   {len(found)} arrays, read back bit for bit"]


def _laid_out(
    found: Mapping[str, Array], options: argparse.Namespace
) -> tuple[dict[str, Array], list[str]]:
    """The recurrent layers' arrays in another layout, the others as they are."""
    layers = _groups(found, options)
    if not layers:
        raise CannotJudge(
            f"{options.source}: has no names of PyTorch's or Flax's ({', '.join(list(found)[:4])},"
            " ...), expected --from and --cell for the arrays of one layer"
        )
    lines: list[str] = []
    out: dict[str, Array] = {}
    taken = {name for layer in layers for name in layer.taken}
    for before, origin, cell, arrays, _ in layers:
        made = layouts.convert(arrays, cell, origin, options.layout, lossy=options.lossy)
        out |= {before + name: array for name, array in made.items()}
        what = f"{before.rstrip('./') or 'all'}: {cell} of {origin} as {options.layout}"
        told = ", ".join(f"{name}={value!r}" for name, value in made.attributes.items())
        lines.append(f"{'LOSSY ' if made.lossy else 'exact '}  {what}: {told}")
        lines += [f"LOSSY   {what}: {layouts.LOSSY[name]}" for name in made.lossy]
    kept = {name: array for name, array in found.items() if name not in taken}
    clash = sorted(set(kept) & set(out))
    if clash:
        raise CannotJudge(f"{options.source}: has {clash[0]} already, expected it to be free")
    if kept:
        lines.append(f"as is   {', '.join(kept)}")
    return out | kept, lines


def _groups(found: Mapping[str, Array], options: argparse.Namespace) -> list[Group]:
    """Each recurrent layer: the one that is said, or those with names of PyTorch or Flax."""
    if not (options.origin or options.cell):
        return list(groups(found))
    if not (options.origin and options.cell):
        raise CannotJudge(f"{options.source}: expected --from and --cell together")
    return [Group("", options.origin, options.cell, dict(found), list(found))]


# --- models ---


def _model(source: Path, target: Path) -> tuple[int, list[str]]:
    """A model in another format, or its weights alone."""
    imported = foreign.load(source) if source.suffix in foreign.READERS else None
    model = files.load_model(source) if imported is None else imported.model
    lines = [f"{word:<7} {text}" for word, text in imported.remarks()] if imported else []
    alone = target.suffix in array_files.WRITERS or target.name.endswith(".weights.h5")
    save: Callable[[Any], None] = model.save_weights if alone else model.save
    with tempfile.TemporaryDirectory(prefix=FOLDER, dir=target.resolve().parent) as folder:
        trial = Path(folder) / target.name
        save(trial)
        if alone:
            own = [w.tobytes() for w in model.get_weights()]
            copy = imported.model if imported else files.load_model(source)
            copy.set_weights([w * 0 for w in copy.get_weights()])
            copy.load_weights(trial)
            same = own == [w.tobytes() for w in copy.get_weights()]
            lines.append(f"{_exact(same)}  {len(own)} arrays of weights, read back")
        else:
            same = _verified(model, source, trial, imported, lines)
    if same:
        save(target)
    return AGREES if same else DIFFERS, lines


def _exact(same: bool) -> str:
    return "exact " if same else "DIFFERS"


def _verified(
    model: Model, source: Path, trial: Path, imported: Imported | None, lines: list[str]
) -> bool:
    """Whether all that can run the new file and the old agrees; what was found goes to `lines`."""
    left = [layer.name for layer in model.every_layer() if isinstance(layer, TRAINING)]
    if left and trial.suffix == onnx.SUFFIX:
        lines.append(f"left    {', '.join(left)}: acts in training only")
    rows = {end.rows for end in imported.inputs if end.rows} if imported else set()
    inputs = reading.inputs(source, model, None, max(rows, default=reading.ROWS))
    model.reset_states()
    own = flat(model(inputs if len(inputs) > 1 else inputs[0]))
    model.reset_states()
    agrees, seen = True, False  # seen: whether anything has run what was written
    try:
        again = files.load_model(trial)
    except files.FileError as error:
        unread = str(error).replace(str(trial), trial.name)
        lines.append(f"unread  refrnn does not read it back: {unread}")
    else:
        seen = True
        theirs = named(model, again(inputs if len(inputs) > 1 else inputs[0]))
        agrees = same_bits(theirs, own)
        lines.append(f"{_exact(agrees)}  read back, it gives the same bits")
    oracles: dict[str, Callable[[], dict[str, Array]]] = {}
    if imported is not None:
        who, runtime = RUNTIMES[source.suffix]
        oracles[f"{who} on IN"] = lambda: _asked_turned(runtime.run, source, imported, inputs)
    if trial.suffix == onnx.SUFFIX:
        oracles[f"ONNX Runtime on {OUT}"] = lambda: _asked(trial, model, inputs)
    if trial.suffix in (".keras", ".h5", ".hdf5"):
        oracles[f"Keras on {OUT}"] = lambda: _keras(trial, model, inputs)
    for who, asked_for in oracles.items():
        try:
            found = asked_for()
        except Unavailable as error:
            lines.append(f"not run {who}: {error}")
            continue
        except Exception as error:  # whatever another library raises for a file
            lines.append(f"FAILS   {who}: {one_line(error)}")
            agrees = False
            continue
        seen |= who.endswith(OUT)
        asked: dict[str, Callable[[], Any]] = {who: partial(dict, found)}
        for row in verify.judge_model(trial.name, model, inputs, asked, []):
            what = "agrees " if row.agrees else "DIFFERS"
            note = f": {row.note}" if not row.agrees else ""
            lines.append(f"{what} {who}: {row.whole:.1e} of {row.allowed:.0e} allowed{note}")
            agrees &= row.agrees
    if not seen:
        why = (
            f"{trial.name}: nothing here runs what was written, expected refrnn or the library of"
            " that format, because nothing is written unverified"
        )
        raise CannotJudge("\n".join([*lines, why]))
    return agrees


def _asked(path: Path, model: Model, inputs: list[Array]) -> dict[str, Array]:
    """The outputs of ONNX Runtime."""
    names = [spec.name for spec in model.inputs]
    return named(model, onnx_file.run(path, dict(zip(names, inputs, strict=True))))


def _asked_turned(
    run: Runtime, path: Path, imported: Imported, inputs: list[Array]
) -> dict[str, Array]:
    """The same for a file that was read, whose axes may be in another order."""
    left, given = iter(inputs), {}
    for end in imported.inputs:
        given[end.name] = end.whole(left)
    found = run(path, given)
    parts = [part for end in imported.outputs for part in end.arrays(found[end.name])]
    return named(imported.model, parts)


def _keras(path: Path, model: Model, inputs: list[Array]) -> dict[str, Array]:
    print("loading TensorFlow ...", file=sys.stderr, flush=True)
    tensorflow = TensorFlow()
    return named(model, tensorflow.run_model(tensorflow.load(path), inputs))

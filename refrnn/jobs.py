"""What `refrnn verify` does, as jobs: each asks TensorFlow, judges refrnn, and returns rows.

Judge and oracle do not know each other; here they meet.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from refrnn import verify
from refrnn.cases import Arrays
from refrnn.files import from_keras
from refrnn.gates import Array
from refrnn.layers.stored import clone
from refrnn.oracles.tensorflow import MODES, TensorFlow
from refrnn.verify import chunks
from refrnn.verify.inputs import bits, sine_windows

Job = Callable[[], list[verify.Row]]
Oracles = dict[str, Callable[[], Any]]


class CannotJudge(Exception):
    """Bad input or a missing library: the message says what to fix."""


@dataclass(frozen=True)
class Bench:
    """What is asked, and how.

    cpu, gpu  where TensorFlow runs
    cuttings  lists of chunk lengths; None for the default ones, [] for whole runs only
    """

    tf: TensorFlow
    cpu: bool
    gpu: bool
    cuttings: Sequence[Sequence[int]] | None = None

    def family(self) -> list[Job]:
        """The fixed cases, and the two trained models that come with refrnn."""
        trained = [
            ("running_sum.keras", "trained running sum, B8 T24", bits(), None),
            ("sine.keras", "trained sine wave, batch 175", sine_windows(), None),
            ("sine.keras", "trained sine wave, batch 1", sine_windows()[:1], 1),
        ]
        return [
            *(partial(self._case, case) for case in verify.FAMILY),
            *(partial(self._trained, *model) for model in trained),
        ]

    def file(self, path: Path, input_path: Path | None) -> Job:
        """A model of the user's: loaded by Keras, turned into a refrnn model, its inputs read.

        Raises CannotJudge for what Keras cannot load, refrnn cannot run, or does not fit.
        """
        try:
            source = self.tf.load(path)
        except Exception as error:  # whatever Keras raises for a file that it cannot read
            raise CannotJudge(f"{path}: Keras cannot load it: {one_line(error)}") from None
        if not getattr(source, "inputs", None):
            raise CannotJudge(
                f"{path}: the model has no inputs yet, expected one that was built before it was"
                " saved, because its weights are not there otherwise"
            )
        where: str = str(path)
        try:
            model: Any = from_keras(source)
            if input_path is None:
                inputs = self.tf.input_arrays(source, rows=3, steps=20)
            else:
                where = f"--input {input_path}"
                inputs = read_inputs(input_path, source)
            inputs = model.arrays(inputs if len(inputs) > 1 else inputs[0])
            verify.judge_model(path.name, model, inputs, {}, [])  # refrnn's own refusals come first
        except (ValueError, TypeError) as error:
            raise CannotJudge(f"{where}: {error}") from None
        return partial(self._model, path.name, source, model, inputs)

    def _case(self, case: Any) -> list[verify.Row]:
        oracles: Oracles = {}
        if self.cpu:
            oracles = {f"TF {mode}": partial(self.tf.run, case, mode) for mode in MODES}
        if self.gpu and self.tf.runs_on_cudnn(case, case.arrays().mask):
            oracles["TF cuDNN"] = partial(self.tf.run, case, "eager", cudnn=True)
        if not oracles:
            return []
        return verify.judge_case(case, _guarded(str(case), oracles), self.cuttings)

    def _trained(self, file: str, title: str, x: Array, rows: int | None) -> list[verify.Row]:
        with resources.as_file(resources.files("refrnn.verify") / "models" / file) as path:
            source = self.tf.load(path)
        if rows is not None:
            source = self.tf.with_batch(source, rows)
        return self._model(title, source, from_keras(source), [x])

    def _model(
        self, title: str, source: Any, model: Any, inputs: Sequence[Array]
    ) -> list[verify.Row]:
        def ask(mode: str, gpu: bool) -> Any:
            return chunks.flat(self.tf.run_model(source, inputs, mode, gpu))

        oracles: Oracles = {}
        if self.cpu:
            oracles = {f"TF {mode}": partial(ask, mode, False) for mode in MODES}
        if self.gpu:
            oracles["TF GPU"] = partial(ask, "eager", True)
        rows = verify.judge_model(title, model, inputs, _guarded(title, oracles), self.cuttings)
        return rows + (self._inside(title, source, model, inputs) if self.cpu else [])

    def _inside(
        self, title: str, source: Any, model: Any, inputs: Sequence[Array]
    ) -> list[verify.Row]:
        """The recurrent layers of a model, each judged by itself on what Keras gave it."""
        rows = []
        for seen in self.tf.inside(source, inputs):
            weights = model.get_layer(seen.name).get_weights()
            shown = {"return_sequences": True, "return_state": len(seen.outputs) > 1}
            layer = clone(model.get_layer(seen.name), stateful=False, **shown)
            layer.build((None, None, seen.x.shape[2]))
            layer.set_weights(weights)
            theirs = chunks.named(seen.outputs)
            oracles: Oracles = {"TF eager": partial(dict, theirs)}
            arrays = Arrays(weights, seen.x, seen.state, seen.mask)
            rows += verify.judge_layer(
                f"{title}: {seen.name}", layer, arrays, oracles, self.cuttings
            )
        return rows


def _guarded(title: str, oracles: Oracles) -> Oracles:
    """The oracles, with their failures to run told as such: no verdict comes of them."""

    def ask(name: str) -> Any:
        try:
            return oracles[name]()
        except Exception as error:  # whatever TensorFlow raises
            raise CannotJudge(f"{title}: {name} cannot run it: {one_line(error)}") from error

    return {name: partial(ask, name) for name in oracles}


def read_inputs(path: Path, source: Any) -> list[Array]:
    """Arrays from .npy (one input) or .npz (by name), in the order and dtypes of a Keras model."""
    names = [tensor.name for tensor in source.inputs]
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                arrays = [loaded]
            elif sorted(loaded.files) != sorted(names):
                raise CannotJudge(f"--input {path}: arrays are {loaded.files}, expected {names}")
            else:
                arrays = [loaded[name] for name in names]
    except CannotJudge:
        raise
    except Exception as error:  # NumPy raises many kinds for a file that is not what it seems
        raise CannotJudge(
            f"--input {path}: cannot be read as .npy or .npz: {one_line(error)}"
        ) from None
    if len(arrays) != len(names):
        raise CannotJudge(
            f"--input {path}: one array, expected a .npz with {len(names)}: {', '.join(names)}"
        )
    for name, array in zip(names, arrays, strict=True):
        if array.dtype.kind not in "fiub":
            wrong = f"has dtype {array.dtype}, expected real numbers"
        elif not array.size:
            wrong = f"has shape {array.shape}, expected a row and a step"
        elif not np.isfinite(array).all():
            wrong = "holds NaN or infinity, expected numbers"
        else:
            continue
        raise CannotJudge(f"--input {path}: {name} {wrong}")
    return [array.astype(tensor.dtype) for array, tensor in zip(arrays, source.inputs, strict=True)]


def one_line(error: Exception) -> str:
    """What an error of another library says, in one line: colours and the call's arguments gone."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception encountered")]
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__

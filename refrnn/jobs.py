"""What `refrnn verify` does, as jobs: each asks TensorFlow, judges refrnn, and returns rows.

Judge and oracle do not know each other; here they meet.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from refrnn import reading, verify
from refrnn.cases import Arrays
from refrnn.commands import CannotJudge, one_line
from refrnn.files import from_keras
from refrnn.gates import Array
from refrnn.layers.stored import clone
from refrnn.oracles.tensorflow import MODES, TensorFlow
from refrnn.verify import chunks
from refrnn.verify.inputs import bits, sine_windows

Job = Callable[[], list[verify.Row]]
Oracles = dict[str, Callable[[], Any]]


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
        try:
            model: Any = from_keras(source)
        except (ValueError, TypeError) as error:
            raise CannotJudge(f"{path}: {error}") from None
        given = reading.inputs(path, model, input_path)
        try:  # refrnn's own refusals come first
            verify.judge_model(path.name, model, given, {}, [])
        except (ValueError, TypeError) as error:
            raise CannotJudge(f"{input_path or path}: {error}") from None
        return partial(self._model, path.name, source, model, given)

    def _case(self, case: Any) -> list[verify.Row]:
        oracles: Oracles = {}
        if self.cpu:
            oracles = {f"TF {mode}": partial(self.tf.run, case, mode) for mode in MODES}
        if self.gpu and self.tf.runs_on_cudnn(case, case.arrays().mask):
            oracles["TF cuDNN"] = partial(self.tf.run, case, "eager", cudnn=True)
        if not oracles:
            return []
        return verify.judge_case(case, guarded(str(case), oracles), self.cuttings)

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
        rows = verify.judge_model(title, model, inputs, guarded(title, oracles), self.cuttings)
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


def guarded(title: str, oracles: Oracles) -> Oracles:
    """The oracles, with their failures to run told as such: no verdict comes of them."""

    def ask(name: str) -> Any:
        try:
            return oracles[name]()
        except Exception as error:  # whatever the library raises
            raise CannotJudge(f"{title}: {name} cannot run it: {one_line(error)}") from error

    return {name: partial(ask, name) for name in oracles}

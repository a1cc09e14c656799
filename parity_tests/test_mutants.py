"""The suite can fail: each planted bug below is caught by a test of this folder.

A mutant changes one thing in the running package, as a slip of the pen would. The tests named in
SUITE are then run, or those in MODEL_SUITE for bugs of models and files; one of them must fail by
an assertion. Unplanted, they all pass.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_custom
import test_dropout
import test_files
import test_grid
import test_layers
import test_models
import test_reference
import test_rnn
from hypothesis import Phase, settings

from refrnn import activations, cells, engines, gates, random, reference
from refrnn.files import live, weights, writing
from refrnn.layers import LSTM, RNN, Layer, bidirectional, rnn, stacking
from refrnn.layers import cells as layer_cells
from refrnn.layers.recurrent import Recurrent
from refrnn.layers.rnn import Memory
from refrnn.models import Model, Ref, chunks, configs
from refrnn.models import graph as graphs

pytestmark = pytest.mark.filterwarnings(
    # of Keras: masks into a model inside, and .h5 files
    "ignore:.*does not support masking:UserWarning",
    "ignore:.*legacy:UserWarning",
    "ignore:__array__ implementation:DeprecationWarning",
)

Patch = pytest.MonkeyPatch
Mutant = Callable[[Patch], None]
MUTANTS: dict[str, Mutant] = {}


def mutant(function: Mutant) -> Mutant:
    MUTANTS[function.__name__.replace("_", " ")] = function
    return function


def gate(patch: Patch, name: str, wrong: Callable[..., Any]) -> None:
    patch.setattr(gates, name, wrong)


def change_lstm(patch: Patch, pre: Callable[[gates.LSTMPre], gates.LSTMPre]) -> None:
    """The LSTM with its pre-activations changed before its equations see them."""
    right = gates.lstm
    gate(patch, "lstm", lambda z, c, act, rec: right(pre(z), c, act, rec))


def change_step(patch: Patch, names: str, wrong: Callable[..., Any]) -> None:
    """wrong(right, cell, weights, state, x) in place of the step of the cells in `names`."""
    for name in names.split():
        right = cells.CELLS[name].step

        def step(cell: Any, weights: Any, state: Any, x: Any, right: Any = right) -> Any:
            return wrong(right, cell, weights, state, x)

        patch.setitem(cells.CELLS, name, cells.CELLS[name]._replace(step=step))


def change_steps(patch: Patch, wrong: Callable[..., Any]) -> None:
    """wrong(right, cell, weights, xs, state, **options) in place of reference.steps."""
    right = reference.steps
    patch.setattr(
        reference,
        "steps",
        lambda cell, weights, xs, state, **options: wrong(
            right, cell, weights, xs, state, **options
        ),
    )


ALL = "lstm gru gru_reset_before simple"

# --- equations: LSTM ---


@mutant
def lstm_i_and_f_swapped(patch: Patch) -> None:
    change_lstm(patch, lambda z: z._replace(i=z.f, f=z.i))


@mutant
def lstm_i_and_o_swapped(patch: Patch) -> None:
    change_lstm(patch, lambda z: z._replace(i=z.o, o=z.i))


@mutant
def lstm_f_and_o_swapped(patch: Patch) -> None:
    change_lstm(patch, lambda z: z._replace(f=z.o, o=z.f))


@mutant
def lstm_g_and_o_swapped_as_in_onnx(patch: Patch) -> None:
    change_lstm(patch, lambda z: z._replace(g=z.o, o=z.g))


@mutant
def lstm_forget_bias_of_1_added_at_run_time(patch: Patch) -> None:
    change_lstm(patch, lambda z: z._replace(f=z.f + 1))


@mutant
def lstm_output_without_its_squash(patch: Patch) -> None:
    right = gates.lstm

    def wrong(z: Any, c: Any, act: Any, rec: Any) -> Any:
        q = right(z, c, act, rec)
        return q._replace(h=q.o * q.c)

    gate(patch, "lstm", wrong)


@mutant
def lstm_output_squashed_by_tanh_whatever_the_activation(patch: Patch) -> None:
    right = gates.lstm

    def wrong(z: Any, c: Any, act: Any, rec: Any) -> Any:
        q = right(z, c, act, rec)
        return q._replace(h=q.o * np.tanh(q.c))

    gate(patch, "lstm", wrong)


@mutant
def lstm_candidate_squashed_by_the_recurrent_activation(patch: Patch) -> None:
    right = gates.lstm

    def wrong(z: Any, c: Any, act: Any, rec: Any) -> Any:
        q = right(z, c, act, rec)
        new = q.f * c + q.i * rec(z.g)
        return q._replace(c=new, h=q.o * act(new))

    gate(patch, "lstm", wrong)


@mutant
def lstm_input_gate_tied_to_the_forget_gate(patch: Patch) -> None:
    change_lstm(patch, lambda z: z._replace(i=-z.f))


@mutant
def lstm_h_and_c_swapped(patch: Patch) -> None:
    def wrong(right: Any, cell: Any, weights: Any, state: Any, x: Any) -> Any:
        return right(cell, weights, type(state)(h=state.c, c=state.h), x)

    change_step(patch, "lstm", wrong)


@mutant
def lstm_cell_state_clipped(patch: Patch) -> None:
    right = gates.lstm

    def wrong(z: Any, c: Any, act: Any, rec: Any) -> Any:
        q = right(z, c, act, rec)
        return q._replace(c=np.clip(q.c, -1, 1))

    gate(patch, "lstm", wrong)


# --- equations: GRU ---


@mutant
def gru_z_and_r_swapped(patch: Patch) -> None:
    right = gates.gru

    def wrong(x: Any, u: Any, *rest: Any) -> Any:
        return right(x._replace(z=x.r, r=x.z), u._replace(z=u.r, r=u.z), *rest)

    gate(patch, "gru", wrong)


@mutant
def gru_z_keeps_the_new_state_instead_of_the_old(patch: Patch) -> None:
    right = gates.gru

    def wrong(x: Any, u: Any, h: Any, act: Any, rec: Any) -> Any:
        q = right(x, u, h, act, rec)
        return q._replace(h=(1 - q.z) * h + q.z * q.g)

    gate(patch, "gru", wrong)


@mutant
def gru_without_its_reset_gate(patch: Patch) -> None:
    right = gates.gru

    def wrong(x: Any, u: Any, h: Any, act: Any, rec: Any) -> Any:
        q = right(x, u, h, act, rec)
        return q._replace(h=q.z * h + (1 - q.z) * act(x.g + u.g))

    gate(patch, "gru", wrong)


def change_bias(patch: Patch, names: str, wrong: Callable[[Any], Any]) -> None:
    change_step(
        patch,
        names,
        lambda right, cell, w, state, x: right(cell, w._replace(bias=wrong(w.bias)), state, x),
    )


@mutant
def gru_recurrent_bias_dropped(patch: Patch) -> None:
    change_bias(patch, "gru", lambda b: b * np.array([[1], [0]], b.dtype))


@mutant
def gru_rows_of_the_bias_swapped(patch: Patch) -> None:
    change_bias(patch, "gru", lambda b: b[::-1])


@mutant
def gru_biases_summed_into_one(patch: Patch) -> None:
    """What a converter does that takes the candidate's recurrent bias out of the reset gate."""
    change_bias(patch, "gru", lambda b: np.stack([b[0] + b[1], 0 * b[1]]))


@mutant
def gru_reset_before_the_product_in_place_of_after(patch: Patch) -> None:
    def wrong(right: Any, cell: Any, weights: Any, state: Any, x: Any) -> Any:
        folded = weights._replace(bias=weights.bias.sum(axis=0))
        return cells.gru_reset_before_step(cell, folded, state, x)

    change_step(patch, "gru", wrong)


@mutant
def gru_reset_after_the_product_in_place_of_before(patch: Patch) -> None:
    def wrong(right: Any, cell: Any, weights: Any, state: Any, x: Any) -> Any:
        two = weights._replace(bias=np.stack([weights.bias, 0 * weights.bias]))
        return cells.gru_step(cell, two, state, x)

    change_step(patch, "gru_reset_before", wrong)


@mutant
def gru_reset_before_scales_the_wrong_state(patch: Patch) -> None:
    right = gates.gru_reset_before

    def wrong(x: Any, u_z: Any, u_r: Any, product: Any, h: Any, act: Any, rec: Any) -> Any:
        q = right(x, u_z, u_r, product, h, act, rec)
        g = act(x.g + product(q.z * h))
        return q._replace(h=q.z * h + (1 - q.z) * g)

    gate(patch, "gru_reset_before", wrong)


# --- weights and products ---


@mutant
def bias_dropped(patch: Patch) -> None:
    change_bias(patch, ALL, np.zeros_like)


@mutant
def bias_added_twice(patch: Patch) -> None:
    change_bias(patch, "lstm simple", lambda b: 2 * b)


@mutant
def recurrent_kernel_transposed(patch: Patch) -> None:
    def wrong(right: Any, cell: Any, weights: Any, state: Any, x: Any) -> Any:
        blocks = np.split(weights.recurrent_kernel, len(cell.gates), axis=1)
        U = np.concatenate([block.T for block in blocks], axis=1)
        return right(cell, weights._replace(recurrent_kernel=U), state, x)

    change_step(patch, ALL, wrong)


@mutant
def recurrent_term_missing(patch: Patch) -> None:
    def wrong(right: Any, cell: Any, weights: Any, state: Any, x: Any) -> Any:
        U = np.zeros_like(weights.recurrent_kernel)
        return right(cell, weights._replace(recurrent_kernel=U), state, x)

    change_step(patch, ALL, wrong)


@mutant
def products_of_blas_whose_order_depends_on_the_rows(patch: Patch) -> None:
    patch.setattr(cells, "dot", np.matmul)
    patch.setattr(test_reference, "dot", np.matmul)


@mutant
def products_rounded_as_in_tf32(patch: Patch) -> None:
    right = cells.dot

    def tf32(a: Any) -> Any:  # ten bits of mantissa
        mantissa, exponent = np.frexp(a.astype(np.float64))
        return np.ldexp(np.round(mantissa * 2048) / 2048, exponent).astype(a.dtype)

    patch.setattr(cells, "dot", lambda a, b: right(tf32(a), tf32(b)))


# --- activations ---


def change_activation(patch: Patch, name: str, wrong: Callable[[Any], Any]) -> None:
    """Swap a row of the table, also where the table of cells has it as a default."""
    row = activations.ACTIVATIONS[name]._replace(value=wrong)
    patch.setitem(activations.ACTIVATIONS, name, row)
    for cell in cells.CELLS.values():
        changes = {f: row for f in ("act", "rec") if getattr(cell, f).name == name}
        patch.setitem(cells.CELLS, cell.name, cell._replace(**changes))


@mutant
def sigmoid_replaced_by_hard_sigmoid(patch: Patch) -> None:
    change_activation(patch, "sigmoid", activations.hard_sigmoid)


@mutant
def hard_sigmoid_of_the_other_generation(patch: Patch) -> None:
    change_activation(patch, "hard_sigmoid", activations.hard_sigmoid_keras2)


@mutant
def tanh_from_a_table_of_4096_entries(patch: Patch) -> None:
    change_activation(patch, "tanh", lambda x: np.tanh(np.round(x * 512) / 512).astype(x.dtype))


# --- the loop ---


def change_mask(patch: Patch, wrong: Callable[[Any], Any]) -> None:
    def steps(right: Any, *args: Any, mask: Any = None, **options: Any) -> Any:
        return right(*args, mask=None if mask is None else wrong(mask), **options)

    change_steps(patch, steps)


@mutant
def mask_off_by_one(patch: Patch) -> None:
    change_mask(patch, lambda mask: np.roll(mask, 1, axis=1))


@mutant
def mask_inverted(patch: Patch) -> None:
    change_mask(patch, np.logical_not)


@mutant
def mask_of_the_first_row_for_all_rows(patch: Patch) -> None:
    change_mask(patch, lambda mask: np.broadcast_to(mask[:1], mask.shape))


@mutant
def mask_ignored(patch: Patch) -> None:
    change_mask(patch, lambda mask: None)


@mutant
def mask_not_reversed_with_the_input(patch: Patch) -> None:
    def steps(right: Any, *args: Any, mask: Any = None, **options: Any) -> Any:
        if options.get("go_backwards") and mask is not None:
            mask = mask[:, ::-1]
        return right(*args, mask=mask, **options)

    change_steps(patch, steps)


@mutant
def masked_steps_emit_the_initial_state(patch: Patch) -> None:
    """What Keras does on NumPy and JAX, not on TensorFlow."""

    def steps(right: Any, cell: Any, weights: Any, xs: Any, state: Any, **options: Any) -> Any:
        return right(cell, weights, xs, state, **{**options, "last_output": state.h})

    change_steps(patch, steps)


@mutant
def zero_output_for_mask_ignored(patch: Patch) -> None:
    change_steps(
        patch,
        lambda right, *args, zero_output_for_mask=False, **options: right(*args, **options),
    )


@mutant
def masked_rows_lose_their_state(patch: Patch) -> None:
    def steps(right: Any, cell: Any, weights: Any, xs: Any, state: Any, **options: Any) -> Any:
        mask = options.get("mask")
        for t, (y, after, q) in enumerate(right(cell, weights, xs, state, **options)):
            if mask is not None and t == xs.shape[1] - 1:
                after = type(after)(*(np.where(mask[:, t, None], p, 0) for p in after))
            yield y, after, q

    change_steps(patch, steps)


@mutant
def go_backwards_ignored(patch: Patch) -> None:
    change_steps(patch, lambda right, *args, go_backwards=False, **options: right(*args, **options))


@mutant
def go_backwards_outputs_flipped_back(patch: Patch) -> None:
    def steps(right: Any, *args: Any, **options: Any) -> Iterator[Any]:
        seen = list(right(*args, **options))
        outputs = [y for y, _, _ in seen]
        if options.get("go_backwards"):
            outputs.reverse()
        for y, (_, state, q) in zip(outputs, seen, strict=True):
            yield y, state, q

    change_steps(patch, steps)


@mutant
def last_step_left_out(patch: Patch) -> None:
    def steps(right: Any, *args: Any, **options: Any) -> Iterator[Any]:
        before = None
        for y, state, q in right(*args, **options):
            yield y, before or state, q
            before = state

    change_steps(patch, steps)


@mutant
def reset_comes_after_the_step(patch: Patch) -> None:
    def steps(right: Any, *args: Any, reset: Any = None, **options: Any) -> Any:
        if reset is not None:
            reset = np.roll(reset, 1, axis=1)
            reset[:, 0] = False
        return right(*args, reset=reset, **options)

    change_steps(patch, steps)


@mutant
def reset_of_one_row_resets_all(patch: Patch) -> None:
    def steps(right: Any, *args: Any, reset: Any = None, **options: Any) -> Any:
        if reset is not None:
            reset = np.broadcast_to(reset.any(axis=0), reset.shape)
        return right(*args, reset=reset, **options)

    change_steps(patch, steps)


@mutant
def initial_state_ignored(patch: Patch) -> None:
    def steps(right: Any, cell: Any, weights: Any, xs: Any, state: Any, **options: Any) -> Any:
        blank = type(state)(*map(np.zeros_like, state))
        return right(cell, weights, xs, blank, **options)

    change_steps(patch, steps)


@mutant
def rows_of_the_batch_leak_into_one_another(patch: Patch) -> None:
    def wrong(right: Any, cell: Any, weights: Any, state: Any, x: Any) -> Any:
        return right(cell, weights, state, x + 1e-9 * x.mean(axis=0).astype(x.dtype))

    change_step(patch, ALL, wrong)


# --- layers and what they carry ---


def change_advance(patch: Patch, wrong: Callable[..., Any]) -> None:
    right = Recurrent._run  # what a call and an advance have in common
    patch.setattr(Recurrent, "_run", lambda *args, **kwargs: wrong(right, *args, **kwargs))


@mutant
def state_not_carried_to_the_next_chunk(patch: Patch) -> None:
    def wrong(right: Any, self: Any, xs: Any, memory: Any, *rest: Any, **more: Any) -> Any:
        returned, after = right(self, xs, memory, *rest, **more)
        return returned, after._replace(state=memory.state)

    change_advance(patch, wrong)


@mutant
def cell_state_not_carried_to_the_next_chunk(patch: Patch) -> None:
    def wrong(right: Any, self: Any, xs: Any, memory: Any, *rest: Any, **more: Any) -> Any:
        returned, after = right(self, xs, memory, *rest, **more)
        if self.cell.math.name == "lstm":
            state = after.state._replace(c=memory.state.c)
            after = after._replace(state=state)
        return returned, after

    change_advance(patch, wrong)


@mutant
def last_output_not_carried_to_the_next_chunk(patch: Patch) -> None:
    def wrong(right: Any, *args: Any, **kwargs: Any) -> Any:
        returned, after = right(*args, **kwargs)
        return returned, Memory(after.state, np.zeros_like(after.last_output))

    change_advance(patch, wrong)


@mutant
def stateful_layer_forgets(patch: Patch) -> None:
    def wrong(right: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        returned, after = right(self, *args, **kwargs)
        if self.stateful:
            after = after._replace(state=type(after.state)(*map(np.zeros_like, after.state)))
        return returned, after

    change_advance(patch, wrong)


@mutant
def reset_state_does_nothing(patch: Patch) -> None:
    patch.setattr(Recurrent, "reset_state", lambda self: None)


@mutant
def returned_states_are_swapped(patch: Patch) -> None:
    def wrong(right: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        returned, after = right(self, *args, **kwargs)
        if self.return_state and self.cell.math.name == "lstm":
            y, h, c = returned
            returned = (y, c, h)
        return returned, after

    change_advance(patch, wrong)


@mutant
def last_output_returned_is_the_state(patch: Patch) -> None:
    """They are equal until the last step is masked."""

    def wrong(right: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        returned, after = right(self, *args, **kwargs)
        if not self.return_sequences:
            h = after.state.h.copy()
            returned = (h, *returned[1:]) if self.return_state else h
        return returned, after

    change_advance(patch, wrong)


@mutant
def the_bug_of_keras_with_unroll_copied(patch: Patch) -> None:
    def wrong(right: Any, self: Any, xs: Any, memory: Any, mask: Any = None, *rest: Any) -> Any:
        returned, after = right(self, xs, memory, mask, *rest)
        options = self.unroll and self.zero_output_for_mask and self.go_backwards
        if options and mask is not None and self.return_sequences:
            returned = (np.where(np.asarray(mask)[:, :, None], returned[0], 0), *returned[1:])
        return returned, after

    change_advance(patch, wrong)


@mutant
def backward_outputs_not_turned_round(patch: Patch) -> None:
    patch.setattr(bidirectional.np, "flip", lambda array, axis: array)


@mutant
def halves_of_a_pair_swapped(patch: Patch) -> None:
    merges = {
        name: lambda f, b, merge=merge: merge(b, f) for name, merge in bidirectional.MERGES.items()
    }
    patch.setattr(bidirectional, "MERGES", merges)


@mutant
def masked_steps_of_a_pair_repeat_their_output(patch: Patch) -> None:
    right = bidirectional.Bidirectional.call

    def call(self: Any, sequences: Any, *rest: Any, **more: Any) -> Any:
        self.forward_layer.zero_output_for_mask = False
        self.backward_layer.zero_output_for_mask = False
        return right(self, sequences, *rest, **more)

    patch.setattr(bidirectional.Bidirectional, "call", call)


@mutant
def states_of_a_stack_not_held_at_masked_steps(patch: Patch) -> None:
    right = rnn._where

    def wrong(live: Any, new: Any, old: Any) -> Any:  # outputs are arrays, states are lists
        return new if isinstance(new, list | tuple) else right(live, new, old)

    patch.setattr(rnn, "_where", wrong)


@mutant
def cells_of_a_stack_see_the_input_of_the_first(patch: Patch) -> None:
    right = stacking.StackedRNNCells.begin

    def begin(self: Any, rows: int, features: int, training: Any) -> Any:
        step = right(self, rows, features, training)

        def wrong(x: Any, states: Any) -> Any:
            y, after = step(x, states)
            return 0 * y, after

        return wrong

    patch.setattr(stacking.StackedRNNCells, "begin", begin)


@mutant
def dropout_keeps_what_it_should_drop(patch: Patch) -> None:
    patch.setattr(layer_cells, "dropout", lambda x, rate, seed: random.dropout(x, 1 - rate, seed))


@mutant
def dropout_without_its_scale(patch: Patch) -> None:
    patch.setattr(
        layer_cells, "dropout", lambda x, rate, seed: np.sign(random.dropout(x, rate, seed))
    )


@mutant
def inference_draws_no_random_numbers(patch: Patch) -> None:
    right = layer_cells.RecurrentCell.drawn
    patch.setattr(
        layer_cells.RecurrentCell,
        "drawn",
        lambda self, rows, features, training: right(self, rows, features, training or None),
    )


@mutant
def one_dropout_mask_for_all_gates(patch: Patch) -> None:
    patch.setattr(layer_cells.RecurrentCell, "mask_count", property(lambda self: 1))


# --- models and files ---

MODEL_MUTANTS: dict[str, Mutant] = {}


def of_models(function: Mutant) -> Mutant:
    MODEL_MUTANTS[function.__name__.replace("_", " ")] = function
    return function


@of_models
def layers_of_a_graph_as_they_are_met(patch: Patch) -> None:
    patch.setattr(graphs, "_by_depth", lambda order, first: list(first))


@of_models
def calls_of_a_graph_as_they_are_met(patch: Patch) -> None:
    for module in (graphs, configs):
        patch.setattr(module, "as_executed", lambda nodes, outputs: nodes)


@of_models
def calls_of_a_model_inside_counted_from_0_in_output_layers(patch: Patch) -> None:
    right = configs.write_graph

    def wrong(*args: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(configs, "_is_functional", lambda entry: False)
            return right(*args)

    patch.setattr(configs, "write_graph", wrong)


@of_models
def calls_of_a_layer_share_one_memory(patch: Patch) -> None:
    def run(graph: Any, arrays: Any, call: Any) -> Any:
        return graphs.run(graph, arrays, lambda node, *rest: call(node._replace(call=0), *rest))

    patch.setattr(chunks, "run", run)


@of_models
def mask_given_to_a_model_ignored(patch: Patch) -> None:
    right = Model.arrays
    patch.setattr(Model, "arrays", lambda self, inputs, mask=None: right(self, inputs))


@of_models
def mask_attached_to_the_input_of_a_model_lost(patch: Patch) -> None:
    right = Model.arrays

    def arrays(self: Any, inputs: Any, mask: Any = None) -> Any:
        found = right(self, inputs, mask)
        return list(map(np.asarray, found)) if mask is None else found

    patch.setattr(Model, "arrays", arrays)


@of_models
def inputs_in_a_dictionary_taken_as_they_come(patch: Patch) -> None:
    right = Model.in_order

    def in_order(self: Any, given: Any, what: str = "inputs") -> Any:
        return right(self, list(given.values()) if isinstance(given, dict) else given, what)

    patch.setattr(Model, "in_order", in_order)


@of_models
def training_of_a_layer_goes_before_that_of_the_model(patch: Patch) -> None:
    patch.setattr(Model, "_call", lambda self, node, args, kwargs: node.layer(*args, **kwargs))


def change_kinds(patch: Patch, wrong: Callable[[Any, list[str]], list[str]]) -> None:
    right = chunks._of_call
    patch.setattr(chunks, "_of_call", lambda node, kind: wrong(node.layer, right(node, kind)))


@of_models
def last_output_taken_for_a_step(patch: Patch) -> None:
    steps, end = chunks.STEPS, chunks.END
    change_kinds(patch, lambda layer, kinds: [steps if k == end else k for k in kinds])


@of_models
def steps_taken_for_a_last_output(patch: Patch) -> None:
    change_kinds(
        patch,
        lambda layer, kinds: [chunks.END] * len(kinds) if isinstance(layer, RNN) else kinds,
    )


@of_models
def outputs_of_a_model_inside_in_the_order_of_its_dictionary(patch: Patch) -> None:
    def refs(structure: Any) -> list[Ref]:
        if isinstance(structure, Ref):
            return [structure]
        parts = structure.values() if isinstance(structure, dict) else structure
        nested = isinstance(structure, list | tuple | dict)
        return [ref for part in parts for ref in refs(part)] if nested else []

    patch.setattr(chunks, "refs", refs)


@of_models
def state_from_another_layer_not_noticed(patch: Patch) -> None:
    right = chunks._named
    patch.setattr(
        chunks, "_named", lambda *call: {k: v for k, v in right(*call).items() if "state" not in k}
    )


@of_models
def layers_inside_a_layer_by_name(patch: Patch) -> None:
    right = Layer._find_layers
    patch.setattr(Layer, "_find_layers", lambda self: sorted(right(self), key=lambda x: x.name))


@of_models
def weights_as_they_were_added(patch: Patch) -> None:
    """Keras lists those that are not trained last."""
    right = Layer.add_weight
    patch.setattr(
        Layer,
        "add_weight",
        lambda self, *args, **more: right(self, *args, **more | {"trainable": True}),
    )


@of_models
def frozen_weights_read_from_h5_as_if_they_were_not(patch: Patch) -> None:
    patch.setattr(weights, "in_order", lambda layer, arrays: arrays)


@of_models
def frozen_weights_written_to_h5_as_if_they_were_not(patch: Patch) -> None:
    def named(layer: Any) -> Any:
        for name, array in zip(layer.weight_names, layer.weights, strict=True):
            yield f"{layer.name}/{name}:0", array

    patch.setattr(writing, "_named", named)


@of_models
def layer_in_two_models_copied_twice(patch: Patch) -> None:
    patch.setattr(live, "_share", lambda source, mine, seen: None)


# --- the suite ---


def grid(tf: Any) -> None:
    for key in test_grid.KEYS:
        if test_grid.has_the_bug(key):
            test_grid.test_the_bug_of_keras_is_known_and_not_copied(key)
        else:
            test_grid.test_a_result_of_the_driver_is_reproduced(key)


SUITE: dict[str, Callable[..., Any]] = {
    "grid": grid,
    "equations": test_reference.test_the_equations_are_those_of_the_literature,
    "resets": test_reference.test_a_reset_begins_a_new_sequence,
    "chunks": test_reference.test_chunks_have_the_bits_of_the_whole,
    "rows": test_reference.test_a_row_does_not_depend_on_the_rows_beside_it,
    "products": test_reference.test_a_product_sums_each_row_in_one_order_for_all_shapes,
    "Keras, call by call": test_layers.test_a_stateful_layer_equals_keras_call_by_call,
    "Keras, stacks": test_rnn.test_a_stack_of_cells_equals_keras,
    "Keras, both ways": test_rnn.test_bidirectional_equals_keras,
    "Keras, training": test_dropout.test_training_outputs_are_those_of_keras_call_by_call,
    "Keras, whole": test_layers.test_a_whole_run_equals_keras_in_every_mode,
}


def graphs_of(check: Callable[..., None], *names: str) -> Callable[[Any, Path], None]:
    def run(tf: Any, folder: Path) -> None:
        for name in names:
            check(tf, name)

    return run


def names_of_weights(tf: Any, folder: Path) -> None:
    theirs = test_custom.library(tf.keras.layers, tf.keras.ops)
    for test in (
        test_custom.test_weights_that_are_not_trained_come_last_among_ones_own,
        lambda *given: test_custom.test_layers_inside_are_found_in_keras_order(*given, True),
    ):
        test(tf, theirs, np.random.default_rng(0))


def h5(tf: Any, folder: Path) -> None:
    for frozen in ("forward_layer", "backward_layer"):
        test_files.test_frozen_parts_of_a_layer_are_not_exchanged_with_the_others(
            tf, frozen, ".h5", folder
        )


def chunks_of_models(tf: Any, folder: Path) -> None:
    for name in ("shared_twice", "a_model_called_twice"):
        source, x = test_models.graph(tf, name, "float64")
        model = test_models.from_keras(source)
        whole = test_models.flat(model(x))
        assert test_models.same_bits(test_models.model_in_chunks(model, x, [3, 4]), whole), name


MODEL_SUITE: dict[str, Callable[[Any, Path], None]] = {
    "symbols": graphs_of(
        test_models.test_a_graph_made_of_symbols_equals_its_keras_model, "order_of_layers"
    ),
    "order of calls": lambda tf, _: test_models.test_a_layer_called_twice_is_called_in_keras_order(
        tf
    ),
    "masks": graphs_of(
        test_models.test_a_mask_goes_into_a_model_inside, "attached", "argument", "positional"
    ),
    "inputs": lambda tf, _: test_models.test_inputs_are_taken_by_name_or_in_order(tf),
    "training": lambda tf, _: test_models.test_training_of_a_model_goes_before_that_of_its_layers(
        tf, False, False
    ),
    "chunks": chunks_of_models,
    "steps and ends": lambda *_: (
        test_models.test_steps_are_not_taken_together_with_what_they_end_with()
    ),
    "steps and ends inside": lambda *_: (
        test_models.test_what_a_model_inside_returns_is_steps_or_an_end()
    ),
    "states": lambda tf, _: test_models.test_a_model_that_cannot_be_cut_is_refused(
        tf, "encoder_and_decoder", "starts from a state"
    ),
    "names of weights": names_of_weights,
    "h5": h5,
    "weights": graphs_of(
        test_models.test_weights_are_listed_in_keras_order, "a_shared_layer_inside_and_outside"
    ),
    "configs": graphs_of(
        test_models.test_keras_reads_the_config_of_a_graph, "outputs_of_a_model_called_twice"
    ),
}


@pytest.fixture
def quick(monkeypatch: Patch) -> None:
    """Hypothesis without shrinking: the first counterexample will do. And the NumPy engine, whose
    code is what is patched; test_kernels.py holds the other one against it.
    """
    monkeypatch.setenv(engines.ENVIRONMENT, "numpy")
    profile = settings(
        settings.default,
        max_examples=60,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
    )
    for test in SUITE.values():
        monkeypatch.setattr(test, "_hypothesis_internal_use_settings", profile, raising=False)


def caught_by(tf: Any) -> str | None:
    """The first test of SUITE that fails by an assertion. Errors of other kinds are not caught."""
    for name, test in SUITE.items():
        try:
            test(**({"tf": tf} if name == "grid" or name.startswith("Keras") else {}))
        except AssertionError:
            return name
    return None


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_caught(
    tf: Any, monkeypatch: Patch, quick: None, name: str, record_property: Any
) -> None:
    MUTANTS[name](monkeypatch)
    caught = caught_by(tf)
    record_property("caught by", caught)
    assert caught, f"no test notices: {name}"


def test_without_a_bug_nothing_is_caught(tf: Any, quick: None) -> None:
    assert caught_by(tf) is None


def caught_in_models(tf: Any, folder: Path) -> str | None:
    """The first test of MODEL_SUITE that fails: by an assertion, or as weights are refused."""
    for name, test in MODEL_SUITE.items():
        try:
            test(tf, folder)
        except (AssertionError, pytest.fail.Exception, ValueError):
            return name
    return None


@pytest.mark.parametrize("name", MODEL_MUTANTS)
def test_a_bug_planted_in_models_is_caught(
    tf: Any, monkeypatch: Patch, tmp_path: Path, name: str, record_property: Any
) -> None:
    MODEL_MUTANTS[name](monkeypatch)
    caught = caught_in_models(tf, tmp_path)
    record_property("caught by", caught)
    assert caught, f"no test notices: {name}"


def test_without_a_bug_nothing_is_caught_in_models(tf: Any, tmp_path: Path) -> None:
    assert caught_in_models(tf, tmp_path) is None


def test_the_code_that_is_patched_is_the_code_that_runs(quick: None) -> None:
    """A patch of a copied name would plant nothing."""
    layer = LSTM(2)
    layer.build((None, None, 3))
    assert layer.cell.runner(layer.engine).func is reference.run
    assert reference.run.__globals__["steps"] is reference.steps

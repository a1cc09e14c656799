"""LAYOUTS: where each library keeps its weights and states, and what it adds at run time; as data.

The gates have refrnn's letters throughout: i f g o for LSTM, z r g for GRU, h for SimpleRNN.
Every library here computes h = z * h + (1 - z) * g; "gru" and "gru_reset_before" are the two
families, which only `refrnn.layouts.equivalents` can bridge, and seldom.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from refrnn.layouts.blocks import Slot


class Told(NamedTuple):
    """A number that a library is told beside the weights.

    name     the library's name for it
    default  what it means where nothing is said
    off      the value for "no such thing"
    """

    name: str
    default: Any
    off: Any


class Form(NamedTuple):
    """How a library stores one cell.

    slots     its arrays, in the order in which the library lists them
    letters   the library's letters for refrnn's gates, in refrnn's order
    state     the parts of the state in the library's order
    act, rec  its names for the arguments that choose the two activations; none where they are fixed
    defaults  what the two are where nothing is said
    told      by "forget_bias", "cell_clip", "clip", "input_forget": what it can be told
    shape     its names for the arguments that say the shape: keys of `attributes.SHAPE`
    """

    slots: tuple[Slot, ...]
    letters: str
    state: str
    act: tuple[str, ...] = ()
    rec: tuple[str, ...] = ()
    defaults: tuple[str, str] = ("tanh", "sigmoid")
    told: Mapping[str, Told] = {}
    shape: tuple[str, ...] = ()


class Layout(NamedTuple):
    """One row of the table.

    name         what `convert` calls it
    title        what it is
    cells        the form of each cell that it has, by refrnn's name for the cell
    key          how the name of an array is made
    words        {direction} in that name: in one direction; in two
    biased       there are always biases, be they zero
    axis         directions are stacked along a first axis of each array
    flat         all arrays are one vector: all matrices, then all biases
    states       "each": an array (B, H) for each part of each direction; else the shape of a part,
                 with D for directions and L for layers
    sequence     the shape of its input
    activations  its names for activations, by refrnn's; None where they are the same
    note         what its users trip over
    """

    name: str
    title: str
    cells: dict[str, Form]
    key: str = "{layer}{direction}{name}"
    words: tuple[tuple[str, ...], ...] = (("",), ("forward/", "backward/"))
    biased: bool = False
    axis: bool = False
    flat: bool = False
    states: str = "each"
    sequence: str = "(B, T, F)"
    activations: dict[str, str] | None = None
    note: str = ""


# --- the forms of Keras, which are also those of tf.js and of Keras's CuDNN layers -------------


def _keras(
    units: str, bias: str, rec: tuple[str, str], reset_after: bool = True
) -> dict[str, Form]:
    """rec: the argument's name, and what it is by default."""
    gated: dict[str, Any] = {
        "act": ("activation",), "rec": rec[:1], "defaults": ("tanh", rec[1]),
    }  # fmt: skip
    shape = (units, bias)

    def slots(gates: str, biases: str) -> tuple[Slot, ...]:
        return (
            Slot("kernel", f"W:{gates}"),
            Slot("recurrent_kernel", f"U:{gates}"),
            Slot("bias", biases),
        )

    forms = {
        "simple": Form(slots("h", "w:h"), "h", "h", act=("activation",), shape=shape),
        "gru": Form(
            slots("zrg", "w:zrg / u:zrg"), "zrh", "h", **gated, shape=(*shape, "reset_after")
        ),
        "gru_reset_before": Form(
            slots("zrg", "w:zrg"), "zrh", "h", **gated, shape=(*shape, "reset_after")
        ),
        "lstm": Form(slots("ifgo", "w:ifgo"), "ifco", "hc", **gated, shape=shape),
    }
    if not reset_after:
        forms["gru_reset_before"] = forms["gru_reset_before"]._replace(shape=shape)
        del forms["gru"]
    return forms


_CUDNN_KERAS = {
    "gru": Form(
        (
            Slot("kernel", "W:zrg", "raveled"),
            Slot("recurrent_kernel", "U:zrg", "raveled"),
            Slot("bias", "w:zrg u:zrg"),
        ),
        "zrh",
        "h",
        shape=("units",),
    ),
    "lstm": Form(
        (
            Slot("kernel", "W:ifgo", "raveled"),
            Slot("recurrent_kernel", "U:ifgo", "raveled"),
            Slot("bias", "w:ifgo u:ifgo"),
        ),
        "ifco",
        "hc",
        shape=("units",),
    ),
}

# --- PyTorch, cuDNN ----------------------------------------------------------------------------


def _torch(gates: str) -> tuple[Slot, ...]:
    return (
        Slot("weight_ih", f"W:{gates}", "rows"),
        Slot("weight_hh", f"U:{gates}", "rows"),
        Slot("bias_ih", f"w:{gates}"),
        Slot("bias_hh", f"u:{gates}"),
    )


_TORCH_SHAPE = ("input_size", "hidden_size", "num_layers", "bias", "bidirectional")
_TORCH = {
    "simple": Form(_torch("h"), "h", "h", act=("nonlinearity",), shape=_TORCH_SHAPE),
    "gru": Form(_torch("rzg"), "zrn", "h", shape=_TORCH_SHAPE),
    "lstm": Form(
        (*_torch("ifgo"), Slot("weight_hr", "R", "rows")),
        "ifgo",
        "hc",
        shape=(*_TORCH_SHAPE, "proj_size"),
    ),
}
_CUDNN_SHAPE = ("input_size", "hidden_size", "num_layers", "bidirectional")
_CUDNN = {
    "simple": Form(_torch("h"), "h", "h", act=("nonlinearity",), shape=_CUDNN_SHAPE),
    "gru": Form(_torch("rzg"), "zrh", "h", shape=_CUDNN_SHAPE),
    "lstm": Form(_torch("ifgo"), "ifgo", "hc", shape=_CUDNN_SHAPE),
}

# --- ONNX, OpenVINO ----------------------------------------------------------------------------


def _onnx(gates: str) -> tuple[Slot, ...]:
    return (
        Slot("W", f"W:{gates}", "rows"),
        Slot("R", f"U:{gates}", "rows"),
        Slot("B", f"w:{gates} u:{gates}"),
    )


_LISTED: dict[str, Any] = {"act": ("activations",), "rec": ("activations",)}
_CLIP = {"clip": Told("clip", None, None)}
_ONNX_SHAPE = ("hidden_size", "direction")
_ONNX = {
    "simple": Form(_onnx("h"), "h", "h", act=("activations",), told=_CLIP, shape=_ONNX_SHAPE),
    "gru": Form(
        _onnx("zrg"), "zrh", "h", **_LISTED, told=_CLIP, shape=(*_ONNX_SHAPE, "linear_before_reset")
    ),
    "gru_reset_before": Form(
        _onnx("zrg"), "zrh", "h", **_LISTED, told=_CLIP, shape=(*_ONNX_SHAPE, "linear_before_reset")
    ),
    "lstm": Form(
        (*_onnx("iofg"), Slot("P", "p:iof")),
        "ifco",
        "hc",
        **_LISTED,
        told={**_CLIP, "input_forget": Told("input_forget", 0, 0)},
        shape=_ONNX_SHAPE,
    ),
}


def _openvino(gates: str, biases: str) -> tuple[Slot, ...]:
    return (
        Slot("W", f"W:{gates}", "rows"),
        Slot("R", f"U:{gates}", "rows"),
        Slot("B", biases),
    )


_OPENVINO = {
    "simple": Form(
        _openvino("h", "w:h"), "h", "h", act=("activations",), told=_CLIP, shape=_ONNX_SHAPE
    ),
    "gru": Form(
        _openvino("zrg", "w:zrg u:g"),
        "zrh",
        "h",
        **_LISTED,
        told=_CLIP,
        shape=(*_ONNX_SHAPE, "linear_before_reset"),
    ),
    "gru_reset_before": Form(
        _openvino("zrg", "w:zrg"),
        "zrh",
        "h",
        **_LISTED,
        told=_CLIP,
        shape=(*_ONNX_SHAPE, "linear_before_reset"),
    ),
    "lstm": Form(
        _openvino("figo", "w:figo"), "ifco", "hc", **_LISTED, told=_CLIP, shape=_ONNX_SHAPE
    ),
}

# --- TensorFlow 1, TFLite ----------------------------------------------------------------------

_TF1 = {
    "simple": Form(
        (Slot("kernel", "W:h / U:h"), Slot("bias", "w:h")),
        "h",
        "h",
        act=("activation",),
        shape=("num_units",),
    ),
    "gru_reset_before": Form(
        (
            Slot("gates/kernel", "W:rz / U:rz"),
            Slot("gates/bias", "w:rz"),
            Slot("candidate/kernel", "W:g / U:g"),
            Slot("candidate/bias", "w:g"),
        ),
        "urc",
        "h",
        act=("activation",),
        shape=("num_units",),
    ),
    "lstm": Form(
        (
            Slot("kernel", "W:igfo / U:igfo"),
            Slot("bias", "w:igfo"),
            Slot("w_f_diag", "p:f"),
            Slot("w_i_diag", "p:i"),
            Slot("w_o_diag", "p:o"),
            Slot("projection/kernel", "R"),
        ),
        "ifjo",
        "ch",
        act=("activation",),
        told={
            "forget_bias": Told("forget_bias", 1.0, 0.0),
            "cell_clip": Told("cell_clip", None, None),
        },
        shape=("num_units", "num_proj"),
    ),
}

_TFLITE_GATES = (("i", "input"), ("f", "forget"), ("g", "cell"), ("o", "output"))
_TFLITE = {
    "lstm": Form(
        (
            *(Slot(f"input_to_{word}_weights", f"W:{g}", "rows") for g, word in _TFLITE_GATES),
            *(Slot(f"recurrent_to_{word}_weights", f"U:{g}", "rows") for g, word in _TFLITE_GATES),
            *(Slot(f"cell_to_{w}_weights", f"p:{g}") for g, w in _TFLITE_GATES if g != "g"),
            *(Slot(f"{word}_gate_bias", f"w:{g}") for g, word in _TFLITE_GATES),
            Slot("projection_weights", "R", "rows"),
        ),
        "ifco",
        "hc",
        act=("fused_activation_function",),
        told={"cell_clip": Told("cell_clip", 10.0, 0.0)},
    ),
}

# --- Flax, CoreML, Haste -----------------------------------------------------------------------


def _linen(gates: str, letters: str, biases: str) -> tuple[Slot, ...]:
    """biases: the names that have one, "iz" the input's of z, "hz" the state's."""
    named = list(zip(gates, letters, strict=True))
    return (
        *(Slot(f"i{letter}/kernel", f"W:{g}") for g, letter in named),
        *(Slot(f"h{letter}/kernel", f"U:{g}") for g, letter in named),
        *(Slot(f"i{letter}/bias", f"w:{g}") for g, letter in named if "i" + letter in biases),
        *(
            Slot(f"h{letter}/bias", f"{'u' if letter == 'n' else 'w'}:{g}")
            for g, letter in named
            if "h" + letter in biases
        ),
    )


_FLAX: dict[str, Any] = {"act": ("activation_fn",), "rec": ("gate_fn",), "shape": ("features",)}
_LINEN = {
    "simple": Form(
        (Slot("i/kernel", "W:h"), Slot("h/kernel", "U:h"), Slot("i/bias", "w:h")),
        "h",
        "h",
        act=("activation_fn",),
        shape=("features",),
    ),
    "gru": Form(_linen("rzg", "rzn", "ir iz in hn"), "zrn", "h", **_FLAX),
    "lstm": Form(_linen("ifgo", "ifgo", "hi hf hg ho"), "ifgo", "ch", **_FLAX),
}
_NNX = {
    "simple": Form(
        (
            Slot("dense_i/kernel", "W:h"),
            Slot("dense_h/kernel", "U:h"),
            Slot("dense_i/bias", "w:h"),
        ),
        "h",
        "h",
        act=("activation_fn",),
        shape=("in_features", "hidden_features"),
    ),
    "gru": Form(
        (
            Slot("dense_i/kernel", "W:rzg"),
            Slot("dense_h/kernel", "U:rzg"),
            Slot("dense_i/bias", "w:rzg"),
        ),
        "zrn",
        "h",
        **{**_FLAX, "shape": ("in_features", "hidden_features")},
    ),
    "lstm": Form(
        (
            Slot("dense_i/kernel", "W:ifgo"),
            Slot("dense_h/kernel", "U:ifgo"),
            Slot("dense_h/bias", "w:ifgo"),
        ),
        "ifgo",
        "ch",
        **{**_FLAX, "shape": ("in_features", "hidden_features")},
    ),
}


def _coreml(gates: str) -> tuple[Slot, ...]:
    return (
        Slot("weight_ih", f"W:{gates}", "rows"),
        Slot("weight_hh", f"U:{gates}", "rows"),
        Slot("bias", f"w:{gates}"),
    )


_COREML = {
    "simple": Form(_coreml("h"), "h", "h", act=("activation",)),
    "gru": Form(_coreml("rgz"), "zro", "h", act=("activation",), rec=("recurrent_activation",)),
    "lstm": Form(
        (*_coreml("ifog"), Slot("peephole", "p:ifo")),
        "ifzo",
        "hc",
        act=("activation", "cell_activation"),
        rec=("recurrent_activation",),
        shape=("direction",),
    ),
}

_HASTE = {
    "gru": Form(
        (
            Slot("kernel", "W:zrg"),
            Slot("recurrent_kernel", "U:zrg"),
            Slot("bias", "w:zrg"),
            Slot("recurrent_bias", "u:zrg"),
        ),
        "zrg",
        "h",
        shape=("input_size", "hidden_size"),
    ),
    "lstm": Form(
        (
            Slot("kernel", "W:igfo"),
            Slot("recurrent_kernel", "U:igfo"),
            Slot("bias", "w:igfo"),
        ),
        "ifgo",
        "hc",
        shape=("input_size", "hidden_size"),
    ),
}

# --- the table ---------------------------------------------------------------------------------

_COMMON = {"tanh": "tanh", "sigmoid": "sigmoid", "relu": "relu"}

_ROWS = (
    Layout(
        "keras",
        "Keras 2 and 3, tf_keras, refrnn",
        _keras("units", "use_bias", ("recurrent_activation", "sigmoid")),
        note="hard_sigmoid is Keras 3's (x/6 + 1/2); Keras 2's (x/5 + 1/2) is called"
        " hard_sigmoid_keras2 here",
    ),
    Layout(
        "keras-cudnn",
        "CuDNNLSTM and CuDNNGRU of Keras 2",
        _CUDNN_KERAS,
        biased=True,
        note="each gate's block holds its transpose in memory order",
    ),
    Layout(
        "cudnn",
        "cuDNN's flat vector: TensorFlow, torch, jax.experimental.rnn",
        _CUDNN,
        key="{name}_l{layer}{direction}",
        words=(("",), ("", "_reverse")),
        flat=True,
        states="(L*D, B, H)",
        sequence="(T, B, F)",
        activations={"tanh": "tanh", "relu": "relu"},
        note="all matrices of all layers, then all biases; an LSTM's one bias is the state's, as"
        " Keras hands it over; the sizes are not in it",
    ),
    Layout(
        "torch",
        "PyTorch LSTM, GRU, RNN and their cells",
        _TORCH,
        key="{name}_l{layer}{direction}",
        words=(("",), ("", "_reverse")),
        states="(L*D, B, H)",
        sequence="(T, B, F), batch_first: (B, T, F)",
        activations={"tanh": "tanh", "relu": "relu"},
        note="no forget bias at the start; with proj_size h is (L*D, B, P)",
    ),
    Layout(
        "onnx",
        "ONNX LSTM, GRU, RNN",
        _ONNX,
        words=(("",),),
        axis=True,
        states="(D, B, H)",
        sequence="(T, B, F)",
        activations={
            "tanh": "Tanh",
            "sigmoid": "Sigmoid",
            "relu": "Relu",
            "softsign": "Softsign",
            "softplus": "Softplus",
            "hard_sigmoid_keras2": "HardSigmoid",
            "hard_sigmoid": "HardSigmoid",
        },
        note="linear_before_reset=0, the default, is gru_reset_before; clip as ONNX Runtime has it,"
        " on the sums only",
    ),
    Layout(
        "tf1",
        "TF1 BasicLSTMCell, LSTMCell, LSTMBlockCell, BlockLSTM, GRUCell, BasicRNNCell",
        _TF1,
        biased=True,
        activations=_COMMON,
        note="forget_bias is added at run time and not stored; the state is (c, h)",
    ),
    Layout(
        "tfjs",
        "tf.js layers",
        _keras("units", "useBias", ("recurrentActivation", "hard_sigmoid_keras2"), False),
        activations={
            "tanh": "tanh",
            "sigmoid": "sigmoid",
            "relu": "relu",
            "linear": "linear",
            "hard_sigmoid_keras2": "hardSigmoid",
        },
        note="the gates are hardSigmoid (x/5 + 1/2) by default; GRU has no resetAfter",
    ),
    Layout(
        "tflite",
        "TFLite UNIDIRECTIONAL_SEQUENCE_LSTM",
        _TFLITE,
        biased=True,
        sequence="(B, T, F), time_major: (T, B, F)",
        activations={"tanh": "TANH", "relu": "RELU"},
        note="the converter sets cell_clip=10; the state stays in the model between calls",
    ),
    Layout(
        "flax-linen",
        "Flax linen LSTMCell, OptimizedLSTMCell, GRUCell, SimpleCell",
        _LINEN,
        biased=True,
        activations={**_COMMON, "hard_sigmoid": "hard_sigmoid"},
        note="the state of LSTM is (c, h); nnx.LSTMCell has the same arrays, with if_ for if",
    ),
    Layout(
        "flax-nnx",
        "Flax nnx OptimizedLSTMCell, GRUCell, SimpleCell",
        _NNX,
        biased=True,
        activations={**_COMMON, "hard_sigmoid": "hard_sigmoid"},
        note="GRUCell has no bias inside r * (...); the state of LSTM is (c, h)",
    ),
    Layout(
        "openvino",
        "OpenVINO LSTMSequence, GRUSequence, RNNSequence",
        _OPENVINO,
        biased=True,
        words=(("",),),
        axis=True,
        states="(B, D, H)",
        activations=_COMMON,
        note="B of GRU with linear_before_reset has 4 blocks",
    ),
    Layout(
        "coreml",
        "Core ML MIL lstm, gru, rnn",
        _COREML,
        key="{layer}{name}{direction}",
        words=(("",), ("", "_back")),
        states="(B, D*H)",
        sequence="(T, B, F)",
        activations=_COMMON,
        note="gru has one bias, none inside r * (...); clip is not taken over",
    ),
    Layout(
        "haste",
        "Haste LSTM and GRU",
        _HASTE,
        biased=True,
        states="(D, B, H)",
        sequence="(T, B, F)",
    ),
)  # fmt: skip

LAYOUTS: dict[str, Layout] = {row.name: row for row in _ROWS}

"""Where libraries are known to differ: each shown by a program of a few lines that measures it."""

import importlib.util
import math
import subprocess
import sys
from typing import NamedTuple

from refrnn.oracles import node

TOLERANCE = 1e-5  # far above float32's rounding in these programs, far below what they show
LONGEST = 300  # seconds, of which nearly all goes into imports


class Difference(NamedTuple):
    """A program that prints two numbers, what the library gives and what was to be expected.

    who       the library
    what      the difference, in words
    kind      "bug", against the library's own documents or its other ways to run the same;
              "design", meant so; "limit", it refuses
    modules   what the program imports
    npm       packages that it requires, of a program in JavaScript
    """

    who: str
    what: str
    kind: str
    modules: tuple[str, ...]
    program: str
    npm: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        modules = [name for name in self.modules if importlib.util.find_spec(name) is None]
        return modules + (node.missing(self.npm) if self.npm else [])

    @property
    def language(self) -> str:
        return "javascript" if self.npm else "python"

    def measure(self) -> "Measured":
        """Run the program, in a process of its own."""
        asked = ["node", "-e"] if self.npm else [sys.executable, "-c"]
        try:
            ran = subprocess.run(
                [*asked, self.program], capture_output=True, text=True, timeout=LONGEST
            )
        except subprocess.TimeoutExpired:
            return Measured(self, None, None, f"no answer in {LONGEST} s")
        if ran.returncode:
            lines = [
                line
                for line in ran.stderr.splitlines()
                if ("Error" in line or "Fail" in line) and not line.startswith(" ")
            ]
            kinds = [line.partition(":")[0].rpartition(".")[2] for line in lines]
            return Measured(self, None, None, (kinds or ["an error"])[-1])
        found, expected = map(float, ran.stdout.splitlines()[-1].split())
        return Measured(self, found, expected, "")


class Measured(NamedTuple):
    """What a program printed, or the error that it ended with."""

    difference: Difference
    found: float | None
    expected: float | None
    error: str

    @property
    def there(self) -> bool:
        """Whether the library still differs."""
        if self.found is None or self.expected is None:
            return True
        if math.isnan(self.found) or math.isnan(self.expected):
            return math.isnan(self.found) != math.isnan(self.expected)
        return abs(self.found - self.expected) > TOLERANCE

    def __str__(self) -> str:
        d = self.difference
        said = self.error or f"{self.found:.5g}, expected {self.expected:.5g}"
        gone = "" if self.there else " (no longer: it agrees here)"
        return f"{d.who}: {d.what} ({d.kind}): {said}{gone}"


def _keras(backend: str, body: str, package: str = "keras") -> str:
    return f"""import os; os.environ["KERAS_BACKEND"] = "{backend}"
import {package}, numpy as np; x = np.ones((1, 2, 1), "f")
{body}"""


_LEADING = """y = keras.layers.GRU(1, return_sequences=True)(
    x, mask=np.array([[False, True]]), initial_state=[np.ones((1, 1), "f")])
print(float(y[0, 0, 0]), 0)"""
_UNROLLED = """options = dict(return_sequences=True, unroll=True, zero_output_for_mask=True)
layer = keras.layers.SimpleRNN(1, kernel_initializer="ones", **options)
print(float(layer(x, mask=np.array([[True, False]]))[0, 1, 0]), 0)"""
_BACKWARDS = """ask = lambda **o: keras.layers.SimpleRNN(1, kernel_initializer="ones", **o,
    go_backwards=True, return_sequences=True)(x, mask=np.array([[True, False]]))[0, 1, 0]
print(float(ask(unroll=True{options})), float(ask(unroll=False{options})))"""
_DOUBLE = """y = keras.layers.GRU(1, dtype="float64")(x.astype("float64"))
print(8 * np.asarray(y).dtype.itemsize, 64)"""


def _onnx(op: str, attributes: str, inputs: str, given: str, ask: str, real: str = "float") -> str:
    """A model of one node of one unit on one step of one row; 5 lines with those of ask.

    inputs, given  further inputs, as the graph declares them and as the node takes them
    """
    rows = {"LSTM": 4, "GRU": 3}[op]
    declared = f"{real}[1,1,1] x, {real}[1,{rows},1] w, {real}[1,{rows},1] r{inputs}"
    node = f"{op}<hidden_size=1{attributes}>(x, w, r{given})"
    letter = "f" if real == "float" else "d"
    imports = "numpy as np, onnx.parser, onnx.reference, onnxruntime as ort"
    if "openvino" in ask:
        imports = "numpy as np, onnx.parser, openvino"
    return f'''import {imports}; one = lambda *s: np.ones(s, "{letter}")
model = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["": 17]> g ({declared}) =>
    ({real}[1,1,1,1] y, {real}[1,1,1] h) {{ y, h = {node} }}""")
feed = dict(x=one(1, 1, 1), w=one(1, {rows}, 1), r=one(1, {rows}, 1))
{ask}'''


_ORT = "ort.InferenceSession(model.SerializeToString()).run(None, feed)"
_REFERENCE = "onnx.reference.ReferenceEvaluator(model).run(None, feed)"
_STATES = ", float[1,1,1] h0, float[1,1,1] c0"


def _ort(
    what: str,
    kind: str,
    op: str,
    ask: str,
    attributes: str = "",
    inputs: str = "",
    given: str = "",
    real: str = "float",
) -> Difference:
    """`ask` has RUN where the model is to be run."""
    program = _onnx(op, attributes, inputs, given, ask.replace("RUN", _ORT), real)
    return Difference("ONNX Runtime", what, kind, ("onnx", "onnxruntime"), program)


def _evaluator(
    what: str, op: str, attributes: str, inputs: str = "", given: str = "", feed: str = ""
) -> Difference:
    ask = f"{feed}print({_REFERENCE}[0].item(), {_ORT}[0].item())"
    program = _onnx(op, attributes, inputs, given, ask)
    modules = ("onnx", "onnxruntime")
    return Difference("onnx.reference", f"{op} ignores {what}", "bug", modules, program)


TFJS = ("@tensorflow/tfjs",)


def _tfjs(what: str, kind: str, body: str) -> Difference:
    program = "const tf = require('@tensorflow/tfjs'); console.warn = () => {};\n" + body
    return Difference("tf.js", what, kind, (), program, TFJS)


DIFFERENCES: tuple[Difference, ...] = (
    *(
        Difference(
            f"Keras on {title}",
            "a masked first step puts out the initial state, on TensorFlow and PyTorch 0",
            "bug",
            ("keras", "jax"),  # which Keras on NumPy imports, too
            _keras(module, _LEADING),
        )
        for title, module in (("JAX", "jax"), ("NumPy", "numpy"))
    ),
    *(
        Difference(
            f"Keras on {title}",
            "unroll=True ignores zero_output_for_mask",
            "bug",
            ("keras", "jax"),  # which Keras on NumPy imports, too
            _keras(module, _UNROLLED),
        )
        for title, module in (("JAX", "jax"), ("NumPy", "numpy"))
    ),
    Difference(
        "Keras on TensorFlow",
        "unroll=True, go_backwards and zero_output_for_mask zero the valid steps: the mask is not"
        " reversed",
        "bug",
        ("keras", "tensorflow"),
        _keras("tensorflow", _BACKWARDS.format(options=", zero_output_for_mask=True")),
    ),
    Difference(
        "Keras on PyTorch",
        "unroll=True, go_backwards and a mask cannot be run",
        "bug",
        ("keras", "torch"),
        _keras("torch", _BACKWARDS.format(options="")),
    ),
    Difference(
        "Keras on JAX",
        'dtype="float64" computes in float32 unless JAX_ENABLE_X64 is set (bits)',
        "design",
        ("keras", "jax"),
        _keras("jax", _DOUBLE),
    ),
    _evaluator("activations", "GRU", ', activations=["HardSigmoid", "Tanh"]'),
    _evaluator("clip", "LSTM", ", clip=0.1"),
    _evaluator(
        "input_forget",
        "LSTM",
        ", input_forget=1",
        _STATES,
        ",,,h0,c0",
        "feed |= dict(h0=one(1, 1, 1), c0=one(1, 1, 1)); ",
    ),
    _evaluator(
        "sequence_lens", "LSTM", "", ", int32[1] n", ",,n", 'feed |= dict(n=np.zeros(1, "i")); '
    ),
    _ort(
        "clip leaves the state c alone that goes into LSTM's last tanh, against ONNX's text",
        "bug",
        "LSTM",
        "feed |= dict(w=0 * feed['w'], r=0 * feed['r'], h0=one(1, 1, 1), c0=9 * one(1, 1, 1));"
        " print(RUN[0].item(), 0.5 * np.tanh(0.5))",
        ", clip=0.5",
        _STATES,
        ",,,h0,c0",
    ),
    *(
        _ort(
            f"{op} with a bias swallows NaN: in the input, and not in the output",
            "bug",
            op,
            f"feed |= dict(x=np.nan * one(1, 1, 1), b=one(1, {biases}));"
            " print(RUN[0].item(), np.nan)",
            "",
            f", float[1,{biases}] b",
            ",b",
        )
        for op, biases in (("LSTM", 8), ("GRU", 6))
    ),
    _ort(
        "a row of length 0 ends with the state 0, not with its initial state",
        "bug",
        "GRU",
        'feed |= dict(n=np.zeros(1, "i"), h0=one(1, 1, 1)); print(RUN[1].item(), 1)',
        "",
        ", int32[1] n, float[1,1,1] h0",
        ",,n,h0",
    ),
    _ort("float64 is refused", "limit", "GRU", "print(RUN[0].item(), 0)", real="double"),
    Difference(
        "OpenVINO",
        "computes in bfloat16 by default, where the CPU has it",
        "design",
        ("onnx", "openvino"),
        _onnx(
            "GRU",
            "",
            "",
            "",
            "core = openvino.Core(); read = core.read_model(model.SerializeToString(), b''); print("
            "*(core.compile_model(read, 'CPU', o)(feed | dict(x=one(1, 1, 1) / 3))[0].item()"
            " for o in ({}, {'INFERENCE_PRECISION_HINT': 'f32'})))",
        ),
    ),
    Difference(
        "PyTorch",
        "packed sequences put out 0 after their end, where Keras repeats the last output",
        "design",
        ("torch",),
        """import torch; from torch.nn.utils import rnn
cell = torch.nn.RNN(1, 1, bias=False); torch.nn.init.ones_(cell.weight_ih_l0)
packed = rnn.pack_padded_sequence(torch.ones(2, 2, 1), [2, 1])
y, _ = rnn.pad_packed_sequence(cell(packed)[0])
print(y[1, 1].item(), y[0, 1].item())""",
    ),
    Difference(
        "JAX",
        "float64 arrays become float32 unless JAX_ENABLE_X64 is set (bits)",
        "design",
        ("jax",),
        "import jax.numpy, numpy as np\n"
        "print(8 * jax.numpy.asarray(np.ones(1)).dtype.itemsize, 64)",
    ),
    Difference(
        "Flax",
        "nnx.GRUCell has no bias in the recurrent product, linen.GRUCell has one (biases)",
        "design",
        ("jax", "flax"),
        """from flax import nnx
cell = nnx.GRUCell(1, 1, rngs=nnx.Rngs(0))
biases = [getattr(dense.bias, "value", None) for dense in (cell.dense_i, cell.dense_h)]
print(sum(bias is not None for bias in biases), 2)""",
    ),
    Difference(
        "Keras 2",
        "hard_sigmoid is x / 5 + 1 / 2, in Keras 3 x / 6 + 1 / 2, under the same name",
        "design",
        ("tensorflow", "tf_keras"),
        """import tf_keras
print(float(tf_keras.activations.hard_sigmoid(tf_keras.backend.constant(1.0))), 1 / 6 + 1 / 2)""",
    ),
    Difference(
        "Keras 2",
        "unroll=True, go_backwards and zero_output_for_mask zero the valid steps, as in Keras 3",
        "bug",
        ("tensorflow", "tf_keras"),
        _keras(
            "tensorflow",
            _BACKWARDS.format(options=", zero_output_for_mask=True"),
            "tf_keras as keras",
        ),
    ),
    _tfjs(
        "a masked first step puts out the initial state, in Keras on TensorFlow 0",
        "bug",
        """const layer = tf.layers.simpleRNN({units: 1, returnSequences: true});
const given = {mask: tf.tensor([[0, 1]]), initialState: [tf.ones([1, 1])]};
console.log(layer.apply(tf.ones([1, 2, 1]), given).dataSync()[0], 0);""",
    ),
    _tfjs(
        "Bidirectional repeats outputs at masked steps, in Keras they are 0",
        "bug",
        """const ones = {kernelInitializer: 'ones', units: 1, returnSequences: true};
const both = tf.layers.bidirectional({layer: tf.layers.simpleRNN(ones), mergeMode: 'concat'});
const y = both.apply(tf.ones([1, 2, 1]), {mask: tf.tensor([[1, 0]])});
console.log(y.dataSync()[2], 0);""",
    ),
    _tfjs(
        "LSTM and GRU have recurrentActivation hardSigmoid by default, in Keras sigmoid",
        "design",
        """const ones = {kernelInitializer: 'ones', units: 1};
const ask = more => tf.layers.lstm({...ones, ...more}).apply(tf.ones([1, 1, 1])).dataSync()[0];
console.log(ask({}), ask({recurrentActivation: 'sigmoid'}));""",
    ),
    _tfjs(
        "GRU with resetAfter is refused",
        "limit",
        "tf.layers.gru({units: 1, resetAfter: true});",
    ),
)

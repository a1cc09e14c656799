"""The layers around recurrent ones give Keras's numbers and Keras's masks, row by row.

float64 is held to 1e-12 of the largest magnitude and float32 to 1e-5 (`refrnn.verify.TOLERANCES`
has the reasons); half precision to a few of its spacings. Masks are compared exactly with those
that Keras attaches to its outputs. A row's numbers are the same, in every bit, in any batch.
"""

import copy
import inspect
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refrnn import from_keras, layers
from refrnn.layers import convolutional, merging, normalization, pooling
from refrnn.layers import windows as windowing
from refrnn.layers.masks import mask_of, with_mask
from refrnn.verify import TOLERANCES, Mismatch, compare
from refrnn.verify.compare import same_bits

pytestmark = [
    # Keras says so wherever a mask ends; that it ends there is what is compared
    pytest.mark.filterwarnings("ignore:Layer '.*was passed an input with a mask:UserWarning"),
    pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`:UserWarning"),
    pytest.mark.filterwarnings(r"ignore:[\s\S]*You are using a softmax over axis:UserWarning"),
]

B, T, F = 3, 6, 4
HALF = {"float16": 4e-3, "bfloat16": 3e-2}  # 4 spacings: 2^-10 and 2^-7; sums are kept in float32

# layer -> its arguments and the shapes of its inputs: each convention of each layer at least once
S = (B, T, F)
IMAGES = (B, 5, 6, F)
VOLUMES = (B, 4, 5, 3, F)
FIRST = {"data_format": "channels_first"}
CASES: dict[str, tuple[str, dict[str, Any], tuple[tuple[int, ...], ...]]] = {
    "Activation": ("Activation", {"activation": "tanh"}, (S,)),
    "Activation linear": ("Activation", {"activation": None}, (S,)),
    "Activation softmax": ("Activation", {"activation": "softmax"}, ((B, F),)),
    "Activation glu": ("Activation", {"activation": "glu"}, (S,)),
    "ReLU": ("ReLU", {}, (S,)),
    "ReLU of all": ("ReLU", {"max_value": 1.0, "negative_slope": 0.3, "threshold": 0.2}, (S,)),
    "ReLU with a ceiling of 6": ("ReLU", {"max_value": 6, "negative_slope": 0.1}, (S,)),
    "LeakyReLU": ("LeakyReLU", {}, (S,)),
    "ELU": ("ELU", {"alpha": 0.7}, (S,)),
    "PReLU": ("PReLU", {}, (S,)),
    "PReLU shared": ("PReLU", {"shared_axes": [1]}, (S,)),
    "Softmax": ("Softmax", {}, (S,)),
    "Softmax over time": ("Softmax", {"axis": 1}, (S,)),
    "Softmax over both": ("Softmax", {"axis": [1, 2]}, (S,)),
    "Softmax over one of a list": ("Softmax", {"axis": [-2]}, (S,)),
    "Flatten": ("Flatten", {}, (S,)),
    "Flatten of a vector": ("Flatten", {}, ((B,),)),
    "Flatten, channels first": ("Flatten", {"data_format": "channels_first"}, ((B, 2, 3, 4),)),
    "Reshape": ("Reshape", {"target_shape": (F, T)}, (S,)),
    "Reshape of what is left": ("Reshape", {"target_shape": (-1, 3, 2)}, (S,)),
    "Permute": ("Permute", {"dims": (2, 1)}, (S,)),
    "Permute of four": ("Permute", {"dims": (2, 3, 1)}, ((B, 2, 3, 4),)),
    "RepeatVector": ("RepeatVector", {"n": 3}, ((B, F),)),
    "Cropping1D": ("Cropping1D", {}, (S,)),
    "Cropping1D at the start": ("Cropping1D", {"cropping": (3, 0)}, (S,)),
    "ZeroPadding1D": ("ZeroPadding1D", {}, (S,)),
    "ZeroPadding1D of two": ("ZeroPadding1D", {"padding": (0, 2)}, (S,)),
    "UpSampling1D": ("UpSampling1D", {"size": 3}, (S,)),
    "Concatenate": ("Concatenate", {}, (S, (B, T, 2))),
    "Concatenate of time": ("Concatenate", {"axis": 1}, (S, (B, 2, F), (B, 1, F))),
    "Add": ("Add", {}, (S, S, S)),
    "Add of one": ("Add", {}, (S,)),
    "Subtract": ("Subtract", {}, (S, S)),
    "Multiply": ("Multiply", {}, (S, S, S)),
    "Average": ("Average", {}, (S, S, S)),
    "Maximum": ("Maximum", {}, (S, S, S)),
    "Minimum": ("Minimum", {}, (S, S)),
    "Add across ranks": ("Add", {}, (S, (B, F))),
    "Multiply across ranks": ("Multiply", {}, ((B, F), S)),
    "Maximum across ranks": ("Maximum", {}, ((B, F), S)),
    "Add of size 1": ("Add", {}, ((B, T, 1), (B, 1, F))),
    "Dot": ("Dot", {"axes": 1}, ((B, F), (B, F))),
    "Dot of sequences": ("Dot", {"axes": (2, 2)}, (S, (B, 5, F))),
    "Dot with a vector": ("Dot", {"axes": (2, 1)}, (S, (B, F))),
    "Dot normalized": ("Dot", {"axes": -1, "normalize": True}, (S, (B, 2, F))),
    "Dot of four": ("Dot", {"axes": [1, 3]}, ((B, F, 2, 3), (B, 2, 5, F))),
    "BatchNormalization": ("BatchNormalization", {}, (S,)),
    "BatchNormalization bare": (
        "BatchNormalization",
        {"center": False, "scale": False, "epsilon": 0.1},
        (S,),
    ),
    "BatchNormalization of time": ("BatchNormalization", {"axis": 1}, (S,)),
    "BatchNormalization renorm": ("BatchNormalization", {"renorm": True}, (S,)),
    "LayerNormalization": ("LayerNormalization", {}, (S,)),
    "LayerNormalization bare": (
        "LayerNormalization",
        {"center": False, "scale": False, "epsilon": 0.1},
        (S,),
    ),
    "LayerNormalization of time": ("LayerNormalization", {"axis": 1}, (S,)),
    "LayerNormalization of both": ("LayerNormalization", {"axis": (2, 1)}, (S,)),
    "LayerNormalization rms": ("LayerNormalization", {"rms_scaling": True}, (S,)),
    "Conv1D": ("Conv1D", {"filters": 5, "kernel_size": 3, "activation": "tanh"}, (S,)),
    "Conv1D same": ("Conv1D", {"filters": 5, "kernel_size": 4, "padding": "same"}, (S,)),
    "Conv1D causal": (
        "Conv1D",
        {"filters": 5, "kernel_size": 2, "padding": "causal", "dilation_rate": 2},
        (S,),
    ),
    "Conv1D strided": (
        "Conv1D",
        {"filters": 1, "kernel_size": 2, "strides": 3, "padding": "same", "use_bias": False},
        (S,),
    ),
    "Conv1D grouped": ("Conv1D", {"filters": 6, "kernel_size": 3, "groups": 2}, (S,)),
    "Conv1D, channels first": (
        "Conv1D",
        {"filters": 5, "kernel_size": 2, "activation": "softmax", **FIRST},
        (S,),
    ),
    "Conv2D": ("Conv2D", {"filters": 5, "kernel_size": (3, 2), "activation": "relu"}, (IMAGES,)),
    "Conv2D same": (
        "Conv2D",
        {"filters": 2, "kernel_size": (2, 3), "strides": (3, 2), "padding": "same"},
        (IMAGES,),
    ),
    "Conv2D dilated and grouped": (
        "Conv2D",
        {"filters": 4, "kernel_size": 2, "dilation_rate": (2, 1), "groups": 2, "use_bias": False},
        (IMAGES,),
    ),
    "Conv2D, channels first": (
        "Conv2D",
        {"filters": 5, "kernel_size": 3, "padding": "same", **FIRST},
        ((B, 2, 5, 6),),
    ),
    "Conv3D": ("Conv3D", {"filters": 3, "kernel_size": (2, 3, 1)}, (VOLUMES,)),
    "Conv3D same": (
        "Conv3D",
        {"filters": 3, "kernel_size": 2, "strides": (2, 1, 2), "padding": "same"},
        (VOLUMES,),
    ),
    "DepthwiseConv1D": ("DepthwiseConv1D", {"kernel_size": 3, "depth_multiplier": 2}, (S,)),
    "DepthwiseConv1D, channels first": (
        "DepthwiseConv1D",
        {"kernel_size": 2, "dilation_rate": 2, **FIRST},
        ((B, 2, 7),),
    ),
    "DepthwiseConv2D": (
        "DepthwiseConv2D",
        {"kernel_size": (2, 3), "strides": 2, "padding": "same", "depth_multiplier": 3},
        (IMAGES,),
    ),
    "SeparableConv1D": (
        "SeparableConv1D",
        {"filters": 3, "kernel_size": 2, "depth_multiplier": 2, "activation": "tanh"},
        (S,),
    ),
    "SeparableConv1D same": (
        "SeparableConv1D",
        {"filters": 2, "kernel_size": 4, "strides": 2, "padding": "same", "use_bias": False},
        (S,),
    ),
    "SeparableConv2D": (
        "SeparableConv2D",
        {"filters": 3, "kernel_size": (3, 2), "depth_multiplier": 2, **FIRST},
        ((B, 2, 5, 6),),
    ),
    "MaxPooling1D": ("MaxPooling1D", {}, (S,)),
    "MaxPooling1D same": (
        "MaxPooling1D",
        {"pool_size": 4, "strides": 3, "padding": "same"},
        ((B, 8, F),),
    ),
    "AveragePooling1D": ("AveragePooling1D", {"pool_size": 3, "strides": 2}, (S,)),
    "AveragePooling1D same": ("AveragePooling1D", {"pool_size": 4, "padding": "same"}, (S,)),
    "GlobalAveragePooling1D": ("GlobalAveragePooling1D", {}, (S,)),
    "GlobalAveragePooling1D kept": ("GlobalAveragePooling1D", {"keepdims": True}, (S,)),
    "GlobalMaxPooling1D": ("GlobalMaxPooling1D", {"keepdims": True}, (S,)),
    "MaxPooling1D, channels first": ("MaxPooling1D", FIRST, (S,)),
    "MaxPooling2D": ("MaxPooling2D", {"pool_size": (3, 2), "strides": (1, 3)}, (IMAGES,)),
    "MaxPooling2D same": (
        "MaxPooling2D",
        {"strides": (3, 2), "padding": "same", **FIRST},
        (IMAGES,),
    ),
    "MaxPooling3D": ("MaxPooling3D", {"padding": "same"}, (VOLUMES,)),
    "AveragePooling1D, channels first": ("AveragePooling1D", {"pool_size": 2, **FIRST}, (S,)),
    "AveragePooling2D": ("AveragePooling2D", {"pool_size": (2, 3)}, (IMAGES,)),
    "AveragePooling2D same": (
        "AveragePooling2D",
        {"pool_size": 3, "strides": 2, "padding": "same", **FIRST},
        (IMAGES,),
    ),
    "AveragePooling3D": (
        "AveragePooling3D",
        {"pool_size": 2, "padding": "same", **FIRST},
        (VOLUMES,),
    ),
    "GlobalAveragePooling1D, channels first": ("GlobalAveragePooling1D", FIRST, ((B, F, F),)),
    "GlobalMaxPooling1D, channels first": ("GlobalMaxPooling1D", FIRST, (S,)),
    "GlobalAveragePooling2D": ("GlobalAveragePooling2D", {}, (IMAGES,)),
    "GlobalAveragePooling2D kept": (
        "GlobalAveragePooling2D",
        {"keepdims": True, **FIRST},
        (IMAGES,),
    ),
    "GlobalMaxPooling2D": ("GlobalMaxPooling2D", {"keepdims": True}, (IMAGES,)),
    "GlobalMaxPooling2D, channels first": ("GlobalMaxPooling2D", FIRST, (IMAGES,)),
    "GlobalAveragePooling3D": ("GlobalAveragePooling3D", FIRST, (VOLUMES,)),
    "GlobalMaxPooling3D": ("GlobalMaxPooling3D", {}, (VOLUMES,)),
    "ZeroPadding1D, channels first": ("ZeroPadding1D", {"padding": (1, 2), **FIRST}, (S,)),
    "ZeroPadding2D": ("ZeroPadding2D", {}, (IMAGES,)),
    "ZeroPadding2D of four": (
        "ZeroPadding2D",
        {"padding": ((0, 1), (2, 3)), **FIRST},
        (IMAGES,),
    ),
    "Cropping2D": ("Cropping2D", {"cropping": ((1, 2), (0, 3))}, (IMAGES,)),
    "Cropping2D, channels first": ("Cropping2D", {"cropping": (1, 2), **FIRST}, ((B, 2, 5, 6),)),
    "GroupNormalization": ("GroupNormalization", {"groups": 2}, (S,)),
    "GroupNormalization of time": ("GroupNormalization", {"groups": 3, "axis": 1}, (S,)),
    "GroupNormalization of each": (
        "GroupNormalization",
        {"groups": -1, "epsilon": 0.1, "center": False},
        (IMAGES,),
    ),
    "GroupNormalization inside": (
        "GroupNormalization",
        {"groups": 3, "axis": -2, "scale": False},
        (IMAGES,),
    ),
    "UnitNormalization": ("UnitNormalization", {}, (S,)),
    "UnitNormalization of both": ("UnitNormalization", {"axis": [1, 2]}, (S,)),
    "Rescaling": ("Rescaling", {"scale": 0.3, "offset": -1.5}, (S,)),
    "Rescaling of each": ("Rescaling", {"scale": [1.0, 2, 3, 4], "offset": [0.1]}, (S,)),
    "GaussianNoise": ("GaussianNoise", {"stddev": 0.3}, (S,)),
    "GaussianDropout": ("GaussianDropout", {"rate": 0.3}, (S,)),
    "AlphaDropout": ("AlphaDropout", {"rate": 0.3}, (S,)),
    "ActivityRegularization": ("ActivityRegularization", {"l1": 0.1}, (S,)),
    "Identity": ("Identity", {}, (S,)),
}
# of which TensorFlow on a CPU has float32 only
SINGLE = (
    "Conv1D, channels first", "Conv2D, channels first", "MaxPooling3D", "AveragePooling3D",
)  # fmt: skip
MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot")
ELSEWHERE = {"Embedding", "Masking"}  # they take ids and make masks: tests of their own
HERE = {kind for kind, _, _ in CASES.values()} | ELSEWHERE


def drawn(*shape: int, dtype: str = "float64", seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def keras_layer(tf: Any, kind: str, options: dict[str, Any], inputs: Any, dtype: str) -> Any:
    """A Keras layer built for inputs, with weights that hide nothing."""
    layer = getattr(tf.keras.layers, kind)(**options, dtype=dtype)
    layer(tf.tf.nest.map_structure(tf.tf.constant, inputs))
    rng = np.random.default_rng(2)
    layer.set_weights(
        [  # a variance is not negative
            rng.uniform(0.4, 2, w.shape) if "var" in v.name or "std" in v.name
            else rng.normal(0.2, 0.6, w.shape)
            for v, w in zip(layer.weights, layer.get_weights(), strict=True)
        ]
    )  # fmt: skip
    return layer


def tensor(tf: Any, array: np.ndarray) -> Any:
    """The array with its mask as a Keras tensor with that mask."""
    made = tf.tf.constant(np.asarray(array))
    if mask_of(array) is not None:
        tf.keras.src.backend.set_keras_mask(made, tf.tf.constant(mask_of(array)))
    return made


def keras_mask(tf: Any, made: Any) -> np.ndarray | None:
    mask = tf.keras.src.backend.get_keras_mask(made)
    return None if mask is None else np.asarray(mask)


def same_mask(got: np.ndarray | None, want: np.ndarray | None) -> None:
    assert (got is None) == (want is None), f"mask {got}, expected {want}"
    if got is not None and want is not None:
        np.testing.assert_array_equal(got, want, strict=True)


def limit(dtype: Any) -> float:
    name = np.dtype(dtype).name
    if np.dtype(dtype).kind in "iu":
        return 0.0
    return HALF.get(name) or TOLERANCES[name].relative


def assert_equals_keras(tf: Any, mine: Any, source: Any, inputs: Any, **arguments: Any) -> None:
    """Numbers, dtype, shape and mask of a call; inputs an array, or a list for a merge."""
    arrays = inputs if isinstance(inputs, list) else [inputs]
    tensors = [tensor(tf, array) for array in arrays]
    given = {k: tf.tf.constant(v) for k, v in arguments.items()}
    want = source(tensors if isinstance(inputs, list) else tensors[0], **given)
    got = mine(inputs, **arguments)
    expected = np.asarray(want)
    if expected.size or got.shape != expected.shape:
        compare({"y": np.asarray(got)}, {"y": expected}, limit(expected.dtype), f"{mine!r}")
    same_mask(mask_of(got), keras_mask(tf, want))


def make(tf: Any, case: str, dtype: str = "float64") -> tuple[Any, Any, Any]:
    """A Keras layer, the same in refrnn, and inputs, for a row of CASES."""
    kind, options, shapes = CASES[case]
    dtype = "float32" if case in SINGLE else dtype
    arrays = [drawn(*shape, dtype=dtype, seed=k) for k, shape in enumerate(shapes)]
    inputs = arrays if kind in MERGES else arrays[0]
    source = keras_layer(tf, kind, options, inputs, dtype)
    return source, from_keras(source), inputs


# --- numbers ---


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", list(CASES))
def test_a_layer_gives_the_numbers_of_keras(tf: Any, case: str, dtype: str) -> None:
    if case in SINGLE or (dtype == "bfloat16" and "Pooling" in case):
        dtype = "float32"  # TensorFlow has no such kernel
    source, mine, inputs = make(tf, case, "float32" if dtype == "bfloat16" else dtype)
    if dtype == "bfloat16":
        kind, options, _ = CASES[case]
        source = keras_layer(tf, kind, options, inputs, dtype)
        mine = from_keras(source)
    assert (mine.name, mine.dtype.name, mine.built) == (source.name, dtype, True)
    assert_equals_keras(tf, mine, source, inputs)


@st.composite
def windowed(draw: st.DrawFn) -> tuple[str, dict[str, Any], tuple[int, ...]]:
    """A convolution or pooling of any settings, on a sequence of any length."""
    kind = draw(st.sampled_from(("Conv1D", "MaxPooling1D", "AveragePooling1D")))
    size, stride = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    groups, dilation = draw(st.integers(1, 3)), 1
    pads = ["valid", "same"] + ["causal"] * (kind == "Conv1D")
    options = {"padding": draw(st.sampled_from(pads)), "strides": stride}
    if kind == "Conv1D":
        dilation = draw(st.integers(1, 3)) if stride == 1 else 1
        options |= {"filters": groups * draw(st.integers(1, 3)), "kernel_size": size}
        options |= {"dilation_rate": dilation, "groups": groups}
    else:
        options["pool_size"] = size
    least = (size - 1) * dilation + 1 if options["padding"] == "valid" else 1
    time = draw(st.integers(least, least + 9))
    return kind, options, (draw(st.integers(1, 4)), time, groups * draw(st.integers(1, 3)))


@st.composite
def windowed_images(draw: st.DrawFn) -> tuple[str, dict[str, Any], tuple[int, ...], str]:
    """A convolution or pooling of any settings, each its own along each axis, on any images."""
    kind = draw(st.sampled_from(
        ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "MaxPooling2D", "AveragePooling2D")
    ))  # fmt: skip
    dtype = draw(st.sampled_from(("float64", "float32")))
    plain, pooled = kind == "Conv2D", kind.endswith("Pooling2D")
    both = st.tuples(st.integers(1, 3), st.integers(1, 3))
    size, stride, dilation = draw(both), draw(both), (1, 1)
    if not (plain or pooled):
        stride = (stride[0], stride[0])  # TensorFlow has no other
    options: dict[str, Any] = {"padding": draw(st.sampled_from(("valid", "same")))}
    if not pooled and stride == (1, 1):
        options["dilation_rate"] = dilation = draw(both)
    options |= {"pool_size" if pooled else "kernel_size": size, "strides": stride}
    groups = draw(st.integers(1, 2)) if plain else 1
    options |= {"groups": groups} if plain else {}
    options |= {} if plain or pooled else {"depth_multiplier": draw(st.integers(1, 2))}
    if kind in ("Conv2D", "SeparableConv2D"):
        options["filters"] = groups * draw(st.integers(1, 3))
    C = groups * draw(st.integers(1, 3))
    sizes = [(n - 1) * d + 1 + draw(st.integers(0, 4)) for n, d in zip(size, dilation, strict=True)]
    if (not plain or dtype == "float32") and draw(st.booleans()):
        options |= {} if pooled else {"use_bias": False}  # Keras may take the width for channels
        return kind, options | FIRST, (2, C, *sizes), dtype
    return kind, options, (2, *sizes, C), dtype


@given(data=st.data())
def test_windows_on_images_lie_where_those_of_keras_lie(tf: Any, data: st.DataObject) -> None:
    kind, options, shape, dtype = data.draw(windowed_images())
    x = drawn(*shape, dtype=dtype, seed=data.draw(st.integers(0, 99)))
    source = keras_layer(tf, kind, options, x, dtype)
    assert_equals_keras(tf, from_keras(source), source, x)


@given(data=st.data())
def test_windows_lie_where_those_of_keras_lie(tf: Any, data: st.DataObject) -> None:
    kind, options, shape = data.draw(windowed())
    x = drawn(*shape, seed=data.draw(st.integers(0, 99)))
    source = keras_layer(tf, kind, options, x, "float64")
    assert_equals_keras(tf, from_keras(source), source, x)


@given(data=st.data())
def test_norms_and_softmax_take_the_axes_of_keras(tf: Any, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=4)))
    kind = data.draw(st.sampled_from(("BatchNormalization", "LayerNormalization", "Softmax")))
    front = data.draw(st.sets(st.integers(1, len(shape) - 1), min_size=1))
    axes = [k - len(shape) for k in front] if data.draw(st.booleans()) else list(front)
    axis = axes[0] if kind == "BatchNormalization" or len(axes) == 1 else axes
    options: dict[str, Any] = {"axis": axis}
    if kind == "LayerNormalization":
        options["rms_scaling"] = data.draw(st.booleans())
    if kind != "Softmax":
        options |= {name: data.draw(st.booleans()) for name in ("scale", "center")}
        options["epsilon"] = data.draw(st.sampled_from((1e-3, 0.5, 1)))
    x = drawn(*shape, seed=data.draw(st.integers(0, 99)))
    source = keras_layer(tf, kind, options, x, "float64")
    assert_equals_keras(tf, from_keras(source), source, x)


@given(data=st.data())
def test_a_dot_takes_any_axes_of_two_arrays(tf: Any, data: st.DataObject) -> None:
    sizes = st.lists(st.integers(1, 4), min_size=1, max_size=3)
    left, right = data.draw(sizes), data.draw(sizes)
    a, b = (data.draw(st.integers(1, len(shape))) for shape in (left, right))
    left[a - 1] = right[b - 1]
    inputs = [drawn(2, *left), drawn(2, *right, seed=3)]
    axes = [a, b]
    if data.draw(st.booleans()):
        axes = [a - len(left) - 1, b - len(right) - 1]
    options = {"axes": axes, "normalize": data.draw(st.booleans())}
    source = keras_layer(tf, "Dot", options, inputs, "float64")
    assert_equals_keras(tf, from_keras(source), source, inputs)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("scale", [0.1, 3, [0.1, 0.2, 0.3], np.array([0.1, 0.2, 0.3]), 1e-30])
def test_rescaling_takes_a_python_number_in_float32(tf: Any, scale: Any, dtype: str) -> None:
    """As in Keras, which keeps an array as it is; through the config too."""
    x = drawn(2, 3, dtype=dtype)
    source = tf.keras.layers.Rescaling(scale, offset=0.7, dtype=dtype)
    mine = from_keras(source)
    want = np.asarray(source(tf.tf.constant(x)))
    np.testing.assert_array_equal(mine(x), want, strict=True)
    again = type(source).from_config(mine.get_config())
    np.testing.assert_array_equal(np.asarray(again(tf.tf.constant(x))), want)
    assert json.dumps(mine.get_config()) == json.dumps(source.get_config())


def test_a_row_of_zeros_has_no_direction(tf: Any) -> None:
    for dtype in ("float64", "float32", "float16"):
        x = np.zeros((1, 3), dtype)
        source = tf.keras.layers.UnitNormalization(dtype=dtype)
        want = np.asarray(source(tf.tf.constant(x)))
        np.testing.assert_array_equal(from_keras(source)(x), want, strict=True)
        assert np.isnan(want).all() == (dtype == "float16")


SPECIAL = np.array([[0.0, -0.0, np.inf, -np.inf, np.nan, 1e-300, 7.0, 6.0, -1.0, 0.5]])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ReLU", {}),
        ("ReLU", {"max_value": 0.0}),
        ("ReLU", {"max_value": 6.0, "threshold": 0.5}),
        ("ReLU", {"negative_slope": 0.1, "threshold": 0.5}),
        ("LeakyReLU", {"negative_slope": 0.1}),
        ("ELU", {}),
        ("PReLU", {}),
        ("Softmax", {}),
        ("Activation", {"activation": "relu6"}),
    ],
)
def test_special_numbers_give_what_keras_gives(tf: Any, kind: str, options: dict[str, Any]) -> None:
    source = keras_layer(tf, kind, options, SPECIAL, "float64")
    want = np.asarray(source(tf.tf.constant(SPECIAL)))
    np.testing.assert_allclose(from_keras(source)(SPECIAL), want, rtol=1e-12, atol=0)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_max_pooling_passes_over_nan_as_tensorflow_does(tf: Any, padding: str) -> None:
    x = np.array([1, np.nan, 3, np.nan, np.nan, -np.inf, -np.inf, -5, np.inf, 2.0])
    options = {"padding": padding, "strides": 1}
    for dtype in ("float64", "float32", "float16"):
        column = x.astype(dtype).reshape(1, -1, 1)
        source = keras_layer(tf, "MaxPooling1D", options, column, dtype)
        want = np.asarray(source(tf.tf.constant(column)))
        np.testing.assert_array_equal(from_keras(source)(column), want, strict=True)


def test_the_largest_over_time_is_nan_where_one_is(tf: Any) -> None:
    x = drawn(B, T, F)
    x[1, 2, 3] = np.nan
    source = keras_layer(tf, "GlobalMaxPooling1D", {}, x, "float64")
    np.testing.assert_array_equal(from_keras(source)(x), np.asarray(source(tf.tf.constant(x))))


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
@pytest.mark.parametrize(
    "case",
    [c for c in CASES if CASES[c][0] in (
        "Flatten", "Reshape", "Permute", "RepeatVector", "Cropping1D", "ZeroPadding1D",
        "UpSampling1D", "Concatenate", "Add", "Subtract", "Multiply", "Maximum", "Minimum",
        "MaxPooling1D", "GlobalMaxPooling1D", "MaxPooling2D", "GlobalMaxPooling2D",
        "GlobalMaxPooling3D", "ZeroPadding2D", "Cropping2D", "GaussianNoise", "GaussianDropout",
        "AlphaDropout", "Identity",
    )],
)  # fmt: skip
def test_integers_are_moved_and_merged_as_integers(tf: Any, case: str, dtype: str) -> None:
    """Ids above 2^24 go through unharmed, as in Keras."""
    if dtype == "uint8" and CASES[case][0].startswith("MaxPooling"):
        pytest.skip("TensorFlow has no such kernel")
    kind, options, shapes = CASES[case]
    top = 2**24 + 9 if dtype != "uint8" else 200
    rng = np.random.default_rng(4)
    arrays = [rng.integers(top - 9, top, shape).astype(dtype) for shape in shapes]
    inputs = arrays if kind in MERGES else arrays[0]
    source = getattr(tf.keras.layers, kind)(**options)
    want = np.asarray(source(tf.tf.nest.map_structure(tf.tf.constant, inputs)))
    got = from_keras(source)(inputs)
    np.testing.assert_array_equal(got, want, strict=True)


def test_integers_beside_floats_are_merged_in_the_dtype_of_the_layer(tf: Any) -> None:
    inputs = [np.arange(6).reshape(2, 3), drawn(2, 3)]
    for kind in ("Add", "Concatenate"):
        for dtype in ("float32", "float64"):
            source = getattr(tf.keras.layers, kind)(dtype=dtype)
            assert_equals_keras(tf, from_keras(source), source, inputs)


def test_layer_normalization_computes_in_the_dtype_of_its_input(tf: Any) -> None:
    """As in Keras: float64 numbers that float32 cannot tell apart are told apart."""
    x = np.array([[1e9, 1e9 + 1, 1e9 + 3]])
    source = keras_layer(tf, "LayerNormalization", {}, x, "float32")
    got = from_keras(source)(x)
    assert got.dtype == np.float32
    assert np.ptp(got) > 0.5
    assert_equals_keras(tf, from_keras(source), source, x)
    source = keras_layer(tf, "LayerNormalization", {}, x / 7, "float64")
    single = (x / 7).astype(np.float32)
    want = np.asarray(source(tf.tf.constant(single)))
    np.testing.assert_allclose(from_keras(source)(single), want, rtol=1e-6)
    assert want.dtype == np.float64


# --- masks ---


@pytest.mark.parametrize("kind", sorted(HERE))
def test_a_layer_supports_masks_where_keras_does(tf: Any, kind: str) -> None:
    options = next((o for k, o, _ in CASES.values() if k == kind), {})
    options = options or {"Embedding": {"input_dim": 4, "output_dim": 2}}.get(kind, {})
    theirs = getattr(tf.keras.layers, kind)(**options)
    mine = getattr(layers, kind)(**options)
    assert mine.supports_masking == theirs.supports_masking
    if kind == "Embedding":
        assert getattr(layers, kind)(4, 2, mask_zero=True).supports_masking


# a grouped convolution treats masks as any other, and Keras compiles it anew at each call
MASKABLE = [
    case for case in CASES
    if "grouped" not in case and CASES[case][0] != "Softmax"
    and all(len(shape) > 1 for shape in CASES[case][2])
    and not any(len(shape) > 3 for shape in CASES[case][2])
]  # fmt: skip


@given(data=st.data())
@pytest.mark.parametrize("case", MASKABLE)
def test_masks_go_in_and_out_as_in_keras(tf: Any, case: str, data: st.DataObject) -> None:
    """On any of the inputs, rows that are masked everywhere included; numbers too."""
    source, mine, inputs = make(tf, case)
    arrays = inputs if isinstance(inputs, list) else [inputs]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    masked = []
    for array in arrays:
        mask = rng.random(array.shape[:2] if array.ndim == 3 else array.shape[:1]) < 0.5
        chosen = data.draw(st.sampled_from((None, mask, mask)))
        if "across ranks" in case and masked and mask_of(masked[0]) is not None:
            chosen = None  # masks of two ranks fail in Keras
        masked.append(with_mask(array, chosen))
    if case == "BatchNormalization of time" or (
        "Global" not in case or mask_of(masked[0]) is None or mask_of(masked[0]).any(axis=1).all()
    ):
        assert_equals_keras(tf, mine, source, masked if isinstance(inputs, list) else masked[0])


def test_a_merge_of_arrays_with_and_without_mask_keeps_what_all_know(tf: Any) -> None:
    """The numbers of a masked step play no part in a product, a maximum or a minimum."""
    x, y = drawn(B, T, F), drawn(B, T, F, seed=2)
    left, right = (np.random.default_rng(k).random((B, T)) < 0.5 for k in (5, 6))
    for kind in MERGES[:-1]:
        source = getattr(tf.keras.layers, kind)(dtype="float64")
        mine = from_keras(source)
        for a, b in ((left, right), (left, None), (None, right), (None, None)):
            inputs = [with_mask(x, a), with_mask(y, b)]
            assert_equals_keras(tf, mine, source, inputs)
            got = mine(inputs)
            either = kind == "Concatenate" and (a is not None or b is not None)
            assert (mask_of(got) is not None) == ((a is not None and b is not None) or either)


def test_an_average_over_time_takes_its_mask_in_every_form(tf: Any) -> None:
    x, mask = drawn(B, T, F), np.arange(T) < np.array([[2], [6], [1]])
    source = tf.keras.layers.GlobalAveragePooling1D(dtype="float64")
    mine = from_keras(source)
    for form in (mask, mask.astype(np.int32), np.where(mask, 0.3, 0.0), mask[:1]):
        assert_equals_keras(tf, mine, source, x, mask=form)
    x[0, 4] = np.nan  # masked
    assert_equals_keras(tf, mine, source, with_mask(x, mask))
    nothing = mine(x, mask=np.zeros((B, T), bool))
    assert np.isnan(nothing).all()
    assert np.isnan(np.asarray(source(tf.tf.constant(x), mask=tf.tf.zeros((B, T))))).all()


def test_a_softmax_leaves_out_what_its_mask_leaves_out(tf: Any) -> None:
    x = drawn(B, T, F)
    source = tf.keras.layers.Softmax(axis=1, dtype="float64")
    mine = from_keras(source)
    wide = np.random.default_rng(7).random((B, T, F))
    for mask in (
        wide < 0.5,
        wide[:1] < 0.5,
        wide,
        wide[0, :, :1] - 0.2,
        np.zeros((T, F), np.int64),
    ):
        assert_equals_keras(tf, mine, source, x, mask=mask)
    bad = wide[:, :, 0] < 0.5
    with pytest.raises(ValueError, match=r"the mask has shape \(3, 6\), expected the input's"):
        mine(with_mask(x, bad))
    with pytest.raises(ValueError, match="must be broadcastable"):
        source(tensor(tf, with_mask(x, bad)))
    square = with_mask(drawn(4, 4, 4), np.random.default_rng(8).random((4, 4)) < 0.5)
    assert_equals_keras(tf, mine, source, square)  # it happens to fit, along the wrong axes


def test_an_explicit_mask_goes_before_the_one_that_came_along(tf: Any) -> None:
    x, mine_mask = drawn(B, T, F), np.ones((B, T), bool)
    other = np.arange(T) < np.array([[2], [6], [1]])
    source = tf.keras.layers.GlobalAveragePooling1D(dtype="float64")
    assert_equals_keras(tf, from_keras(source), source, with_mask(x, mine_mask), mask=other)


# --- Embedding ---


def embeddings(tf: Any, **options: Any) -> tuple[Any, Any]:
    source = tf.keras.layers.Embedding(5, 3, dtype="float64", **options)
    source.build()
    source.set_weights([drawn(5, 3)])
    return source, from_keras(source)


@pytest.mark.parametrize("mask_zero", [False, True])
@pytest.mark.parametrize(
    "ids",
    [
        np.array([[0, 1, 4], [4, 0, 0]]),
        np.array([[-1, -5, 0]], np.int32),
        np.array([3, 0], np.uint8),
        np.array([True, False]),
        np.array(2),
        np.array([[0.5, -0.5, 1.9, -1.2, -5.9, 4.99, 0.0, -0.0, 1e-50]]),
        np.array([[0.5, 1.9, 0.0]], np.float32),
        np.zeros((0, 3), np.int64),
        np.zeros((2, 0), np.int64),
        np.array([[[1, 2], [0, 0]]]),
    ],
    ids=lambda ids: f"{ids.dtype}{list(ids.shape)}",
)
def test_an_embedding_looks_up_and_masks_as_keras_does(
    tf: Any, ids: np.ndarray, mask_zero: bool
) -> None:
    source, mine = embeddings(tf, mask_zero=mask_zero)
    assert_equals_keras(tf, mine, source, ids)
    if ids.ndim == 2:
        before = with_mask(ids, np.zeros(ids.shape, bool))  # a mask of the ids is forgotten
        assert_equals_keras(tf, mine, source, before)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[0, 1], [5, 9]], r"id 5 at \[1, 0\] is outside the table, expected -5 to 4, because"),
        ([-6], r"id -6 at \[0\] is outside"),
        ([[0.0, 5.01]], r"id 5.01 at \[0, 1\] is outside"),
        ([[np.nan]], r"id nan at \[0, 0\] is outside"),
        ([[np.inf]], r"id inf at \[0, 0\] is outside"),
        ([[1e300]], r"id 1e\+300 at \[0, 0\] is outside"),
    ],
)
def test_an_id_outside_the_table_is_named(tf: Any, ids: Any, message: str) -> None:
    source, mine = embeddings(tf)
    with pytest.raises(ValueError, match=message):
        mine(np.array(ids))
    with pytest.raises(tf.tf.errors.InvalidArgumentError):
        source(np.array(ids))


def test_an_embedding_takes_its_table_at_once() -> None:
    table = drawn(5, 3, dtype="float32")
    for given_as in (table, [table]):
        mine = layers.Embedding(5, 3, weights=given_as)
        assert np.array_equal(mine.get_weights()[0], table)
    assert "weights" not in mine.get_config()
    late = layers.Embedding(5, 3)
    late.set_weights([table])
    assert np.array_equal(late(np.array([2]))[0], table[2])
    fresh = layers.Embedding(5, 3)(np.array([1, 1]))
    assert np.abs(fresh).max() <= 0.05
    assert np.array_equal(fresh[0], fresh[1])


# --- Masking ---

ROWS = np.array([
    [[0.1, 0.1], [np.float32(0.1)] * 2, [0.0, -0.0], [1, 2], [np.nan, 0], [2, 1], [np.nan, np.nan]],
])  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize(
    "value",
    [0.0, -0.0, 0, 0.1, [0.1, 0.1], [1, 2], (1.0, 2.0), np.array([0.1, 0.1]), np.float64(0.1),
     np.float32(0.1), float("nan"), float("inf"), 2, [0.1], np.float16(0.1)],
    ids=repr,
)  # fmt: skip
def test_masking_marks_the_steps_that_keras_marks(tf: Any, value: Any, dtype: str) -> None:
    """A Python float goes through float32, a NumPy number does not; NaN equals nothing."""
    x = ROWS.astype(dtype)
    source = tf.keras.layers.Masking(value, dtype=dtype)
    want = source(tf.tf.constant(x))
    got = from_keras(source)(x)
    same_mask(mask_of(got), keras_mask(tf, want))
    assert same_bits({"y": np.asarray(got)}, {"y": np.asarray(want)})


def test_masking_of_integers_of_any_rank_and_of_no_steps(tf: Any) -> None:
    for x in (
        np.array([[[1, 2], [2, 2]]]),
        np.array([[0.0, 0.0], [1.0, 0.0]]),
        np.zeros((2, 0, 3)),
        np.zeros((0, 2, 3)),
        np.zeros((2, 3, 0)),
        np.zeros(3),
    ):
        for value in (2, 2.0, 0.5, 0.0):
            source = tf.keras.layers.Masking(value)
            assert_equals_keras(tf, from_keras(source), source, x)


def test_the_last_of_two_maskings_wins(tf: Any) -> None:
    x = np.where(drawn(B, T, 1) > 0, drawn(B, T, F, seed=2), 7.0)
    x[:, 0] = 0
    first, second = (tf.keras.layers.Masking(v, dtype="float64") for v in (7.0, 0.0))
    want = second(first(tf.tf.constant(x)))
    got = from_keras(second)(from_keras(first)(x))
    same_mask(mask_of(got), keras_mask(tf, want))
    assert not mask_of(got)[:, 0].any()


# --- rows ---


def rows_of(inputs: Any, chosen: Any) -> Any:
    if isinstance(inputs, list):
        return [rows_of(array, chosen) for array in inputs]
    mask = mask_of(inputs)
    return with_mask(np.asarray(inputs)[chosen], None if mask is None else mask[chosen])


@given(data=st.data())
@pytest.mark.parametrize("case", list(CASES))
def test_a_row_is_the_same_in_every_bit_in_any_batch(
    tf: Any, case: str, data: st.DataObject
) -> None:
    kind, options, shapes = CASES[case]
    dtype = data.draw(st.sampled_from(("float64", "float32", "float16")))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    rows = data.draw(st.integers(1, 9))
    arrays = [rng.normal(size=(rows, *shape[1:])).astype(dtype) for shape in shapes]
    if data.draw(st.booleans()) and len(shapes[0]) == 3 and kind != "Softmax":
        arrays[0] = with_mask(arrays[0], rng.random((rows, shapes[0][1])) < 0.6)
    inputs = arrays if kind in MERGES else arrays[0]
    mine = getattr(layers, kind)(**options, dtype=dtype)
    whole = mine(inputs)
    mine.set_weights([rng.uniform(0.1, 1, w.shape) for w in mine.get_weights()])
    whole = mine(inputs)
    chosen = data.draw(st.lists(st.integers(0, rows - 1), max_size=6))
    part = mine(rows_of(inputs, chosen))
    assert same_bits({"y": np.asarray(part)}, {"y": np.asarray(whole)[chosen]})
    if mask_of(whole) is not None and chosen:
        assert np.array_equal(mask_of(part), mask_of(whole)[chosen])


@pytest.mark.parametrize("length", [1, 7, 8, 9, 127, 128, 129, 1000, 9001])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_long_sums_do_not_depend_on_the_batch(length: int, dtype: str) -> None:
    """The lengths at which NumPy's sums and buffers change their ways."""
    rng = np.random.default_rng(9)
    for shape, axes in (((5, length), (1,)), ((5, length, 1), (1,)), ((5, length, 3), (1,)),
                        ((5, 2, length), (1, 2)), ((5, length, 2), (1, 2))):  # fmt: skip
        x = rng.normal(size=shape).astype(dtype)
        sums = normalization.total(x, axes)
        for row in range(5):
            alone = normalization.total(x[row : row + 1], axes)
            assert same_bits({"y": alone[0]}, {"y": sums[row]})
            spaced = normalization.total(np.asfortranarray(x)[row::2], axes)
            assert same_bits({"y": spaced[0]}, {"y": sums[row]})


@pytest.mark.parametrize("case", list(CASES))
def test_no_rows_give_no_rows(tf: Any, case: str) -> None:
    kind, options, shapes = CASES[case]
    mine = getattr(layers, kind)(**options)
    full = [np.ones(shape, np.float32) for shape in shapes]
    want = mine(full if kind in MERGES else full[0])
    empty = [np.ones((0, *shape[1:]), np.float32) for shape in shapes]
    got = mine(empty if kind in MERGES else empty[0])
    assert (got.shape, got.dtype) == ((0, *want.shape[1:]), want.dtype)


NO_STEPS: dict[str, tuple[int, ...]] = {
    "Activation": (B, 0, F),
    "ReLU": (B, 0, F),
    "PReLU shared": (B, 0, F),
    "Softmax": (B, 0, F),
    "Softmax over time": (B, 0, F),
    "Flatten": (B, 0),
    "Permute": (B, F, 0),
    "ZeroPadding1D": (B, 2, F),
    "UpSampling1D": (B, 0, F),
    "Concatenate": (B, 0, F + 2),
    "Add": (B, 0, F),
    "Multiply": (B, 0, F),
    "Maximum": (B, 0, F),
    "Average": (B, 0, F),
    "Dot of sequences": (B, 0, 0),
    "BatchNormalization": (B, 0, F),
    "LayerNormalization": (B, 0, F),
    "Conv1D same": (B, 0, 5),
    "Conv1D causal": (B, 0, 5),
    "MaxPooling1D": (B, 0, F),
    "AveragePooling1D": (B, 0, F),
    "AveragePooling1D same": (B, 0, F),
    "GlobalAveragePooling1D": (B, F),
    "SeparableConv1D same": (B, 0, 2),
    "GroupNormalization": (B, 0, F),
    "UnitNormalization": (B, 0, F),
    "Rescaling": (B, 0, F),
    "Identity": (B, 0, F),
}


@pytest.mark.parametrize("case", list(NO_STEPS))
def test_no_steps_give_no_steps(case: str) -> None:
    kind, options, shapes = CASES[case]
    mine = getattr(layers, kind)(**options)
    arrays = [np.ones((B, 0, *shape[2:]), np.float32) for shape in shapes]
    got = mine(arrays if kind in MERGES else arrays[0])
    assert got.shape == NO_STEPS[case]
    if kind == "GlobalAveragePooling1D":
        assert np.isnan(got).all()  # as in Keras: the mean of nothing


def test_a_call_leaves_its_input_alone_and_gives_arrays_of_its_own(tf: Any) -> None:
    for kind, options, shapes in CASES.values():
        arrays = [drawn(*shape, dtype="float32") for shape in shapes]
        before = copy.deepcopy(arrays)
        got = getattr(layers, kind)(**options)(arrays if kind in MERGES else arrays[0])
        got[...] = 9
        for array, old in zip(arrays, before, strict=True):
            assert np.array_equal(array, old), kind


# --- configs, constructors, weights ---

CHANGED: dict[str, dict[str, Any]] = {
    "Activation": {"activation": "relu"},
    "ReLU": {"max_value": 3.0, "negative_slope": 0.1, "threshold": 0.5},
    "LeakyReLU": {"negative_slope": 0.1},
    "ELU": {"alpha": 2.0},
    "PReLU": {
        "alpha_initializer": "he_normal",
        "alpha_regularizer": "l2",
        "alpha_constraint": "non_neg",
        "shared_axes": [1],
    },
    "Softmax": {"axis": 1},
    "Embedding": {
        "input_dim": 5,
        "output_dim": 3,
        "embeddings_initializer": "ones",
        "embeddings_regularizer": "l1",
        "embeddings_constraint": "max_norm",
        "mask_zero": True,
    },
    "Masking": {"mask_value": -1.0},
    "Flatten": {"data_format": "channels_first"},
    "Reshape": {"target_shape": (2, -1)},
    "Permute": {"dims": (2, 1)},
    "RepeatVector": {"n": 3},
    "Cropping1D": {"cropping": (0, 2)},
    "ZeroPadding1D": {"padding": (0, 2)},
    "UpSampling1D": {"size": 3},
    "Concatenate": {"axis": 1},
    **{kind: {} for kind in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")},
    "Dot": {"axes": (1, 2), "normalize": True},
    "BatchNormalization": {
        "axis": 1,
        "momentum": 0.9,
        "epsilon": 0.01,
        "center": False,
        "scale": False,
        "beta_initializer": "ones",
        "gamma_initializer": "zeros",
        "moving_mean_initializer": "ones",
        "moving_variance_initializer": "random_uniform",
        "beta_regularizer": "l1",
        "gamma_constraint": "non_neg",
        "renorm": True,
        "renorm_clipping": {"rmax": 3.0},
        "renorm_momentum": 0.8,
    },
    "LayerNormalization": {
        "axis": [1, 2],
        "epsilon": 0.01,
        "center": False,
        "scale": False,
        "beta_initializer": "ones",
        "gamma_initializer": "zeros",
        "gamma_regularizer": "l1",
        "rms_scaling": True,
    },
    "Conv1D": {
        "filters": 4,
        "kernel_size": 3,
        "strides": 1,
        "padding": "causal",
        "data_format": "channels_last",
        "dilation_rate": 2,
        "groups": 2,
        "activation": "relu",
        "use_bias": False,
        "kernel_initializer": "he_uniform",
        "bias_initializer": "ones",
        "activity_regularizer": "l2",
        "kernel_constraint": "non_neg",
    },
    **{
        f"{name}Conv{rank}D": {
            "kernel_size": 3,
            "strides": 1,
            "padding": "same",
            **FIRST,
            "dilation_rate": 2,
            "activation": "relu",
            "use_bias": False,
            "bias_initializer": "ones",
            "activity_regularizer": "l2",
            **own,
        }
        for name, ranks, own in (
            ("", (2, 3), {"filters": 4, "groups": 2, "kernel_initializer": "he_uniform"}),
            ("Depthwise", (1, 2), {"depth_multiplier": 3, "depthwise_initializer": "ones"}),
            ("Separable", (1, 2), {"filters": 4, "pointwise_constraint": "non_neg"}),
        )
        for rank in ranks
    },
    **{
        f"{how}Pooling{rank}D": {"pool_size": 3, "strides": 2, "padding": "same", **FIRST}
        for how in ("Max", "Average")
        for rank in (1, 2, 3)
    },
    **{
        f"Global{how}Pooling{rank}D": {"keepdims": True, **FIRST}
        for how in ("Max", "Average")
        for rank in (1, 2, 3)
    },
    "ZeroPadding2D": {"padding": ((0, 1), (2, 3)), **FIRST},
    "Cropping2D": {"cropping": (1, 2), **FIRST},
    "GroupNormalization": {
        "groups": 4,
        "axis": 1,
        "epsilon": 0.01,
        "center": False,
        "scale": False,
        "beta_initializer": "ones",
        "gamma_regularizer": "l1",
    },
    "UnitNormalization": {"axis": [1, 2]},
    "Rescaling": {"scale": [1.0, 2.0], "offset": 3},
    "GaussianNoise": {"stddev": 0.3, "seed": 5},
    "GaussianDropout": {"rate": 0.3, "seed": 5},
    "AlphaDropout": {"rate": 0.3, "noise_shape": [2, 3], "seed": 5},
    "ActivityRegularization": {"l1": 0.1, "l2": 0.2},
    "Identity": {},
}
NEEDED = {
    "Activation": ["activation"], "Embedding": ["input_dim", "output_dim"],
    "Reshape": ["target_shape"], "Permute": ["dims"], "RepeatVector": ["n"], "Dot": ["axes"],
    **{f"Conv{k}D": ["filters", "kernel_size"] for k in (1, 2, 3)},
    **{f"AveragePooling{k}D": ["pool_size"] for k in (1, 2, 3)},
    **{f"DepthwiseConv{k}D": ["kernel_size"] for k in (1, 2)},
    **{f"SeparableConv{k}D": ["filters", "kernel_size"] for k in (1, 2)},
    "Rescaling": ["scale"], "GaussianNoise": ["stddev"], "GaussianDropout": ["rate"],
    "AlphaDropout": ["rate"],
}  # fmt: skip


def settings_of(kind: str, changed: bool) -> dict[str, Any]:
    full = CHANGED[kind]
    common = {"name": "other", "trainable": False, "dtype": "float64"}
    return {**full, **common} if changed else {k: full[k] for k in NEEDED.get(kind, [])}


def test_every_simple_layer_is_tested_here() -> None:
    family = {
        name for name, kind in layers.LAYERS.items()
        if kind.__module__.rpartition(".")[2] in (
            "activation", "embedding", "reshaping", "merging", "normalization", "pooling",
            "convolutional", "noise",
        )
    }  # fmt: skip
    assert family == set(CHANGED) == HERE
    assert family <= set(layers.__all__)


@pytest.mark.parametrize("changed", [False, True], ids=["default", "changed"])
@pytest.mark.parametrize("kind", list(CHANGED))
def test_a_config_goes_from_keras_to_refrnn_and_back(tf: Any, kind: str, changed: bool) -> None:
    source = getattr(tf.keras.layers, kind)(**settings_of(kind, changed))
    theirs = source.get_config()
    mine = getattr(layers, kind).from_config(theirs)
    back = type(source).from_config(mine.get_config())
    assert back.get_config() == theirs
    stored = json.loads(json.dumps(mine.get_config()))  # tuples become lists in a file
    again = getattr(layers, kind).from_config(stored)
    assert json.dumps(again.get_config()) == json.dumps(mine.get_config())


@pytest.mark.parametrize("changed", [False, True], ids=["default", "changed"])
@pytest.mark.parametrize("kind", list(CHANGED))
def test_a_config_has_keras_keys_and_values(tf: Any, kind: str, changed: bool) -> None:
    options = {"name": "same", **settings_of(kind, changed)}
    mine = getattr(layers, kind)(**options).get_config()
    theirs = getattr(tf.keras.layers, kind)(**options).get_config()
    for key, value in theirs.items():
        if value is None and key not in mine:  # refused where it is not None
            continue
        if key.endswith("initializer"):  # newer Keras adds settings that are None
            set_to = {k: v for k, v in value["config"].items() if v is not None}
            mine_set = {k: v for k, v in mine[key]["config"].items() if v is not None}
            assert (mine[key]["class_name"], mine_set) == (value["class_name"], set_to), key
        elif key.endswith(("regularizer", "constraint")):
            assert mine[key] == options.get(key), key
        else:
            assert mine[key] == value, key
            assert isinstance(value, type(mine[key])), key  # tuples and lists are told apart
    assert set(mine) - set(theirs) <= {"activity_regularizer"}  # Keras leaves None out at times


@pytest.mark.parametrize("kind", list(CHANGED))
def test_a_constructor_has_keras_arguments_in_keras_order(tf: Any, kind: str) -> None:
    theirs = [
        (p.name, p.default)
        for p in inspect.signature(getattr(tf.keras.layers, kind)).parameters.values()
        if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and p.name != "name"
    ]
    mine = list(inspect.signature(getattr(layers, kind)).parameters.values())
    known = {"quantization_config", "lora_alpha"} - {name for name, _ in theirs}
    positional = [p for p in mine if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert [(p.name, p.default) for p in positional if p.name not in known] == theirs


@pytest.mark.parametrize("case", list(CASES))
def test_an_unbuilt_layer_is_built_for_the_weights_that_it_is_given(tf: Any, case: str) -> None:
    source, _, inputs = make(tf, case)
    kind, options, _ = CASES[case]
    late = getattr(layers, kind)(**options, dtype=source.compute_dtype)
    late.set_weights(source.get_weights())
    assert late.built or not source.get_weights()
    assert_equals_keras(tf, late, source, inputs)
    wrong = [np.zeros((*w.shape, 2)) for w in source.get_weights()]
    if wrong and kind != "PReLU" and not kind.endswith("Normalization"):
        fresh = getattr(layers, kind)(**options)
        with pytest.raises(ValueError, match=r"has shape .* expected"):
            fresh.set_weights(wrong)
        assert not fresh.built
    if len(wrong) > 1:
        mixed = [wrong[0], *source.get_weights()[1:]]
        fresh = getattr(layers, kind)(**options)
        with pytest.raises(ValueError, match=r"has shape .* expected"):
            fresh.set_weights(mixed)
        assert not fresh.built


def test_initial_weights_are_those_of_keras(tf: Any) -> None:
    x = np.ones(S, np.float32)
    for kind in ("PReLU", "BatchNormalization", "LayerNormalization"):
        four = {"class_name": "Constant", "config": {"value": 4.0}}
        options = {"renorm": True, "moving_variance_initializer": four}
        options = options if kind == "BatchNormalization" else {}
        theirs, mine = (getattr(of, kind)(**options) for of in (tf.keras.layers, layers))
        theirs(x)
        mine(x)
        for a, b, v in zip(mine.get_weights(), theirs.get_weights(), theirs.weights, strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
            assert v.name in mine.weight_names
    conv = layers.Conv1D(6, 3, groups=2)
    conv(x)
    bound = np.sqrt(6 / (3 * 2 + 3 * 6))
    assert 0.5 * bound < np.abs(conv.weights[0]).max() <= bound


# --- models ---


def randomized(source: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    source.set_weights(
        [rng.uniform(0.4, 1.2, w.shape) if "var" in v.name else rng.normal(0, 0.5, w.shape)
         for v, w in zip(source.weights, source.get_weights(), strict=True)]
    )  # fmt: skip
    return source


def model_equals_keras(tf: Any, source: Any, inputs: Any) -> Any:
    """from_keras of a model gives its numbers; returned for further tests."""
    mine = from_keras(randomized(source))
    want = source(tf.tf.nest.map_structure(tf.tf.constant, inputs))
    wants, gots = (v if isinstance(v, list | tuple) else [v] for v in (want, mine(inputs)))
    assert len(wants) == len(gots)
    for w, g in zip(wants, gots, strict=True):
        compare({"y": np.asarray(g)}, {"y": np.asarray(w)}, limit(np.asarray(w).dtype), source.name)
        same_mask(mask_of(g), keras_mask(tf, w))
    return mine


@pytest.fixture
def f64(tf: Any) -> Any:
    """Keras layers of float64 by default."""
    tf.keras.config.set_floatx("float64")
    tf.keras.config.set_dtype_policy("float64")
    yield tf.keras.layers
    tf.keras.config.set_floatx("float32")
    tf.keras.config.set_dtype_policy("float32")


IDS = np.array([[3, 1, 0, 0], [0, 2, 0, 4], [0, 0, 0, 0], [1, 2, 3, 4]])


@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
@pytest.mark.parametrize("sequences", [False, True])
def test_an_embedding_masks_the_layers_behind_it(
    tf: Any, f64: Any, kind: str, sequences: bool
) -> None:
    """Right padding, padding within, nothing but padding."""
    source = tf.keras.Sequential([
        f64.Input((None,), dtype="int32"),
        f64.Embedding(5, 3, mask_zero=True),
        getattr(f64, kind)(4, return_sequences=True),
        getattr(f64, kind)(4, return_sequences=sequences),
        f64.Dense(2, activation="tanh"),
    ])  # fmt: skip
    mine = model_equals_keras(tf, source, IDS)
    unmasked = copy.deepcopy(mine)
    unmasked.layers[0].mask_zero = False
    assert np.abs(unmasked(IDS) - mine(IDS)).max() > 1e-3


@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
def test_masking_masks_through_the_layers_that_keep_masks(tf: Any, f64: Any, kind: str) -> None:
    x = drawn(4, 5, 3)
    x[0, 3:] = x[1, 1] = x[2] = -1
    source = tf.keras.Sequential([
        f64.Input((5, 3)),
        f64.Masking(-1.0),
        f64.Dense(4),
        f64.LayerNormalization(),
        f64.BatchNormalization(),
        f64.Activation("tanh"),
        f64.LeakyReLU(),
        f64.PReLU(shared_axes=[1]),
        f64.Dropout(0.5),
        f64.TimeDistributed(f64.Dense(4)),
        getattr(f64, kind)(4, return_sequences=True),
        f64.GlobalAveragePooling1D(),
        f64.Dense(1),
    ])  # fmt: skip
    model_equals_keras(tf, source, np.delete(x, 2, axis=0))  # the mean of a masked row is NaN


@pytest.mark.parametrize("between", ["Reshape", "Flatten", "Permute", "Conv1D", "ZeroPadding1D",
                                     "MaxPooling1D", "UpSampling1D", "none"])  # fmt: skip
def test_a_layer_that_loses_the_mask_leaves_the_rest_unmasked(
    tf: Any, f64: Any, between: str
) -> None:
    k = f64
    chain = {
        "Reshape": [k.Reshape((4, 3))],
        "Flatten": [k.Flatten(), k.RepeatVector(2)],
        "Permute": [k.Permute((2, 1))],
        "Conv1D": [k.Conv1D(3, 2, padding="causal")],
        "ZeroPadding1D": [k.ZeroPadding1D(1), k.Cropping1D((0, 1))],
        "MaxPooling1D": [k.MaxPooling1D(2), k.AveragePooling1D(1)],
        "UpSampling1D": [k.UpSampling1D(2)],
        "none": [],
    }[between]
    source = tf.keras.Sequential(
        [k.Input((4,)), k.Embedding(5, 3, mask_zero=True), *chain, k.LSTM(4), k.Dense(2)]
    )
    mine = model_equals_keras(tf, source, IDS)
    reason = mine.why_whole()
    assert (reason is None) == (between == "none")
    if reason is not None:
        with pytest.raises(ValueError, match="mixes time steps"):
            mine.advance(IDS)


@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
def test_an_initial_state_switches_the_mask_of_an_input_off(tf: Any, f64: Any, kind: str) -> None:
    """Unmasked numbers, whose mask goes on all the same, as in Keras; an explicit mask acts."""
    table = f64.Embedding(5, 3, mask_zero=True)
    source = getattr(f64, kind)(4, return_sequences=True)
    source(table(tf.tf.constant(IDS)))
    mine_table, mine = from_keras(randomized(table)), from_keras(randomized(source))
    states = [drawn(4, 4, seed=k) for k in range(2 if kind == "LSTM" else 1)]
    tensors = [tf.tf.constant(state) for state in states]
    wanted, steps = table(tf.tf.constant(IDS)), mine_table(IDS)
    seen = []
    for explicit in ({}, {"mask": IDS != 0}):
        want = source(wanted, initial_state=tensors, **explicit)
        got = mine(steps, initial_state=states, **explicit)
        compare({"y": np.asarray(got)}, {"y": np.asarray(want)}, 1e-12, kind)
        same_mask(mask_of(got), keras_mask(tf, want))
        assert np.array_equal(mask_of(got), IDS != 0)
        seen.append(np.asarray(got))
    assert np.abs(seen[0] - seen[1]).max() > 1e-3


def test_an_initial_state_switches_the_automatic_mask_off(tf: Any, f64: Any) -> None:
    k = f64
    ids, h, c = k.Input((4,), dtype="int32"), k.Input((4,)), k.Input((4,))
    steps = k.Embedding(5, 3, mask_zero=True)(ids)
    free = k.LSTM(4, return_sequences=True)(steps, initial_state=[h, c])
    out = k.GRU(4)(free)  # it reads the mask that the output still carries
    source = tf.keras.Model([ids, h, c], [free, out])
    mine = model_equals_keras(tf, source, [IDS, drawn(4, 4), drawn(4, 4, seed=3)])
    zero = [IDS, np.zeros((4, 4)), np.zeros((4, 4))]
    masked = mine.layers[1](mine.layers[0](IDS))
    assert np.abs(mine(zero)[0] - masked).max() > 1e-3


def test_branches_are_merged_with_their_masks(tf: Any, f64: Any) -> None:
    k = f64
    ids, x = k.Input((4,), dtype="int32"), k.Input((4, 3))
    left, right = k.Embedding(5, 3, mask_zero=True)(ids), k.Masking()(x)
    merged = [
        getattr(k, kind)()([left, right]) for kind in ("Add", "Subtract", "Multiply", "Average",
                                                       "Maximum", "Minimum", "Concatenate")
    ]  # fmt: skip
    longer = k.Concatenate(axis=1)([left, x, right])
    weights = k.Softmax(axis=-1)(k.Dot((2, 2))([left, x]))
    context = k.Dot((2, 1))([weights, x])
    outputs = [k.LSTM(2)(part) for part in [*merged, longer, context]]
    source = tf.keras.Model([ids, x], [*outputs, *merged, longer])
    seen = drawn(4, 4, 3)
    seen[1, :3] = seen[2] = 0
    mine = model_equals_keras(tf, source, [IDS, seen])
    assert "mixes time" in str(mine.why_whole())


def test_a_model_of_every_layer_that_has_no_state_equals_keras(tf: Any, f64: Any) -> None:
    k = f64
    source = tf.keras.Sequential([
        k.Input((8, 4)), k.Conv1D(6, 3, padding="same", activation="relu"), k.BatchNormalization(),
        k.MaxPooling1D(2), k.ZeroPadding1D(1), k.Conv1D(4, 2, dilation_rate=2, groups=2),
        k.AveragePooling1D(2, 1), k.UpSampling1D(2), k.Cropping1D(1), k.Permute((2, 1)),
        k.LayerNormalization(axis=[1, 2]), k.PReLU(), k.Flatten(), k.RepeatVector(2), k.ELU(),
        k.Reshape((-1, 4)), k.ReLU(5.0), k.Softmax(axis=1), k.GlobalMaxPooling1D(), k.Dense(2),
    ])  # fmt: skip
    model_equals_keras(tf, source, drawn(3, 8, 4))


@pytest.mark.parametrize(
    ("make_inner", "shape"),
    [
        (lambda k: k.Activation("relu"), (2, 3, 4)),
        (lambda k: k.LayerNormalization(), (2, 3, 4)),
        (lambda k: k.BatchNormalization(), (2, 3, 4)),
        (lambda k: k.Flatten(), (2, 3, 4, 5)),
        (lambda k: k.Reshape((2, 2)), (2, 3, 4)),
        (lambda k: k.Conv1D(3, 2), (2, 3, 4, 5)),
        (lambda k: k.GlobalAveragePooling1D(), (2, 3, 4, 5)),
        (lambda k: k.Embedding(5, 2), (2, 3, 4)),
    ],
)
def test_a_layer_in_time_distributed_equals_keras(
    tf: Any, f64: Any, make_inner: Any, shape: tuple[int, ...]
) -> None:
    x = drawn(*shape)
    inner = make_inner(f64)
    if inner.__class__.__name__ == "Embedding":
        x = np.abs(x)
    source = f64.TimeDistributed(inner)
    source(tf.tf.constant(x))
    mine = from_keras(randomized(source))
    assert_equals_keras(tf, mine, source, x)


def test_a_masked_model_in_chunks_equals_the_whole(tf: Any, f64: Any) -> None:
    k = f64
    source = tf.keras.Sequential([
        k.Input((None,), dtype="int32"), k.Embedding(5, 3, mask_zero=True), k.LayerNormalization(),
        k.LSTM(4, return_sequences=True), k.BatchNormalization(), k.GRU(3, return_sequences=True),
        k.PReLU(shared_axes=[1]), k.Activation("softmax"),
    ])  # fmt: skip
    mine = from_keras(randomized(source))
    whole, memories, parts = mine(IDS), None, []
    for piece in (slice(0, 1), slice(1, 1), slice(1, 4)):
        y, memories = mine.advance(IDS[:, piece], memories)
        parts.append(np.asarray(y))
    assert same_bits({"y": np.concatenate(parts, axis=1)}, {"y": np.asarray(whole)})


MIXES = {
    "Activation softmax": False, "PReLU": True, "PReLU shared": False, "Softmax": False,
    "Softmax over time": True, "Softmax over one of a list": True, "Flatten": True,
    "Permute": True, "RepeatVector": True, "Cropping1D": True, "UpSampling1D": True,
    "Concatenate": False, "Concatenate of time": True, "Add": False, "Maximum": False,
    "Dot of sequences": True, "BatchNormalization": False, "BatchNormalization of time": True,
    "LayerNormalization": False, "LayerNormalization of time": True, "Conv1D": True,
    "MaxPooling1D": True, "AveragePooling1D": True, "GlobalAveragePooling1D": True,
    "GlobalMaxPooling1D": True, "Reshape": True, "ZeroPadding1D": True, "Dot": True,
    "Conv1D, channels first": True, "Conv2D": True, "Conv3D": True, "DepthwiseConv1D": True,
    "SeparableConv1D": True, "MaxPooling2D": True, "GlobalMaxPooling2D": True,
    "ZeroPadding2D": True, "Cropping2D": True, "GroupNormalization": True,
    "UnitNormalization": False, "UnitNormalization of both": True, "Rescaling": False,
    "Rescaling of each": False, "GaussianNoise": False, "Identity": False,
}  # fmt: skip


@pytest.mark.parametrize("case", list(MIXES))
def test_a_layer_says_whether_it_mixes_time(case: str) -> None:
    kind, options, shapes = CASES[case]
    mine = getattr(layers, kind)(**options)
    assert mine.mixes_time == MIXES[case]
    arrays = [drawn(*shape) for shape in shapes]
    whole = np.asarray(mine(arrays if kind in MERGES else arrays[0]))
    assert mine.mixes_time == MIXES[case]
    if not MIXES[case] and all(len(shape) == 3 for shape in shapes):  # what the word means
        parts = [[array[:, piece] for array in arrays] for piece in (slice(0, 2), slice(2, T))]
        pieces = [np.asarray(mine(part if kind in MERGES else part[0])) for part in parts]
        assert same_bits({"y": np.concatenate(pieces, axis=1)}, {"y": whole})
    assert not layers.Conv1D(3, 1).mixes_time
    assert layers.Conv1D(3, 1, strides=2).mixes_time
    assert layers.Conv1D(3, 1, data_format="channels_first").mixes_time
    assert not layers.Conv3D(3, (1, 2, 2)).mixes_time
    assert not layers.MaxPooling3D((1, 2, 2)).mixes_time
    assert layers.Rescaling([[1.0], [2.0]]).mixes_time
    flat = layers.PReLU()
    flat(drawn(B, F))
    assert not flat.mixes_time  # a row without time


# --- refusals ---


def built(layer: Any, *shape: int) -> Any:
    layer(np.ones(shape, np.float32))
    return layer


X, IMAGE = np.ones(S, np.float32), np.ones(IMAGES, np.float32)
WRONG: list[tuple[Any, str]] = [
    (lambda: layers.ReLU(-1), "max_value is -1, expected a number of at least 0"),
    (lambda: layers.ReLU(negative_slope=None), "negative_slope is None, expected a number"),
    (lambda: layers.ReLU(threshold=np.nan), "threshold is nan, expected"),
    (lambda: layers.LeakyReLU(-0.1), "negative_slope is -0.1, expected a number of at least 0"),
    (lambda: layers.ELU("1"), "alpha is '1', expected a number"),
    (lambda: layers.Activation("nothing"), "activation 'nothing' is not known"),
    (lambda: layers.Activation(), "Activation: argument 'activation' is missing"),
    (lambda: layers.PReLU(shared_axes=[0]), "an axis of shared_axes is 0, expected"),
    (lambda: layers.PReLU(shared_axes=[3])(X), r"shared_axes has 3, expected 1 to 2"),
    (lambda: layers.PReLU().build((None, None, 3)), "expected known sizes along all axes"),
    (lambda: built(layers.PReLU(), B, 2, F)(X), r"expected rows of shape \(2, 4\), because alpha"),
    (lambda: layers.Softmax("x"), "axis is 'x', expected a whole number, or a list"),
    (lambda: layers.Softmax(3)(X), r"axis is 3, expected axes of the input, whose shape is \(3"),
    (lambda: layers.Embedding(0, 3), "input_dim is 0, expected a whole number of at least 1"),
    (lambda: layers.Embedding(3, 2.0), "output_dim is 2.0, expected a whole number"),
    (lambda: layers.Embedding(3, 2, lora_rank=4), "lora_rank is 4, expected None, because"),
    (lambda: layers.Embedding(3, 2, weights=np.ones((2, 2))),
     r"embeddings has shape \(2, 2\), expected \(3, 2\), the shape that goes with its arguments"),
    (lambda: layers.Embedding(3, 2, input_length=4), "input_length=4; any length is accepted"),
    (lambda: layers.Masking("a"), "mask_value is 'a', expected a number"),
    (lambda: layers.Masking(None), "mask_value is None, expected a number"),
    (lambda: layers.Masking(1e300), "mask_value is 1e.300, expected a number within float32"),
    (lambda: layers.Masking([1.0, 2, 3])(X), r"goes with mask_value, whose shape is \(3,\)"),
    (lambda: layers.Flatten("channels"), "data_format is 'channels', expected 'channels_last' or"),
    (lambda: layers.Flatten()(3.0), r"the input is a single number, expected \(batch"),
    (lambda: layers.Reshape((-1, -1)), "expected whole numbers of at least 0, .* one may be -1"),
    (lambda: layers.Reshape(4), "target_shape is 4, expected"),
    (lambda: layers.Reshape((5,))(X), r"expected rows that make up \(5,\), so 5 entries"),
    (lambda: layers.Reshape((-1, 5))(X), "so 5 entries or a multiple of that"),
    (lambda: layers.Reshape((-1, 0))(X), "so no entries"),
    (lambda: layers.Permute((1, 3)), r"dims is \(1, 3\), expected the axes 1, 2"),
    (lambda: layers.Permute((1, 2, 3))(X), "expected 4 axes, because dims is"),
    (lambda: layers.RepeatVector(0), "n is 0, expected a whole number of at least 1"),
    (lambda: layers.RepeatVector(2)(X), r"has shape \(3, 6, 4\), expected \(batch, features\)"),
    (lambda: layers.Cropping1D((1, 2, 3)), "expected a whole number of at least 0 or 2 of them"),
    (lambda: layers.Cropping1D({0: 1, 1: 2}), "cropping is {0: 1, 1: 2}, expected"),
    (lambda: layers.Cropping1D(3)(X), r"expected more than 6 steps, because cropping is \(3, 3\)"),
    (lambda: layers.ZeroPadding1D(-1), "padding is -1, expected a whole number of at least 0"),
    (lambda: layers.ZeroPadding1D(1, "first"), "data_format is 'first', expected 'channels_last'"),
    (lambda: layers.ZeroPadding2D((1, 2, 3)), r"padding is \(1, 2, 3\), expected a whole num"),
    (lambda: layers.ZeroPadding2D(1, "channels_first")(X), r"expected \(batch, channels, height"),
    (lambda: layers.Cropping2D(((1, 2), -1)), "cropping is -1, expected a whole number"),
    (lambda: layers.Cropping2D(((1, 1), (4, 2)))(IMAGE), r"than cropping, \(\(1, 1\), \(4, 2\)\)"),
    (lambda: layers.UpSampling1D(2)(X[0]), r"expected \(batch, time, features\)"),
    (lambda: layers.Add()(X), "called on .*ndarray.*, expected a list of at least one"),
    (lambda: layers.Add()([]), "called on 0 arrays, expected a list of at least one"),
    (lambda: layers.Subtract()([X] * 3), "called on 3 arrays, expected a list of 2, because"),
    (lambda: layers.Add()([X, X[:, :5]]), r"shapes \(3, 6, 4\), \(3, 5, 4\), expected the same b"),
    (lambda: layers.Add()([X, X[:1]]), "expected the same batch"),
    (lambda: layers.Concatenate()([X, X[:, 1:]]), "expected an axis -1 in each, and equal sizes"),
    (lambda: layers.Concatenate(5)([X, X]), "expected an axis 5 in each"),
    (lambda: layers.Concatenate("x"), "axis is 'x', expected a whole number"),
    (lambda: layers.Dot(0)([X, X]), "which must not be the batch"),
    (lambda: layers.Dot((1, 2))([X, X]), r"expected the same batch, and the same size along axes"),
    (lambda: layers.Dot((1, 2, 1)), "expected a whole number or two"),
    (lambda: layers.BatchNormalization(axis=[1]), r"axis is \[1\], expected a whole number"),
    (lambda: layers.BatchNormalization(axis=0)(X), "axis is 0, expected axes .* other than the ba"),
    (lambda: layers.BatchNormalization(epsilon=-1), "epsilon is -1, expected a number of at lea"),
    (lambda: layers.BatchNormalization(renorm_clipping={"x": 1}), "None or a dictionary with dmax"),
    (lambda: layers.BatchNormalization()(X, mask=X), "expected one axis less than the input"),
    (lambda: built(layers.BatchNormalization(), 2, 3)(X), r"so \(4,\) along axis -1, expected \(3"),
    (lambda: layers.LayerNormalization(axis=3)(X), "axis is 3, expected axes of the input"),
    (lambda: layers.LayerNormalization(axis=0)(X), "other than the batch"),
    (lambda: layers.LayerNormalization(axis=(1, -1)), "all count from the front or all from the b"),
    (lambda: layers.LayerNormalization().build((None, None)), "expected known sizes along axis -1"),
    (lambda: layers.MaxPooling1D(0), "pool_size is 0, expected a whole number of at least 1"),
    (lambda: layers.MaxPooling1D(2, 0), "strides is 0, expected a whole number of at least 1"),
    (lambda: layers.MaxPooling1D(padding="causal"), "padding is 'causal', expected one of 'valid"),
    (lambda: layers.AveragePooling1D(2, data_format="first"), "expected 'channels_last' or 'cha"),
    (lambda: layers.MaxPooling2D((2, 2, 2)), r"pool_size is \(2, 2, 2\), expected a whole number"),
    (lambda: layers.MaxPooling2D()(X), r"expected \(batch, height, width, channels\)"),
    (lambda: layers.GlobalMaxPooling2D()(IMAGE[:, :0]), "at least one place along height, width"),
    (lambda: layers.AveragePooling1D(), "argument 'pool_size' is missing"),
    (lambda: layers.GlobalMaxPooling1D()(X[:, :0]), "expected at least one step, because no num"),
    (lambda: layers.GlobalAveragePooling1D()(X, mask=X[:, :5, 0]), r"mask has shape \(3, 5\), ex"),
    (lambda: layers.Conv1D(4, 3, strides=2, dilation_rate=2), "expected 1 for one of them"),
    (lambda: layers.Conv1D(4, 3, groups=3), "filters is 4, expected a multiple of groups, 3"),
    (lambda: layers.Conv1D(6, 3, groups=3)(X), "built for 4 features, expected a multiple of gro"),
    (lambda: layers.Conv1D(6, 7)(X), "expected at least 7 steps, because padding is 'valid'"),
    (lambda: layers.Conv1D(6, (2, 2)), r"kernel_size is \(2, 2\), expected a whole number"),
    (lambda: layers.Conv1D(6, 2, data_format="NCW"), "data_format is 'NCW', expected 'channels_la"),
    (lambda: layers.Conv2D(6, 2, padding="causal"), "padding is 'causal', expected one of 'valid'"),
    (lambda: layers.Conv2D(6, 2)(X), r"has shape \(3, 6, 4\), expected \(batch, height, width, c"),
    (lambda: layers.Conv2D(6, 6)(IMAGE), r"\(5, 6\) places along height, width, .* least \(6, 6\)"),
    (lambda: layers.DepthwiseConv1D(2, depth_multiplier=0), "depth_multiplier is 0, expected a w"),
    (lambda: built(layers.SeparableConv1D(3, 2), 1, 2, 3)(X), "has 4 features, expected 3, becau"),
    (lambda: layers.GroupNormalization(0), "groups is 0, expected a whole number of at least 1"),
    (lambda: layers.GroupNormalization(3)(X), "has 4 entries along axis -1, expected a multiple o"),
    (lambda: layers.GroupNormalization(1, axis=0)(X), "axis is 0, expected axes .* other than the"),
    (lambda: layers.GroupNormalization(1, axis=[1]), r"axis is \[1\], expected a whole number"),
    (lambda: layers.UnitNormalization("x"), "axis is 'x', expected a whole number, or a list"),
    (lambda: layers.UnitNormalization(0)(X), r"axis is 0, expected axes of the input \(3, 6, 4\)"),
    (lambda: layers.Rescaling("x"), "scale has dtype <U1, expected real numbers"),
    (lambda: layers.Rescaling([1.0, 2.0])(X), r"expected one that scale, of shape \(2,\), broadc"),
    (lambda: layers.GaussianNoise(2), "stddev is 2, expected a number from 0 to 1"),
    (lambda: layers.AlphaDropout(None), "rate is None, expected a number from 0 to 1"),
    (lambda: layers.Conv1D(6, 2)(X[0]), r"expected \(batch, time, features\)"),
    (lambda: built(layers.Conv1D(6, 2), 1, 2, 3)(X), "has 4 features, expected 3, because"),
    (lambda: layers.ReLU()(np.array(["a"])), "has dtype <U1, expected real numbers"),
    (lambda: layers.Embedding(3, 2)(np.array(["a"])), "has dtype <U1, expected ids"),
    (lambda: layers.Flatten()([[1], [1, 2]]), "the input is not an array of one shape"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[m[:40] for _, m in WRONG])
def test_a_wrong_value_is_refused_by_name(call: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_training_with_statistics_of_the_batch_is_refused() -> None:
    layer = layers.BatchNormalization()
    with pytest.raises(NotImplementedError, match="training=True, expected training=False"):
        layer(X, training=True)
    frozen = layers.BatchNormalization(trainable=False)
    assert np.array_equal(frozen(X, training=True), layer(X))


@pytest.mark.parametrize("layer", [
    layers.GaussianNoise(0.1), layers.GaussianDropout(0.1), layers.AlphaDropout(0.1),
])  # fmt: skip
def test_training_with_noise_is_refused(layer: Any) -> None:
    with pytest.raises(NotImplementedError, match="training=True, expected training=False"):
        layer(X, training=True)
    assert np.array_equal(layers.GaussianNoise(0)(X, training=True), X)


# --- deviations: what Keras does otherwise, watched ---


def test_layer_normalization_of_integers_is_cut_to_integers_by_keras(tf: Any) -> None:
    x = np.array([[1, 2, 5]])
    assert np.array_equal(np.asarray(tf.keras.layers.LayerNormalization()(x)), [[0, 0, 1]])
    want = np.asarray(tf.keras.layers.LayerNormalization()(x.astype(np.float32)))
    np.testing.assert_allclose(layers.LayerNormalization()(x), want, rtol=1e-6)


@pytest.mark.parametrize("kind", ["Conv1D", "Conv2D", "DepthwiseConv2D", "SeparableConv1D"])
def test_keras_adds_a_bias_along_a_width_that_equals_the_channels(tf: Any, kind: str) -> None:
    """With channels first and as many places along the last axis as there are filters."""
    rank = int(kind[-2])
    x, filters = drawn(2, 3, *[3] * rank, dtype="float32"), [] if "Depth" in kind else [3]
    source = getattr(tf.keras.layers, kind)(*filters, 1, **FIRST)
    source.build(x.shape)
    *kernels, _ = source.get_weights()
    bias = np.array([1.0, 20, 300], np.float32)
    source.set_weights([*kernels, np.zeros_like(bias)])
    bare = np.asarray(source(tf.tf.constant(x)))
    source.set_weights([*kernels, bias])
    np.testing.assert_allclose(source(tf.tf.constant(x)), bare + bias, rtol=1e-5)
    right = bare + bias.reshape(3, *[1] * rank)
    np.testing.assert_allclose(from_keras(source)(x), right, rtol=1e-5)


def test_strides_beyond_the_window_are_misplaced_in_volumes_of_float64(tf: Any) -> None:
    """On a CPU, in float16 too; in float32 and in two axes windows lie where they should."""
    x = drawn(2, 6, 2, 2, 3)
    options = {"padding": "same", "strides": (3, 1, 1)}
    source = keras_layer(tf, "Conv3D", {"filters": 2, "kernel_size": 1, **options}, x, "float64")
    mine = from_keras(source)
    every = np.asarray(mine(x))
    same = tf.keras.layers.Conv3D(2, 1, dtype="float32", **options)
    same.build(x.shape)
    same.set_weights(source.get_weights())
    np.testing.assert_allclose(same(x.astype("float32")), every, rtol=1e-4, atol=1e-5)
    late = np.asarray(mine(x[:, 1:]))[:, :2]  # the windows begin a place later
    np.testing.assert_allclose(source(tf.tf.constant(x)), late, rtol=1e-12)
    assert np.abs(late - every).max() > 0.1


def test_keras_adds_a_column_as_a_row_where_it_fits(tf: Any) -> None:
    """Of one sequence and as many steps as features."""
    x, column = drawn(1, 3, 3), np.array([[[1.0], [20], [300]]])
    theirs = tf.keras.layers.Add(dtype="float64")([tf.tf.constant(x), tf.tf.constant(column)])
    np.testing.assert_allclose(theirs, x + column.reshape(1, 1, 3), rtol=1e-12)
    np.testing.assert_allclose(layers.Add(dtype="float64")([x, column]), x + column, rtol=1e-12)


def test_windows_longer_than_the_sequence_fail_in_keras(tf: Any) -> None:
    x = np.ones((1, 2, 1), np.float32)
    with pytest.raises(tf.tf.errors.OpError):
        tf.keras.layers.MaxPooling1D(4)(x)
    assert np.asarray(tf.keras.layers.AveragePooling1D(4)(x)).shape == (1, 0, 1)
    for mine in (layers.MaxPooling1D(4), layers.AveragePooling1D(4)):
        assert mine(x).shape == (1, 0, 1)


def test_a_causal_convolution_of_no_steps_gives_garbage_in_keras(tf: Any) -> None:
    """Two steps out of none, of numbers that nobody wrote."""
    x = np.ones((1, 0, 1), np.float32)
    assert np.asarray(tf.keras.layers.Conv1D(1, 3, padding="causal")(x)).shape == (1, 2, 1)
    assert layers.Conv1D(1, 3, padding="causal")(x).shape == (1, 0, 1)


def test_a_mask_of_steps_fails_in_keras_products_of_four_axes(tf: Any) -> None:
    x = with_mask(np.ones((2, 3, 4, 5), np.float32), np.ones((2, 3), bool))
    for kind in ("Multiply", "Maximum", "Minimum"):
        theirs = getattr(tf.keras.layers, kind)()
        with pytest.raises(tf.tf.errors.InvalidArgumentError):
            theirs([tensor(tf, x), tensor(tf, x)])
        assert mask_of(getattr(layers, kind)()([x, x])).shape == (2, 3)


def test_keras_crops_the_keys_of_a_dictionary(tf: Any) -> None:
    x = np.ones((1, 4, 1))
    assert np.asarray(tf.keras.layers.Cropping1D({0: 1, 1: 2})(x)).shape == (1, 3, 1)
    with pytest.raises(ValueError, match="cropping is"):
        layers.Cropping1D({0: 1, 1: 2})


# --- the tests are tested: each mutant is caught by the comparison that should catch it ---


def softmax_of_all(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


MUTANTS: dict[str, tuple[str, Any, str, Any]] = {
    "slope of the function": (
        "LeakyReLU", layers.LeakyReLU, "value", lambda self, x: np.where(x > 0, x, 0.2 * x),
    ),
    "epsilon outside the root": (
        "LayerNormalization", normalization, "_rsqrt", lambda v, e: 1 / (np.sqrt(v) + e),
    ),
    "mean of the batch": (
        "LayerNormalization", normalization, "total",
        lambda x, axes: x.sum(axis=axes, keepdims=True) + 0 * x.sum(axis=0).mean() + 1e-6,
    ),
    "padding at the start": (
        "Conv1D same", windowing, "windows",
        lambda *a: pooling.windows(*a)._replace(before=2, after=1),
    ),
    "a causal window that sees ahead": (
        "Conv1D causal", windowing, "windows",
        lambda *a: pooling.windows(*a)._replace(before=0, after=2),
    ),
    "kernel read backwards": (
        "Conv1D", windowing, "windows",
        lambda *a: (w := pooling.windows(*a))._replace(steps=w.steps[:, ::-1]),
    ),
    "mean over the padding": (
        "AveragePooling1D same", pooling, "windows",
        lambda *a: (w := pooling_windows(*a))._replace(before=w.before - 1, after=w.after + 1),
    ),
    "no limit to a norm": (
        "Dot normalized", merging, "_unit", lambda x, axis: x,
    ),
    "a maximum in place of a minimum": (
        "Minimum", layers.Minimum, "CHOOSE", np.maximum,
    ),
    "filters before channels": (
        "DepthwiseConv1D", convolutional, "convolve_apart",
        lambda x, k, along: (
            np.stack([apart(x, k[..., [m]], along) for m in (0, 1)], -2).reshape(B, -1, 8)
        ),
    ),
    "channels that stay first": (
        "MaxPooling1D, channels first", windowing, "last", lambda x, data_format: x,
    ),
    "groups side by side": (
        "GroupNormalization", normalization, "moments",
        lambda x, axes: moments(np.moveaxis(x, -1, -2).reshape(x.shape), axes),
    ),
    "the length of the whole": (
        "UnitNormalization", normalization, "total", lambda x, axes: total(x, (1, 2)),
    ),
    "a sum in place of a mean": (
        "Average", layers.Average, "merged", layers.Add.merged,
    ),
}  # fmt: skip
pooling_windows, apart = pooling.windows, convolutional.convolve_apart
moments, total = normalization.moments, normalization.total


@pytest.mark.parametrize("name", list(MUTANTS))
def test_a_mutant_is_caught(tf: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    case, owner, attribute, mutant = MUTANTS[name]
    source, mine, inputs = make(tf, case)
    assert_equals_keras(tf, mine, source, inputs)
    monkeypatch.setattr(owner, attribute, mutant)
    with pytest.raises(Mismatch):
        assert_equals_keras(tf, mine, source, inputs)


MASK_MUTANTS: dict[str, tuple[str, Any, str, Any]] = {
    "a mean that ignores the mask": (
        "GlobalAveragePooling1D", layers.GlobalAveragePooling1D, "call",
        lambda self, inputs, training=False, mask=None: np.asarray(inputs).mean(axis=1),
    ),
    "a mean over all steps": (
        "GlobalAveragePooling1D", layers.GlobalAveragePooling1D, "call",
        lambda self, inputs, training=False, mask=None:
            np.where(mask[:, :, None], inputs, 0).mean(axis=1),
    ),
    "a mask that is kept": ("Flatten", layers.Flatten, "supports_masking", True),
    "a mask that is lost": ("Activation", layers.Activation, "supports_masking", False),
    "a product of masked numbers": (
        "Multiply", layers.Multiply, "merged", lambda self, arrays, masks: np.prod(arrays, axis=0),
    ),
    "masks that must all hold": (
        "Add", merging.Merge, "compute_mask",
        lambda self, inputs, masks: np.logical_and.reduce(masks),
    ),
    "a maximum of masked numbers": (
        "Maximum", layers.Maximum, "merged", lambda self, arrays, masks: np.max(arrays, axis=0),
    ),
    "a mask that came first": (
        "Concatenate of time", layers.Concatenate, "compute_mask", lambda self, i, m: m[0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(MASK_MUTANTS))
def test_a_mutant_of_masks_is_caught(tf: Any, monkeypatch: Any, name: str) -> None:
    case, owner, attribute, mutant = MASK_MUTANTS[name]
    source, mine, inputs = make(tf, case)
    rng = np.random.default_rng(11)
    listed = inputs if isinstance(inputs, list) else [inputs]
    marked = [with_mask(a, rng.random(a.shape[:2]) < 0.6) for a in listed]
    masked = marked if isinstance(inputs, list) else marked[0]
    assert_equals_keras(tf, mine, source, masked)
    monkeypatch.setattr(owner, attribute, mutant)
    with pytest.raises(AssertionError):
        assert_equals_keras(tf, mine, source, masked)


def test_mutants_of_embedding_and_masking_are_caught(tf: Any, monkeypatch: Any) -> None:
    ids = np.array([[0.5, 0.0, -1.0]])
    source, mine = embeddings(tf, mask_zero=True)
    assert_equals_keras(tf, mine, source, ids)
    with monkeypatch.context() as patch:  # masked by the row that is looked up
        patch.setattr(layers.Embedding, "compute_mask", lambda self, i, m: np.trunc(i) != 0)
        with pytest.raises(AssertionError):
            assert_equals_keras(tf, mine, source, ids)
    with monkeypatch.context() as patch:  # rounded, not truncated
        patch.setattr(layers.Embedding, "_rows", lambda self, i: np.rint(i + 0.1).astype(int))
        with pytest.raises(AssertionError):
            assert_equals_keras(tf, mine, source, ids)
    masking = tf.keras.layers.Masking(0.1, dtype="float64")
    mine = from_keras(masking)
    mine._compared = np.float64(0.1)  # not through float32
    with pytest.raises(AssertionError):
        assert_equals_keras(tf, mine, masking, ROWS[:, :2])

"""Theorem: every name of keras.activations is here, with Keras's values and true derivatives.

Values are compared with Keras on TensorFlow where trained weights could tell the difference: the
working range, the corners and both ends, NaN included. Derivatives are compared with TensorFlow's
gradients and, independently, with differences of the values.
"""

import re
from functools import partial

import ml_dtypes
import numpy as np
import pytest

from refrnn import activations
from refrnn.activations import ACTIVATIONS
from refrnn.reference import QUIET

ELEMENTWISE = sorted(n for n, row in ACTIVATIONS.items() if row.kind == "elementwise")
SHARED = [name for name in ELEMENTWISE if name != "hard_sigmoid_keras2"]  # with Keras 3
ROWS = sorted(n for n, row in ACTIVATIONS.items() if row.kind in ("rows", "halves"))

HALVES = [0.5, 1.0, 2.5, 3.0, 6.0]  # where some function has a corner
POINTS = [0.0, 1e-8, *HALVES, 40.0, 800.0]
SPECIAL = np.array([*POINTS, *(-p for p in POINTS), np.inf, -np.inf, np.nan])

# Errors are counted in epsilons of the dtype, relative to max(1, |y|). Either library rounds exp,
# log and tanh to 1 or 2 of them and each sum or product to 1/2; no formula has more than about
# four such steps, hence 4. float64: TensorFlow's tanh alone is 3.5 off, and mish multiplies it, so
# 16 there; that is still 4e-15, where leaving out any term of any function costs 1e-9 or more.
EPSILONS = {"float16": 4, "bfloat16": 4, "float32": 4, "float64": 16}


def dtype_of(name):
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def assert_near(got, want, epsilons):
    """Equal in dtype, shape, and where infinities and NaNs are; elsewhere near."""
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    assert got.size > 0
    limit = epsilons * float(ml_dtypes.finfo(want.dtype).eps)
    got, want = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])  # NaN equals NaN here
    got, want = got[finite], want[finite]
    assert np.isfinite(got).all()
    error = np.abs(got - want) / np.maximum(1, np.abs(want))
    assert np.all(error <= limit), f"{error.max() / limit * epsilons:.1f} epsilons"


def quietly(function, x):
    with QUIET():
        return function(x)


@pytest.fixture
def xs(rng):
    """A fine grid, both sides of every corner, tiny and large numbers, one dimension."""
    beside = np.array([c + d for c in HALVES for d in (-1e-4, 1e-4)])
    parts = np.linspace(-12, 12, 2001), rng.normal(size=300) * 1e-3, rng.normal(size=300) * 30
    return np.concatenate([*parts, beside, -beside])


# --- the names ---------------------------------------------------------------------------------


def test_the_names_are_those_of_keras_and_the_hard_sigmoid_of_keras_2(tf):
    public = {name for name in vars(tf.keras.activations) if not name.startswith("_")}
    public -= {"get", "serialize", "deserialize"}
    assert len(public) == 32  # Keras 3.15; a new one must come in here too
    assert set(ACTIVATIONS) == public | {"hard_sigmoid_keras2"}


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_a_name_finds_the_row_that_keras_finds(tf, name):
    row = activations.get(name)
    assert row is ACTIVATIONS[name]
    if name != "hard_sigmoid_keras2":
        assert row.name == tf.keras.activations.get(name).__name__


def test_aliases_are_the_same_row():
    assert ACTIVATIONS["swish"] is ACTIVATIONS["silu"]
    assert ACTIVATIONS["hard_swish"] is ACTIVATIONS["hard_silu"]


def test_none_is_linear_and_a_row_is_itself():
    assert activations.get(None) is ACTIVATIONS["linear"]
    assert activations.get(ACTIVATIONS["mish"]) is ACTIVATIONS["mish"]


def test_a_function_becomes_a_row_without_a_derivative():
    def doubled(x):
        return 2 * x

    row = activations.get(doubled)
    assert (row.name, row.value, row.derivative) == ("doubled", doubled, None)
    assert activations.get(partial(doubled)).name == "function"  # it has no __name__


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", EPSILONS)
@pytest.mark.parametrize("name", SHARED)
def test_values_equal_keras(tf, xs, name, dtype):
    x = xs.astype(dtype_of(dtype))
    want = np.asarray(getattr(tf.keras.activations, name)(tf.tf.constant(x)))
    assert_near(quietly(ACTIVATIONS[name].value, x), want, EPSILONS[dtype])


@pytest.mark.parametrize("dtype", EPSILONS)
@pytest.mark.parametrize("name", SHARED)
def test_values_at_corners_and_ends_equal_keras(tf, name, dtype):
    """0 and -0, the corners, far ends where exp overflows, infinities, NaN."""
    x = SPECIAL.astype(dtype_of(dtype))
    want = np.asarray(getattr(tf.keras.activations, name)(tf.tf.constant(x)))
    assert_near(quietly(ACTIVATIONS[name].value, x), want, EPSILONS[dtype])


# max(1, |y|) hides the small end, where a careless formula has no digits left: there the values
# are asked for in relative terms. 8 epsilons: three rounded functions of 2 or so each.
DIGITS = (
    ("sigmoid", -40.0, np.exp(-40.0)),  # 1 / (1 + e^40); the 1 is 18 digits below
    ("softplus", -40.0, np.exp(-40.0)),
    ("log_sigmoid", 40.0, -np.exp(-40.0)),
    ("silu", -40.0, -40 * np.exp(-40.0)),
    ("tanh", 1e-8, 1e-8),  # up to the cube of it
    ("elu", -1e-8, -1e-8 + 0.5e-16),
    ("celu", -1e-8, -1e-8 + 0.5e-16),
    ("softsign", 1e-8, 1e-8 - 1e-16),
)


@pytest.mark.parametrize(("name", "x", "want"), DIGITS, ids=[row[0] for row in DIGITS])
def test_small_values_keep_their_digits(name, x, want):
    got = ACTIVATIONS[name].value(np.array([x]))
    np.testing.assert_allclose(got, want, rtol=8 * np.finfo(np.float64).eps, atol=0)


def test_the_hard_sigmoid_of_keras_2_is_its_formula(xs):
    x = np.concatenate([xs, SPECIAL])
    want = np.minimum(np.maximum(0.2 * x + 0.5, 0), 1)
    np.testing.assert_array_equal(ACTIVATIONS["hard_sigmoid_keras2"].value(x), want)


def test_the_hard_sigmoid_of_keras_2_rises_by_a_fifth_between_its_corners():
    x = np.array([-2.5001, -2.4999, 0, 2.4999, 2.5001])
    slope = ACTIVATIONS["hard_sigmoid_keras2"].derivative(x)
    np.testing.assert_array_equal(slope, [0, 0.2, 0.2, 0.2, 0])


def test_the_two_hard_sigmoids_differ():
    """By up to 1/12, at the corners of Keras 2's."""
    x = np.array([-2.5, 2.5])
    old, new = (ACTIVATIONS[n].value(x) for n in ("hard_sigmoid_keras2", "hard_sigmoid"))
    # one rounding each of a sum and a product of numbers up to 1
    np.testing.assert_allclose(old - new, [-1 / 12, 1 / 12], rtol=0, atol=4e-16)


@pytest.mark.parametrize("dtype", EPSILONS)
@pytest.mark.parametrize("name", ROWS)
def test_values_over_the_last_axis_equal_keras(tf, rng, name, dtype):
    x = (3 * rng.normal(size=(40, 3, 6))).astype(dtype_of(dtype))
    want = np.asarray(getattr(tf.keras.activations, name)(tf.tf.constant(x)))
    # the edge of sparsemax is a mean of partial sums, of up to 6 numbers of up to 9: 4 times more
    more = 4 if name == "sparsemax" else 1
    assert_near(ACTIVATIONS[name].value(x), want, more * EPSILONS[dtype])


AT_THE_ENDS = [
    [0, 0, 0, 0],
    [1, 1, 1, 1],
    [800, -800, 0, 0],
    [40, 40, -40, 0],
    [np.inf, 0, 0, 0],
    [-np.inf, 0, 0, 0],
    [-np.inf] * 4,
    [np.nan, 0, 0, 0],
]


@pytest.mark.parametrize("row", AT_THE_ENDS, ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_rows_of_ties_ends_and_nan_equal_keras(tf, name, row):
    x = np.array([row], np.float64)
    want = np.asarray(getattr(tf.keras.activations, name)(tf.tf.constant(x)))
    got = quietly(ACTIVATIONS[name].value, x)
    if name == "sparsemax" and np.isnan(x).any():
        # the order of a sort with NaN in it is nobody's promise, only that NaN shows is
        assert np.isnan(got).any()
        assert np.isnan(want).any()
        return
    assert_near(got, want, EPSILONS["float64"])


def test_sparsemax_outputs_sum_to_less_than_one_for_a_tie_as_in_keras(tf):
    """Watches Keras: once this fails for Keras, it has the sparsemax of the paper.

    Martins & Astudillo (2016): a tie of two is (1/2, 1/2). Keras adds up partial sums instead.
    """
    x = np.array([[1.0, 1.0]])
    want = np.asarray(tf.keras.activations.sparsemax(tf.tf.constant(x)))
    got = ACTIVATIONS["sparsemax"].value(x)
    assert want.sum() < 1, "Keras has changed: follow it, and say so in activations.sparsemax"
    np.testing.assert_array_equal(got, want)  # halves of small integers: exact
    np.testing.assert_array_equal(got, [[0.0, 0.0]])


# --- further arguments -------------------------------------------------------------------------

ARGUMENTS = (
    ("relu", {"max_value": 4.0}),
    ("relu", {"threshold": 1.5}),
    ("relu", {"negative_slope": 0.25, "max_value": 4.0, "threshold": 1.5}),
    ("relu", {"negative_slope": 0.25}),  # a power of 2, because Keras holds it in float32
    ("leaky_relu", {"negative_slope": 0.3}),
    ("elu", {"alpha": 0.7}),
    ("celu", {"alpha": 0.7}),
    ("gelu", {"approximate": True}),
    ("squareplus", {"b": 2.0}),
    ("hard_shrink", {"threshold": 1.2}),
    ("soft_shrink", {"threshold": 1.2}),
    ("threshold", {"threshold": 0.5, "default_value": -2.0}),
)


@pytest.mark.parametrize(
    ("name", "arguments"), ARGUMENTS, ids=[f"{n}-{'-'.join(a)}" for n, a in ARGUMENTS]
)
def test_values_and_derivatives_take_the_arguments_of_keras(tf, xs, name, arguments):
    xs = np.concatenate([xs, [0, 0.5, 1.2, 1.5, 4]])
    x = tf.tf.constant(xs)
    with tf.tf.GradientTape() as tape:
        tape.watch(x)
        y = getattr(tf.keras.activations, name)(x, **arguments)
    row = ACTIVATIONS[name]
    got, slope = row.value(xs, **arguments), row.derivative(xs, **arguments)
    # at a corner either side's slope is right; the values there have to be Keras's
    corner = np.isin(xs, [0] if name == "celu" else list(arguments.values()))
    assert_near(got, np.asarray(y), EPSILONS["float64"])
    assert_near(slope[~corner], np.asarray(tape.gradient(y, x))[~corner], GRADIENT)


def test_the_approximate_gelu_equals_keras_in_float32_and_its_slope_the_differences(tf, xs):
    x = xs.astype(np.float32)
    want = np.asarray(tf.keras.activations.gelu(tf.tf.constant(x), approximate=True))
    # 1 + tanh cancels where it is near 0, down to x = -5, which multiplies its rounding: 8
    assert_near(activations.gelu(x, approximate=True), want, 8)
    x = xs[np.abs(xs) <= 12]
    rise = activations.gelu(x + STEP, True) - activations.gelu(x - STEP, True)
    # as DIFFERENCE below; |x| up to 12 adds eps * 12 / STEP of rounding, a few times
    np.testing.assert_allclose(
        activations.d_gelu(x, True), rise / (2 * STEP), rtol=0, atol=5 * DIFFERENCE
    )


def test_relus_slope_is_a_float32_as_in_keras(tf, xs):
    x = tf.tf.constant(xs)
    with tf.tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.keras.activations.relu(x, negative_slope=0.3)
    slope = activations.d_relu(xs, negative_slope=0.3)
    assert_near(activations.relu(xs, negative_slope=0.3), np.asarray(y), EPSILONS["float64"])
    assert_near(slope, np.asarray(tape.gradient(y, x)), GRADIENT)


# --- derivatives -------------------------------------------------------------------------------

# Autodiff multiplies the derivatives of each step, so it rounds more often than the formula. The
# worst is 1 - tanh^2 with a tanh that is 3.5 epsilons off, multiplied by what tanh is taken of: 67
# epsilons for mish at 10.6; 150 for the approximate gelu at 7, by x / 2 and an inner slope of 6.
# 256 epsilons is 6e-14.
GRADIENT = 256

# Where the function has a corner both sides are right; only these two take another side than
# TensorFlow, whose celu even adds both sides up (2 for a slope of 1).
OTHER_SIDE = {"celu": (0.0,), "selu": (0.0,)}


@pytest.mark.parametrize("name", SHARED)
def test_derivatives_equal_tensorflows_gradients(tf, xs, name):
    x = np.concatenate([xs, SPECIAL[np.isfinite(SPECIAL)]])
    x = x[~np.isin(x, OTHER_SIDE.get(name, ()))]
    assert np.isin([2.5, 3.0, -3.0, 6.0], x).all()
    tensor = tf.tf.constant(x)
    with tf.tf.GradientTape() as tape:
        tape.watch(tensor)
        y = getattr(tf.keras.activations, name)(tensor)
    want = np.asarray(tape.gradient(y, tensor))
    assert_near(quietly(ACTIVATIONS[name].derivative, x), want, GRADIENT)


@pytest.mark.parametrize("name", ROWS)
def test_jacobians_equal_tensorflows(tf, rng, name):
    x = 2 * rng.normal(size=(50, 6))
    tensor = tf.tf.constant(x)
    with tf.tf.GradientTape() as tape:
        tape.watch(tensor)
        y = getattr(tf.keras.activations, name)(tensor)
    want = np.asarray(tape.batch_jacobian(y, tensor))
    got = ACTIVATIONS[name].derivative(x)
    assert got.shape == (*y.shape, 6)  # [..., out, in]
    assert_near(got, want, GRADIENT)


STEP = 2.0**-17  # eps^(1/3), where the two errors of a central difference are about equal

# A central difference errs by STEP^2 f'''/6, with |f'''| at most 6 here (softsign at 0), and by
# eps |f| / STEP; e^12 is excluded by looking at errors relative to f'. Together below 4e-10.
DIFFERENCE = 4e-10


def away_from_corners(name, x):
    """x without the points where a difference straddles a corner."""
    corners = {"relu6": (0, 6), "hard_tanh": (-1, 1), "hard_sigmoid_keras2": (-2.5, 2.5)}
    corners |= dict.fromkeys(("relu", "leaky_relu", "elu", "celu", "selu", "softsign"), (0,))
    corners |= dict.fromkeys(("hard_sigmoid", "hard_silu", "hard_swish"), (-3, 3))
    corners |= dict.fromkeys(("sparse_plus", "sparse_sigmoid"), (-1, 1))
    corners |= dict.fromkeys(("hard_shrink", "soft_shrink"), (-0.5, 0.5))
    near = [np.abs(x - c) <= STEP for c in corners.get(name, ())]
    return x[~np.any(near, axis=0)] if near else x


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_derivatives_equal_central_differences(xs, name):
    """Differences of refrnn's own values: this one owes TensorFlow nothing."""
    row, x = ACTIVATIONS[name], away_from_corners(name, xs[np.abs(xs) <= 12])
    assert x.size > 2000
    want = (row.value(x + STEP) - row.value(x - STEP)) / ((x + STEP) - (x - STEP))
    got = row.derivative(x)
    # rounding of f: eps |f| / STEP, a few times, where f is larger than its slope
    scale = np.maximum(1, np.abs(got)) + np.abs(row.value(x)) * 0.2
    assert np.all(np.abs(got - want) <= DIFFERENCE * scale)


@pytest.mark.parametrize("name", ROWS)
def test_jacobians_equal_central_differences(rng, name):
    row, x = ACTIVATIONS[name], 2 * rng.normal(size=(20, 6))
    steps = STEP * np.eye(6)
    want = np.stack([row.value(x + s) - row.value(x - s) for s in steps], -1) / (2 * STEP)
    smooth = np.ones(len(x), bool)
    if name == "sparsemax":  # its corners are where an entry joins or leaves the support
        beside = [row.value(x + s) > 0 for s in (*steps, *-steps)]
        smooth = np.all([b == (row.value(x) > 0) for b in beside], axis=(0, 2))
    assert smooth.sum() >= 15
    # as DIFFERENCE; x + STEP itself rounds by up to eps * 8 / STEP in relative terms, 2.4e-10
    np.testing.assert_allclose(row.derivative(x)[smooth], want[smooth], rtol=0, atol=1e-9)


# --- dtypes and shapes -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", EPSILONS)
@pytest.mark.parametrize("name", ELEMENTWISE + ROWS)
def test_values_and_derivatives_keep_the_dtype(rng, name, dtype):
    x = rng.normal(size=(3, 4)).astype(dtype_of(dtype))
    row = ACTIVATIONS[name]
    assert row.value(x).dtype == x.dtype
    assert row.derivative(x).dtype == x.dtype


@pytest.mark.parametrize("shape", [(0, 4), (4,), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("name", ELEMENTWISE + ROWS)
def test_any_shape_goes_through_and_the_argument_stays(rng, name, shape):
    x = rng.normal(size=shape)
    before = x.copy()
    row = ACTIVATIONS[name]
    y, d = row.value(x), row.derivative(x)
    out = (*shape[:-1], 2) if row.kind == "halves" else shape
    assert y.shape == out
    assert d.shape == (shape if row.kind == "elementwise" else (*out, 4))
    np.testing.assert_array_equal(x, before)


# --- errors ------------------------------------------------------------------------------------


def test_an_unknown_name_is_refused_with_the_list_of_all():
    every = ", ".join(sorted(ACTIVATIONS))
    text = f"activation 'qux' is not known; expected one of {every}, None for linear,"
    with pytest.raises(ValueError, match=f"^{re.escape(text)} or a function of one array$"):
        activations.get("qux")


@pytest.mark.parametrize(
    ("name", "near"), [("tahn", "tanh"), ("Tanh", "tanh"), ("leaky-relu", "leaky_relu")]
)
def test_a_misspelt_name_gets_a_suggestion(name, near):
    text = f"activation {name!r} is not known (did you mean {near!r}?); expected one of celu, elu,"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        activations.get(name)


@pytest.mark.parametrize("value", [3, 1.5, ["tanh"], True, b"tanh"], ids=repr)
def test_what_is_no_activation_is_refused(value):
    text = (
        f"activation {value!r} is a {type(value).__name__}, expected a name, None for linear,"
        " or a function of one array"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        activations.get(value)


def test_glu_refuses_an_odd_axis():
    text = (
        "glu: the last axis has length 5, expected an even one,"
        " because it is split into a half to gate and a half that gates"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        ACTIVATIONS["glu"].value(np.zeros((2, 5)))


def test_threshold_is_parametric_and_needs_its_arguments():
    assert [n for n, row in ACTIVATIONS.items() if row.kind == "parametric"] == ["threshold"]
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        ACTIVATIONS["threshold"].value(np.zeros(2))

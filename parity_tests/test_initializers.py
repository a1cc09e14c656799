"""Theorem: untrained weights are drawn from Keras's distributions, named and stored as in Keras.

The generators differ, so the numbers do: distributions are compared, through 60 000 numbers of each
library with fixed seeds. What has no chance in it (constants, shapes, orthogonality) is exact.
"""

import re

import ml_dtypes
import numpy as np
import pytest

import refrnn
from refrnn import initializers
from refrnn.initializers import INITIALIZERS
from refrnn.layers import Dense

SHAPE = 200, 300  # fan in, fan out: not equal, so that one cannot stand for the other
N = SHAPE[0] * SHAPE[1]

# One of each, with arguments that are not the defaults; the second row of a name is a variation.
DRAWN = (
    ("RandomNormal", {"mean": 0.5, "stddev": 0.2}),
    ("RandomNormal", {}),
    ("TruncatedNormal", {"mean": 0.5, "stddev": 0.2}),
    ("TruncatedNormal", {}),
    ("RandomUniform", {"minval": -0.3, "maxval": 0.7}),
    ("RandomUniform", {}),
    *(
        ("VarianceScaling", {"scale": 1.7, "mode": mode, "distribution": distribution})
        for mode in ("fan_in", "fan_out", "fan_avg")
        for distribution in ("truncated_normal", "untruncated_normal", "uniform")
    ),
    ("VarianceScaling", {}),
    ("GlorotUniform", {}),
    ("GlorotNormal", {}),
    ("HeUniform", {}),
    ("HeNormal", {}),
    ("LecunUniform", {}),
    ("LecunNormal", {}),
)
SETTINGS = (
    *DRAWN,
    ("Orthogonal", {"gain": 1.3}),
    ("Orthogonal", {}),
    ("Zeros", {}),
    ("Ones", {}),
    ("Constant", {"value": 0.25}),
    ("Identity", {"gain": 0.5}),
)
IDS = {"ids": lambda value: value if isinstance(value, str) else "-".join(map(str, value.values()))}


def both(tf, name, arguments, seed=11):
    """The initializer of either library; a seed where it takes one."""
    mine, theirs = getattr(initializers, name), getattr(tf.keras.initializers, name)
    if "seed" in mine.ARGUMENTS:
        arguments = arguments | {"seed": seed}
    return mine(**arguments), theirs(**arguments)


def largest_gap(a, b):
    """The largest distance of two distribution functions (Kolmogorov and Smirnov's statistic)."""
    a, b = np.sort(a, axis=None), np.sort(b, axis=None)
    points = np.concatenate([a, b])
    return np.abs(
        np.searchsorted(a, points, "right") / a.size - np.searchsorted(b, points, "right") / b.size
    ).max()


# --- distributions -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "arguments"), DRAWN, **IDS)
def test_distributions_equal_kerass(tf, name, arguments):
    mine, theirs = both(tf, name, arguments)
    got, want = mine(SHAPE), np.asarray(theirs(SHAPE))
    assert got.dtype == want.dtype == np.float32
    assert got.shape == want.shape
    spread = want.std()
    # The seeds are fixed, so this passes or fails for good; the limits are where one pair of equal
    # distributions in a million would fall outside.
    # gap: sqrt(-ln(1e-6 / 2) / 2) sqrt(2 / N) = 0.0156; a normal and a uniform of equal spread have
    # 0.06, a spread 5 % too large has 0.012, hence the other lines
    assert largest_gap(got, want) < 0.0156
    # the mean of N has spread / sqrt(N), the difference of two sqrt(2) as much; 5 of these
    assert abs(got.mean() - want.mean()) < 5 * spread * np.sqrt(2 / N)
    # the standard deviation of N normals has 1 / sqrt(2 N) in relative terms (less if cut off)
    assert abs(got.std() / spread - 1) < 5 / np.sqrt(N)


@pytest.mark.parametrize(("name", "arguments"), DRAWN, **IDS)
def test_bounds_equal_kerass(tf, name, arguments):
    mine, theirs = both(tf, name, arguments)
    got, want = mine(SHAPE, "float64"), np.asarray(theirs(SHAPE, "float64"))
    if name == "RandomNormal" or arguments.get("distribution") == "untruncated_normal":
        # no bounds: among 60 000 some are beyond 3.5 standard deviations (28 on average)
        assert np.abs(got - got.mean()).max() > 3.5 * got.std()
        assert np.abs(want - want.mean()).max() > 3.5 * want.std()
        return
    # How near the largest of N comes to the bound: 30 of N uniform numbers lie in the last 1/2000
    # of the range, so none with a chance of e^-30; the cut normal is about 1/4 as dense there.
    uniform = "Uniform" in name or arguments.get("distribution") == "uniform"
    near = (1 / 2000 if uniform else 4 / 2000) * (want.max() - want.min())
    assert abs(got.max() - want.max()) < near
    assert abs(got.min() - want.min()) < near


def test_a_truncated_normal_is_cut_at_two_deviations():
    values = initializers.TruncatedNormal(0.5, 0.2, seed=0)(SHAPE, "float64")
    assert np.abs(values - 0.5).max() <= 0.4
    # the integral of it: sqrt(1 - 2 * 2 phi(2) / (2 Phi(2) - 1)); 5 of 1 / sqrt(2 N)
    assert abs(values.std() / (0.2 * 0.8796) - 1) < 5 / np.sqrt(2 * N)


FANS = (  # shape, fan in, fan out: all but the last two axes belong to both
    ((40,), 40, 40),
    ((30, 20), 30, 20),
    ((5, 40, 60), 200, 300),
    ((2, 3, 8, 20), 48, 120),
)


@pytest.mark.parametrize(("shape", "fan_in", "fan_out"), FANS, ids=str)
@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
def test_fans_are_counted_as_in_keras(tf, mode, shape, fan_in, fan_out):
    """Through the bound of a uniform: sqrt(3 scale / fan)."""
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
    bound = np.sqrt(3 * 0.7 / fan)
    settings = {"scale": 0.7, "mode": mode, "distribution": "uniform"}
    for draw in both(tf, "VarianceScaling", settings):
        largest = np.abs(np.asarray(draw(shape, "float64"))).max()
        # the smallest has 40 numbers: all of them under 3/4 of the bound has a chance of 1e-5;
        # the others have 600: all under 0.97 has 1e-8, and another fan's bound is 9 % away or more
        assert (0.75 if len(shape) == 1 else 0.97) * bound < largest <= bound


# --- what has no chance in it ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments"), [row for row in SETTINGS if row[0] in ("Zeros", "Ones", "Constant")]
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 5)], ids=str)
def test_constants_equal_kerass(tf, name, arguments, shape):
    mine, theirs = both(tf, name, arguments)
    got, want = mine(shape), np.asarray(theirs(shape))
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want, strict=True)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)], ids=str)
def test_an_identity_equals_kerass(tf, shape):
    mine, theirs = both(tf, "Identity", {"gain": 0.5})
    np.testing.assert_array_equal(mine(shape), np.asarray(theirs(shape)), strict=True)


@pytest.mark.parametrize("shape", [(6, 6), (5, 20), (20, 5), (3, 4, 5), (2, 3, 40)], ids=str)
def test_an_orthogonal_matrix_is_orthogonal_along_its_shorter_side_as_in_keras(tf, shape):
    for made in both(tf, "Orthogonal", {"gain": 1.3}):
        matrix = np.asarray(made(shape, "float64"))
        assert matrix.shape == shape
        matrix = matrix.reshape(-1, shape[-1])
        short = matrix if len(matrix) <= shape[-1] else matrix.T
        # sums of up to 40 products below 1.3^2, each rounded to 1e-16
        np.testing.assert_allclose(short @ short.T, 1.69 * np.eye(len(short)), rtol=0, atol=1e-14)


def test_orthogonal_matrices_point_everywhere_as_in_keras(tf):
    """Haar's distribution, not what QR gives: the diagonal has both signs."""
    signs = {}
    for k, kind in enumerate(("refrnn", "Keras")):
        diagonals = [np.diag(both(tf, "Orthogonal", {}, seed)[k]((4, 4))) for seed in range(30)]
        signs[kind] = np.mean(np.asarray(diagonals) > 0, axis=0)
    for kind, positive in signs.items():  # 30 tosses: outside 1/5 to 4/5 with a chance of 3e-4
        assert np.all((positive > 0.2) & (positive < 0.8)), kind


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ml_dtypes.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "arguments"), SETTINGS, **IDS)
def test_arrays_have_the_dtype_and_shape_asked_for(name, arguments, dtype):
    array = getattr(initializers, name)(**arguments)((3, 5), dtype)
    assert array.dtype == np.dtype(dtype)
    assert array.shape == (3, 5)


# --- seeds -------------------------------------------------------------------------------------

RANDOM = [name for name, kind in INITIALIZERS.items() if "seed" in kind.ARGUMENTS]


@pytest.mark.parametrize("name", RANDOM)
def test_a_seed_draws_the_same_at_each_call_and_another_seed_does_not(name):
    draw, again, other = (INITIALIZERS[name](seed=seed) for seed in (5, 5, 6))
    first = draw((4, 6))
    np.testing.assert_array_equal(first, draw((4, 6)))
    np.testing.assert_array_equal(first, again((4, 6)))
    assert not np.array_equal(first, other((4, 6)))


@pytest.mark.parametrize("name", RANDOM)
def test_without_a_seed_each_call_draws_anew(name):
    draw = INITIALIZERS[name]()
    assert not np.array_equal(draw((4, 6)), draw((4, 6)))


def test_the_global_generator_of_numpy_is_neither_used_nor_moved():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = initializers.GlorotUniform()((4, 6))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert not np.array_equal(first, initializers.GlorotUniform()((4, 6)))


# --- names and configs -------------------------------------------------------------------------


def test_every_initializer_of_keras_that_weights_use_is_here(tf):
    public = {
        name
        for name, value in vars(tf.keras.initializers).items()
        if isinstance(value, type) and issubclass(value, tf.keras.initializers.Initializer)
    }
    lower = {name for name in public if name.islower()}
    # STFT makes the fixed kernels of a Fourier transform, Initializer is the abstract class
    assert lower == set(INITIALIZERS) | {"stft"}
    known = {kind.__name__ for kind in INITIALIZERS.values()}
    aliases = {"IdentityInitializer", "OrthogonalInitializer", "STFT", "STFTInitializer"}
    assert public - lower == known | aliases | {"Initializer"}


@pytest.mark.parametrize("name", INITIALIZERS)
def test_a_name_finds_the_class_that_keras_finds(tf, name):
    made = initializers.get("who", name)
    theirs = getattr(tf.keras.initializers, name).__name__
    assert type(made).__name__ == theirs
    assert type(initializers.get("who", theirs)) is type(made)  # the class's name too


@pytest.mark.parametrize("alias", ["OrthogonalInitializer", "IdentityInitializer"])
def test_kerass_longer_names_are_known(tf, alias):
    theirs = type(tf.keras.initializers.get(alias)).__name__
    assert type(initializers.get("who", alias)).__name__ == theirs


@pytest.mark.parametrize("alias", ["normal", "uniform", "one", "zero"])
def test_kerass_shorter_names_are_known(tf, alias):
    theirs = type(tf.keras.initializers.get(alias)).__name__
    assert type(initializers.get("who", alias)).__name__ == theirs


@pytest.mark.parametrize(("name", "arguments"), SETTINGS, **IDS)
def test_keras_reads_what_refrnn_writes(tf, name, arguments):
    mine, theirs = both(tf, name, arguments)
    config = initializers.serialize("who", mine)
    read = tf.keras.initializers.deserialize(config)
    assert type(read) is type(theirs)
    for setting, value in mine.get_config().items():
        assert getattr(read, setting) == value


@pytest.mark.parametrize(("name", "arguments"), SETTINGS, **IDS)
def test_refrnn_reads_what_keras_writes(tf, name, arguments):
    mine, theirs = both(tf, name, arguments)
    config = tf.keras.initializers.serialize(theirs)
    read = initializers.get("who", config)
    assert type(read) is type(mine)
    expected = mine.get_config()
    if name == "Identity":
        assert config["config"] == {}, "Keras stores Identity's gain now: drop this exception"
        expected = {"gain": 1.0}
    assert read.get_config() == expected


@pytest.mark.parametrize(("name", "arguments"), SETTINGS, **IDS)
def test_a_config_is_kerass_up_to_settings_that_are_none(tf, name, arguments):
    mine, theirs = (
        serialize(made)
        for serialize, made in zip(
            (lambda i: initializers.serialize("who", i), tf.keras.initializers.serialize),
            both(tf, name, arguments),
            strict=True,
        )
    )
    if name == "Identity":
        theirs["config"]["gain"] = arguments["gain"]  # Keras forgets it
    spare = {"input_axes", "output_axes"}  # of newer versions of Keras, None by default
    assert all(theirs["config"].pop(setting, None) is None for setting in spare)
    assert mine == theirs


@pytest.mark.parametrize(("name", "arguments"), SETTINGS, **IDS)
def test_a_config_survives_a_round_trip_and_a_repr_tells_all(name, arguments):
    made = getattr(initializers, name)(**arguments)
    again = initializers.get("who", initializers.serialize("who", made))
    assert type(again) is type(made)
    assert again.get_config() == made.get_config()
    assert repr(again) == repr(made)
    assert eval(repr(made), vars(initializers)).get_config() == made.get_config()


def test_arguments_by_position_are_in_kerass_order():
    assert initializers.VarianceScaling(2.0, "fan_out", "uniform", 3).get_config() == {
        "scale": 2.0, "mode": "fan_out", "distribution": "uniform", "seed": 3,
    }  # fmt: skip
    assert initializers.RandomUniform(-1, 1, 3).get_config() == {
        "minval": -1, "maxval": 1, "seed": 3,
    }  # fmt: skip


def test_an_object_a_class_and_a_function_are_taken_as_they_are():
    made = initializers.Constant(0.5)
    assert initializers.get("who", made) is made
    assert type(initializers.get("who", initializers.Ones)) is initializers.Ones
    assert initializers.get("who", np.zeros) is np.zeros


# --- in a layer --------------------------------------------------------------------------------

F, H = 30, 50
LAYERS = (("SimpleRNN", 1), ("GRU", 3), ("LSTM", 4))  # and their gates


def built(tf, layer, **options):
    """The layer of either library, built for F features."""
    mine = getattr(refrnn, layer)(H, dtype="float64", **options)
    mine.build((None, None, F))
    theirs = getattr(tf.keras.layers, layer)(H, dtype="float64", **options)
    theirs.build((None, None, F))
    return mine.get_weights(), theirs.get_weights()


@pytest.mark.parametrize(("layer", "gates"), LAYERS)
def test_a_new_kernel_is_uniform_up_to_the_limit_of_the_fused_shape(tf, layer, gates):
    """sqrt(6 / (F + G H)), not that of one gate, as in Keras."""
    limit = np.sqrt(6 / (F + gates * H))
    for kernel, *_ in built(tf, layer):
        assert kernel.shape == (F, gates * H)
        largest = np.abs(kernel).max()
        # 1500 numbers or more, all of them under 0.99 of the limit: 0.99^1500 = 3e-7
        assert 0.99 * limit < largest <= limit


@pytest.mark.parametrize(("layer", "gates"), LAYERS)
def test_a_new_recurrent_kernel_is_orthogonal_as_a_whole_not_by_gate(tf, layer, gates):
    for _, recurrent, _ in built(tf, layer):
        assert recurrent.shape == (H, gates * H)
        # sums of up to 200 products below 1, each rounded to 1e-16
        np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(H), rtol=0, atol=1e-13)
        block = recurrent[:, :H]
        by_gate = np.abs(block @ block.T - np.eye(H)).max() < 0.1
        assert by_gate == (gates == 1)


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        ("SimpleRNN", {}),
        ("GRU", {}),
        ("GRU", {"reset_after": False}),
        ("LSTM", {}),
        ("LSTM", {"unit_forget_bias": False}),
    ],
    ids=str,
)
@pytest.mark.parametrize("start", ["zeros", "constant"])
def test_a_new_bias_equals_kerass(tf, layer, options, start):
    """unit_forget_bias among them: i | f | c, o are 1/4 | 1 | 1/4."""
    libraries = (initializers, tf.keras.initializers)
    draws = [k.Zeros() if start == "zeros" else k.Constant(0.25) for k in libraries]
    (*_, got), _ = built(tf, layer, **options, bias_initializer=draws[0])
    theirs = getattr(tf.keras.layers, layer)(H, dtype="float64", **options)
    theirs = type(theirs).from_config(
        theirs.get_config() | {"bias_initializer": tf.keras.initializers.serialize(draws[1])}
    )
    theirs.build((None, None, F))
    np.testing.assert_array_equal(got, theirs.get_weights()[2], strict=True)


def test_the_forget_bias_is_the_second_block():
    layer = refrnn.LSTM(2, bias_initializer=initializers.Constant(0.25))
    layer.build((None, None, 3))
    expected = np.array([0.25, 0.25, 1, 1, 0.25, 0.25, 0.25, 0.25], np.float32)
    np.testing.assert_array_equal(layer.get_weights()[2], expected, strict=True)


def test_a_function_is_called_with_the_shape_and_the_dtype():
    asked = []

    def ramp(shape, dtype=None):
        asked.append((shape, np.dtype(dtype)))
        return np.arange(np.prod(shape)).reshape(shape)  # integers: cast by the layer

    layer = refrnn.GRU(2, dtype="float64", recurrent_initializer=ramp)
    layer.build((None, None, 3))
    assert asked == [((2, 6), np.dtype("float64"))]
    np.testing.assert_array_equal(
        layer.get_weights()[1], np.arange(12.0).reshape(2, 6), strict=True
    )


def test_an_initializer_of_keras_is_a_function_like_any_other(tf):
    layer = Dense(2, kernel_initializer=tf.keras.initializers.Constant(0.5))
    layer.build((None, 3))
    np.testing.assert_array_equal(layer.kernel, np.full((3, 2), 0.5, np.float32), strict=True)


def test_the_array_of_an_initializer_is_copied_into_the_layer():
    source = np.ones((3, 2), np.float32)
    layer = Dense(2, kernel_initializer=lambda shape, dtype: source)
    layer.build((None, 3))
    source[...] = 7
    np.testing.assert_array_equal(layer.kernel, np.ones((3, 2)))


# --- errors ------------------------------------------------------------------------------------

REFUSED = {
    "unknown name": (
        lambda: initializers.get("GRU 'g'", "he"),
        "GRU 'g': initializer 'he' is not known; expected one of zeros, ones, constant, identity,",
    ),
    "unknown class": (
        lambda: initializers.get("GRU 'g'", {"class_name": "STFT", "config": {}}),
        "GRU 'g': initializer {'class_name': 'STFT', 'config': {}} is not known; expected one of",
    ),
    "a dictionary that is no config": (
        lambda: initializers.get("GRU 'g'", {"config": {}}),
        "GRU 'g': initializer {'config': {}} is not known",
    ),
    "a number": (
        lambda: initializers.get("GRU 'g'", 0.5),
        "GRU 'g': initializer 0.5 is not known;",
    ),
    "None": (
        lambda: initializers.get("GRU 'g'", None),
        "GRU 'g': initializer None is not known;",
    ),
    "unknown argument": (
        lambda: initializers.RandomNormal(sd=3),
        "RandomNormal: unexpected arguments ['sd'], expected mean, stddev, seed",
    ),
    "an argument of none": (
        lambda: initializers.Zeros(seed=1),
        "Zeros: unexpected arguments ['seed'], expected none",
    ),
    "too many arguments": (
        lambda: initializers.Constant(1, 2),
        "Constant: unexpected arguments (1, 2), expected value",
    ),
    "mode": (
        lambda: initializers.VarianceScaling(mode="fan")((3, 3)),
        "VarianceScaling: mode is 'fan', expected ['fan_in', 'fan_out', 'fan_avg']",
    ),
    "distribution": (
        lambda: initializers.VarianceScaling(distribution="normal")((3, 3)),
        "VarianceScaling: distribution is 'normal', expected"
        " ['truncated_normal', 'untruncated_normal', 'uniform']",
    ),
    "an identity of three dimensions": (
        lambda: initializers.Identity()((2, 2, 2)),
        "Identity: shape is (2, 2, 2), expected two dimensions, for a matrix",
    ),
    "an orthogonal vector": (
        lambda: initializers.Orthogonal()((3,)),
        "Orthogonal: shape is (3,), expected two dimensions or more",
    ),
    "a function in a config": (
        lambda: initializers.serialize("GRU 'g'", np.zeros),
        f"GRU 'g': initializer {np.zeros!r} cannot be written into a config, expected a name or an"
        " object of refrnn.initializers, because a function would be stored as code",
    ),
    "a function that makes another shape": (
        lambda: Dense(2, name="d", kernel_initializer=lambda s, dtype: np.ones(3)).build((None, 4)),
        "Dense 'd': the initializer of kernel made shape (3,), expected (4, 2)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case):
    call, text = REFUSED[case]
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        call()


def test_an_initializer_that_does_not_say_how_it_draws_is_refused():
    class Lazy(initializers.Initializer):
        pass

    with pytest.raises(NotImplementedError, match=r"^Lazy does not say how it draws$"):
        Lazy()((2,))


UNCLEAR = {
    "a misspelt setting": {"class_name": "GlorotUniform", "config": {"sed": 3}},
    "axes": {"class_name": "GlorotUniform", "config": {"input_axes": [0]}},
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_a_setting_that_is_not_known_is_never_dropped(case):
    with pytest.raises(ValueError, match=r"GlorotUniform.*expected seed"):
        initializers.get("GRU 'g'", UNCLEAR[case])

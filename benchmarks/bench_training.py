"""What does a training step cost, beside Keras, torch, JAX and tf.js?

python benchmarks/bench_training.py
python benchmarks/bench_training.py --rounds 2 --seconds 0.05  # does it work?

The model is LSTM(32) -> Dense(128, relu) -> Dense(1) on 175 rows of 25 steps of one feature, which
is stateful: a batch goes on from the state that the one before ended with. Mean squared error,
Adam, float32. A step is one update on one batch that lies there, its loss read; a Keras or refrnn
fit is an epoch of that one batch. Before anyone is timed, the losses of its first updates are
compared with those of refrnn's readable engine in float64. Competitors race as `race.py` says.

tf.js runs where there is Node, with NODE_PATH naming the folder of its modules: in plain
JavaScript and in WebAssembly, on one thread both.
"""

import argparse
import json
import math
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from race import Process, block, serve, started, timed
from report import figures, micro, number, quartiles, ratio, table
from shapes import Array, Shape, problem

SHAPE = Shape("lstm", 175, 25, 1, 32)
WIDE = 128  # units of the hidden Dense
RATE = 0.001  # of Adam, with the other numbers of Keras: 0.9, 0.999 and 1e-7
UPDATES = 12  # whose losses are compared
# Relative. Seen are 8e-7; a bias that learns twice as fast is off by 5e-3, a state that is not
# carried by 7e-2, another epsilon by 2e-4. After the 13th update torch, in float64 too, goes a way
# of its own: 3e-4 from all others at the 20th.
BOUND = 1e-5
GOALS = (("torch", 0.6), ("keras fit", 1 / 30))
NODE = Path(__file__).with_name("tfjs_training.js")

Update = Callable[[], float]  # makes an update and returns the loss before it


def given() -> dict[str, Array]:
    """Weights by layer in Keras's layout, a batch of pieces of sines, and what comes next."""
    p, rng = problem(SHAPE), np.random.default_rng(1)
    B, T, _, H = SHAPE[1:5]
    p.bias[H : 2 * H] += 4  # so that what is carried is not forgotten in 25 steps
    start, pace = rng.uniform(0, 6, (B, 1)), rng.uniform(0.1, 0.3, (B, 1))
    sines = np.sin(start + pace * np.arange(T + 1))
    wide, out = np.sqrt(6 / (H + WIDE)), np.sqrt(6 / (WIDE + 1))
    arrays = {
        "kernel": p.kernel, "recurrent": p.recurrent, "bias": p.bias,
        "dense": rng.uniform(-wide, wide, (H, WIDE)), "dense_bias": np.zeros(WIDE),
        "out": rng.uniform(-out, out, (WIDE, 1)), "out_bias": np.zeros(1),
        "x": sines[:, :T, None], "y": sines[:, T:],
    }  # fmt: skip
    return {name: np.ascontiguousarray(a, np.float32) for name, a in arrays.items()}


WEIGHTS = ("kernel", "recurrent", "bias", "dense", "dense_bias", "out", "out_bias")


# --- competitors ---


def _refrnn_model(a: dict[str, Array], engine: str, dtype: str) -> Any:
    import refrnn
    from refrnn import layers

    model = refrnn.Sequential(
        [
            layers.LSTM(SHAPE.units, stateful=True, engine=engine, dtype=dtype),
            layers.Dense(WIDE, activation="relu", dtype=dtype),
            layers.Dense(1, dtype=dtype),
        ]
    )
    model.build(a["x"].shape)
    model.set_weights([a[name].astype(dtype) for name in WEIGHTS])
    return model


def refrnn_step(a: dict[str, Array], engine: str = "numba", dtype: str = "float32") -> Update:
    from refrnn.training import Adam, train_on_batch

    model, adam = _refrnn_model(a, engine, dtype), Adam(RATE)
    x, y = a["x"].astype(dtype), a["y"].astype(dtype)
    return lambda: train_on_batch(model, x, y, "mse", adam)


def refrnn_fit(a: dict[str, Array]) -> Update:
    from refrnn.training import Adam, fit

    model, adam = _refrnn_model(a, "numba", "float32"), Adam(RATE)

    def update() -> float:
        made = fit(model, a["x"], a["y"], "mse", adam, batch_size=SHAPE.rows, shuffle=False)
        return made.history["loss"][0]

    return update


def _keras_model(a: dict[str, Array]) -> Any:
    import keras

    model = keras.Sequential(
        [
            keras.Input(batch_shape=a["x"].shape),
            keras.layers.LSTM(SHAPE.units, stateful=True),
            keras.layers.Dense(WIDE, activation="relu"),
            keras.layers.Dense(1),
        ]
    )
    model.set_weights([a[name] for name in WEIGHTS])
    model.compile(optimizer=keras.optimizers.Adam(RATE), loss="mse")
    return model


def keras_step(a: dict[str, Array]) -> Update:
    model = _keras_model(a)
    return lambda: float(model.train_on_batch(a["x"], a["y"]))


def keras_fit(a: dict[str, Array]) -> Update:
    model = _keras_model(a)

    def update() -> float:
        made = model.fit(a["x"], a["y"], batch_size=SHAPE.rows, shuffle=False, verbose=0)
        return float(made.history["loss"][0])

    return update


def torch_step(a: dict[str, Array]) -> Update:
    import torch

    lstm = torch.nn.LSTM(SHAPE.features, SHAPE.units, batch_first=True)
    head = torch.nn.Sequential(
        torch.nn.Linear(SHAPE.units, WIDE), torch.nn.ReLU(), torch.nn.Linear(WIDE, 1)
    )
    names = ["kernel", "recurrent", "bias"]
    targets = [lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0]
    linears = [(head[0], "dense"), (head[2], "out")]
    with torch.no_grad():
        for target, name in zip(targets, names, strict=True):
            target.copy_(torch.from_numpy(np.ascontiguousarray(a[name].T)))
        lstm.bias_hh_l0.zero_()
        for linear, name in linears:
            linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(a[name].T)))
            linear.bias.copy_(torch.from_numpy(a[f"{name}_bias"]))
    lstm.bias_hh_l0.requires_grad_(False)  # Keras has one bias
    learned = [*targets, *head.parameters()]
    optimizer = torch.optim.Adam(learned, lr=RATE, fused=True)
    x, y, state, updates = torch.from_numpy(a["x"]), torch.from_numpy(a["y"]), None, 0

    def update() -> float:
        nonlocal state, updates
        updates += 1
        # Keras adds epsilon before the correction of the second moment, torch after it
        optimizer.param_groups[0]["eps"] = 1e-7 / math.sqrt(1 - 0.999**updates)
        optimizer.zero_grad(set_to_none=True)
        outputs, (h, c) = lstm(x, state)
        loss = torch.nn.functional.mse_loss(head(outputs[:, -1]), y)
        loss.backward()
        optimizer.step()
        state = h.detach(), c.detach()
        return float(loss.item())

    return update


def jax_step(a: dict[str, Array]) -> Update:
    import jax
    import jax.numpy as jnp

    x, y = jnp.asarray(a["x"]), jnp.asarray(a["y"])

    def lost(weights: Any, state: Any) -> Any:
        kernel, recurrent, bias, dense, dense_bias, out, out_bias = weights

        def one(state: Any, x: Any) -> Any:
            h, c = state
            i, f, g, o = jnp.split(x @ kernel + h @ recurrent + bias, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        state, _ = jax.lax.scan(one, state, jnp.swapaxes(x, 0, 1))
        hidden = jax.nn.relu(state[0] @ dense + dense_bias)
        return jnp.mean((hidden @ out + out_bias - y) ** 2), state

    def step(weights: Any, m: Any, v: Any, n: Any, state: Any) -> Any:
        (loss, state), gradients = jax.value_and_grad(lost, has_aux=True)(weights, state)
        n = n + 1
        rate = RATE * jnp.sqrt(1 - 0.999**n) / (1 - 0.9**n)
        m = [0.9 * a + 0.1 * g for a, g in zip(m, gradients, strict=True)]
        v = [0.999 * a + 0.001 * g * g for a, g in zip(v, gradients, strict=True)]
        weights = [
            w - rate * a / (jnp.sqrt(b) + 1e-7) for w, a, b in zip(weights, m, v, strict=True)
        ]
        return loss, (weights, m, v, n, state)

    compiled = jax.jit(step, donate_argnums=(0, 1, 2))
    weights = [jnp.asarray(a[name]) for name in WEIGHTS]
    zeros = jnp.zeros((SHAPE.rows, SHAPE.units), jnp.float32)
    carried = (weights, [jnp.zeros_like(w) for w in weights], [jnp.zeros_like(w) for w in weights],
               jnp.float32(0), (zeros, zeros))  # fmt: skip

    def update() -> float:
        nonlocal carried
        loss, carried = compiled(*carried)
        return float(loss)

    return update


OURS = "refrnn train_on_batch"
MAKERS: dict[str, Callable[[dict[str, Array]], Update]] = {
    OURS: refrnn_step,
    "refrnn fit": refrnn_fit,
    "torch": torch_step,
    "JAX jit": jax_step,
    "keras train_on_batch": keras_step,
    "keras fit": keras_fit,
}
IN_NODE = {"tf.js cpu": "cpu", "tf.js wasm": "wasm"}
NAMES = (*MAKERS, *IN_NODE)


class Learner:
    """Answers the driver's messages, one a line, as `race.Competitor` does."""

    def __init__(self, name: str, threads: int) -> None:
        if name.startswith("torch"):
            import torch

            torch.set_num_threads(threads)
        elif name.startswith("keras"):
            import tensorflow as tf

            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        elif name.startswith("JAX"):
            import jax  # noqa: F401  # missing is said at once
        self.make = MAKERS[name]

    def prepare(self, path: str) -> dict[str, Any]:
        """The largest relative error of the losses of the first updates."""
        a = json.loads(Path(path).read_text())
        arrays = {n: np.asarray(v, np.float32) for n, v in a["arrays"].items()}
        self.update = self.make(arrays)
        return judged([self.update() for _ in range(UPDATES)], a["losses"])

    def settle(self) -> dict[str, Any]:
        return {"seconds": block(self.update, 0.01)[0]}

    def time(self, seconds: float) -> dict[str, Any]:
        median, least = block(self.update, seconds)
        return {"median": median, "minimum": least}


def judged(losses: list[float], wanted: list[float]) -> dict[str, Any]:
    error = float(np.max(np.abs(np.divide(losses, wanted) - 1)))
    return {"error": error} | ({} if error <= BOUND else {"skipped": f"wrong by {error:.1e}"})


# --- the driver ---


def process(name: str, threads: int) -> Process:
    if name in IN_NODE:
        return Process(name, threads, ["node", str(NODE), IN_NODE[name], str(BOUND)])
    script = [sys.executable, __file__, "--serve", name, "--threads", str(threads)]
    return Process(name, threads, script)


def measured(names: list[str], threads: int, rounds: int, seconds: float) -> dict[str, Any]:
    """As `race.race`: a row of figures for each competitor."""
    arrays = given()
    exact = refrnn_step(arrays, "numpy", "float64")
    told = {
        "arrays": {name: array.tolist() for name, array in arrays.items()},
        "losses": [exact() for _ in range(UPDATES)],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.json"
        path.write_text(json.dumps(told))
        with started([process(name, threads) for name in names]) as processes:
            found = timed(processes, rounds, seconds, path=str(path))
    return {"threads": threads, "found": found}


def print_row(row: dict[str, Any]) -> None:
    print(f"\n{row['threads']} thread(s): median [quartiles], minimum us, error of losses, ratio")
    for name, known in row["found"].items():
        values = figures(row, name)
        if not values:
            print(f"  {name:22} {known.get('skipped') or known.get('failed')}")
            continue
        low, high = quartiles(values)
        text = f"{micro(statistics.median(values)):>9} [{micro(low)} to {micro(high)}]"
        least = min(figures(row, name, "minima"), default=values[0])
        mine = number(ratio(row, name, OURS).median) if figures(row, OURS) else ""
        print(f"  {name:22}{text:32}{micro(least):10}{known['error']:<10.0e}{mine}", flush=True)


def markdown(rows: list[dict[str, Any]]) -> str:
    """The section of results.md."""
    parts = [
        "## A training step",
        "LSTM(32) -> Dense(128, relu) -> Dense(1), stateful, a batch of 175 rows of 25 steps of one"
        " feature, mean squared error, Adam, float32; a fit is an epoch of that one batch. The"
        f" losses of the first {UPDATES} updates agree with the readable engine's in float64 as"
        " far as the column of errors says, relative. tf.js has one thread.",
    ]
    for row in rows:
        lines = []
        for name, known in row["found"].items():
            values = figures(row, name)
            if not values:
                why = known.get("skipped") or known.get("failed") or ""
                lines.append([name, why.splitlines()[0][:80] if why else "", "", "", "", ""])
                continue
            low, high = quartiles(values)
            least = min(figures(row, name, "minima"), default=values[0])
            r = ratio(row, name, OURS)
            spread = f"{number(r.median)} [{number(r.low)} to {number(r.high)}]"
            lines.append(
                [name, micro(statistics.median(values)), f"{micro(low)} to {micro(high)}",
                 micro(least), f"{known['error']:.0e}", spread]
            )  # fmt: skip
        head = ("", "median, us", "quartiles", "minimum", "error", f"{OURS} / it [quartiles]")
        parts += [f"### {row['threads']} thread(s)", table(head, lines)]
        for name, bound in GOALS:
            if figures(row, name) and figures(row, OURS):
                value = ratio(row, name, OURS).median
                verdict = "met" if value <= bound else "**not met**"
                parts.append(
                    f"Goal: at most {number(bound)} of {name}: {number(value)}, {verdict}."
                )
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description="What does a training step cost?")
    parser.add_argument("--rounds", type=int, default=9, help="9 by default")
    parser.add_argument("--seconds", type=float, default=0.2, help="of a block, 0.2 by default")
    parser.add_argument("--threads", default="1,2", help="1,2 by default")
    parser.add_argument("--only", help="competitors, with commas; all by default")
    parser.add_argument("--json", type=Path, help="write what was measured there")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Learner, options.serve, int(options.threads))
        return
    names = options.only.split(",") if options.only else list(NAMES)
    if not shutil.which("node"):
        names = [name for name in names if name not in IN_NODE]
    rows = []
    for threads in map(int, options.threads.split(",")):
        rows.append(measured(names, threads, options.rounds, options.seconds))
        print_row(rows[-1])
    if options.json:
        options.json.write_text(json.dumps(rows))
    print(f"\n{markdown(rows)}")


if __name__ == "__main__":
    main()

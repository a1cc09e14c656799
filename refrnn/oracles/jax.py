"""JAX on the CPU: its scan over the equations as papers have them, with masks and any activation.

JAX has no layer for these cells. The equations here are written from the papers and share nothing
with refrnn's: gates by name, one dictionary of matrices a gate.
"""

from typing import Any

from refrnn.cases import Arrays, Case
from refrnn.gates import Array
from refrnn.oracles import adapters

FUNCTIONS = {  # refrnn's names of activations, and where JAX has them
    "celu": "nn.celu",
    "elu": "nn.elu",
    "exponential": "numpy.exp",
    "hard_sigmoid": "nn.hard_sigmoid",
    "hard_silu": "nn.hard_silu",
    "hard_tanh": "nn.hard_tanh",
    "log_sigmoid": "nn.log_sigmoid",
    "mish": "nn.mish",
    "relu": "nn.relu",
    "relu6": "nn.relu6",
    "selu": "nn.selu",
    "sigmoid": "nn.sigmoid",
    "silu": "nn.silu",
    "softplus": "nn.softplus",
    "softsign": "nn.soft_sign",
    "squareplus": "nn.squareplus",
    "tanh": "numpy.tanh",
}
GATES = {"simple": "h", "lstm": "ifgo", "gru": "zrg", "gru_reset_before": "zrg"}


class Jax:
    """JAX with 64 bits switched on, which it then is for the whole process.

    Raises Unavailable where JAX is missing.
    """

    def __init__(self) -> None:
        self.jax = adapters.needed("jax", "JAX")
        self.jax.config.update("jax_platforms", "cpu")
        self.jax.config.update("jax_enable_x64", True)  # else float64 arrays become float32
        self.numpy = adapters.needed("jax.numpy", "JAX")
        self._scans: dict[Any, Any] = {}

    def versions(self) -> dict[str, str]:
        return {"JAX": str(self.jax.__version__)}

    def run(self, case: Case, way: str = "scan", arrays: Arrays | None = None) -> dict[str, Array]:
        """Outputs y (B, T, H), h and for LSTM c (B, H) of `case`."""
        jnp, given = self.numpy, adapters.given(case, arrays)
        xs = jnp.swapaxes(jnp.asarray(given.x), 0, 1)
        live = jnp.ones(xs.shape[:2], bool) if given.mask is None else jnp.asarray(given.mask.T)
        start = tuple(jnp.asarray(part) for part in given.state)
        first = (start, jnp.zeros_like(start[0]))  # Keras: zeros before the first step that counts
        weights = [jnp.asarray(a) for a in given.weights]
        (state, _), ys = self._scan(case)(weights, first, (xs, live))
        return adapters.outputs(case, jnp.swapaxes(ys, 0, 1), list(state))

    def _scan(self, case: Case) -> Any:
        """A scan over the steps, which JAX compiles once for each shape; kept."""
        options = case.options
        zero = bool(options.get("zero_output_for_mask"))
        act = options.get("activation", "tanh")
        rec = options.get("recurrent_activation", "sigmoid")
        key = adapters.cell(case), act, rec, zero
        if key not in self._scans:
            jnp, make = self.numpy, self._steps(key[0], self._function(act), self._function(rec))

            def scan(weights: list[Any], first: Any, over: Any) -> Any:
                step = make(weights)

                def masked(carry: Any, now: Any) -> Any:
                    state, last = carry
                    x, on = now[0], now[1][:, None]
                    new = step(state, x)
                    y = jnp.where(on, new[0], jnp.zeros_like(last) if zero else last)
                    kept = tuple(jnp.where(on, a, b) for a, b in zip(new, state, strict=True))
                    return (kept, y), y

                return self.jax.lax.scan(masked, first, over)

            self._scans[key] = self.jax.jit(scan)
        return self._scans[key]

    def _function(self, name: str) -> Any:
        module, attribute = FUNCTIONS[name].split(".")
        return getattr({"nn": self.jax.nn, "numpy": self.numpy}[module], attribute)

    def _steps(self, cell: str, act: Any, rec: Any) -> Any:
        """Weights -> the step of a cell: (state, x) -> the state after it, h first."""
        jnp, names = self.numpy, GATES[cell]

        def made(weights: list[Any]) -> Any:
            W, U, *rest = weights
            H = len(U)
            bias = jnp.atleast_2d(rest[0]) if rest else jnp.zeros((1, len(names) * H), W.dtype)
            cut = {gate: slice(k * H, (k + 1) * H) for k, gate in enumerate(names)}

            def x_part(gate: str, x: Any) -> Any:
                return x @ W[:, cut[gate]] + bias[0, cut[gate]]

            def h_part(gate: str, h: Any) -> Any:
                second = bias[1, cut[gate]] if len(bias) > 1 else 0
                return h @ U[:, cut[gate]] + second

            def lstm(state: Any, x: Any) -> Any:
                h, c = state
                i, f, g, o = (x_part(gate, x) + h_part(gate, h) for gate in names)
                c = rec(f) * c + rec(i) * act(g)
                return rec(o) * act(c), c

            def gru(state: Any, x: Any) -> Any:
                (h,) = state
                z, r = (rec(x_part(gate, x) + h_part(gate, h)) for gate in "zr")
                if cell == "gru":
                    g = act(x_part("g", x) + r * h_part("g", h))
                else:
                    g = act(x_part("g", x) + h_part("g", r * h))
                return (z * h + (1 - z) * g,)

            def simple(state: Any, x: Any) -> Any:
                return (act(x_part("h", x) + h_part("h", state[0])),)

            return {"lstm": lstm, "simple": simple}.get(cell, gru)

        return made

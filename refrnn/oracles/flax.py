"""Flax on the CPU: the cells of linen and of nnx under JAX's scan."""

from typing import Any

from refrnn.cases import Arrays, Case
from refrnn.gates import Array
from refrnn.oracles import adapters
from refrnn.oracles.jax import Jax

KINDS = {"SimpleRNN": "SimpleCell", "LSTM": "OptimizedLSTMCell", "GRU": "GRUCell"}


class Flax:
    """Raises Unavailable where JAX or Flax is missing."""

    def __init__(self) -> None:
        self.jax = Jax()
        self.flax = adapters.needed("flax", "Flax")
        self._scans: dict[Any, Any] = {}

    def versions(self) -> dict[str, str]:
        return {"Flax": str(self.flax.__version__), **self.jax.versions()}

    def run(self, case: Case, way: str = "linen", arrays: Arrays | None = None) -> dict[str, Array]:
        """Outputs y (B, T, H), h and for LSTM c (B, H) of `case`: by "linen" or "nnx"."""
        given, jnp = adapters.given(case, arrays), self.jax.numpy
        # Keras's two biases of z and r are one in Flax
        stored = adapters.stored(case, given.weights, f"flax-{way}", lossy="sum_biases")
        weights = {name: jnp.asarray(a) for name, a in stored.items()}
        start = [jnp.asarray(part) for part in given.state]
        single = len(start) == 1
        carry = start[0] if single else tuple(reversed(start))  # Flax: (c, h)
        scan = self._scan(case, way, stored.attributes)
        after, ys = scan(weights, carry, jnp.swapaxes(jnp.asarray(given.x), 0, 1))
        state = [after] if single else list(reversed(after))
        return adapters.outputs(case, jnp.swapaxes(ys, 0, 1), state)

    def _scan(self, case: Case, way: str, told: dict[str, Any]) -> Any:
        """The cell under JAX's scan, which compiles it once for each shape; kept."""
        key = way, case.layer, case.units, str(told)
        if key not in self._scans:
            cell = self._linen if way == "linen" else self._nnx

            def scan(weights: dict[str, Any], carry: Any, xs: Any) -> Any:
                return self.jax.jax.lax.scan(cell(case, weights, told), carry, xs)

            self._scans[key] = self.jax.jax.jit(scan)
        return self._scans[key]

    def _functions(self, told: dict[str, Any]) -> dict[str, Any]:
        nn = self.jax.jax.nn
        names = ("activation_fn", "gate_fn")
        return {n: getattr(nn, told[n]) for n in names if n in told}

    def _linen(self, case: Case, weights: dict[str, Any], told: dict[str, Any]) -> Any:
        linen = adapters.needed("flax.linen", "Flax")
        dtype = next(iter(weights.values())).dtype
        kind = getattr(linen, KINDS[case.layer])
        cell = kind(case.units, **self._functions(told), dtype=dtype, param_dtype=dtype)
        params: dict[str, Any] = {}
        for name, array in weights.items():
            dense, part = name.split("/")
            params.setdefault(dense, {})[part] = array
        return lambda carry, x: cell.apply({"params": params}, carry, x)

    def _nnx(self, case: Case, weights: dict[str, Any], told: dict[str, Any]) -> Any:
        nnx = adapters.needed("flax.nnx", "Flax")
        dtype = next(iter(weights.values())).dtype
        cell = getattr(nnx, KINDS[case.layer])(
            told["in_features"],
            told["hidden_features"],
            **self._functions(told),
            dtype=dtype,
            param_dtype=dtype,
            rngs=nnx.Rngs(0),
        )
        for name, array in weights.items():
            dense, part = name.split("/")
            getattr(getattr(cell, dense), part).set_value(array)
        return lambda carry, x: cell(carry, x)

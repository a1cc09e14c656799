"""What the host's CPU offers to vector code: read from its features, never assumed."""

from typing import NamedTuple


class Machine(NamedTuple):
    """The vector unit that code is made for.

    width      bytes of a vector register
    registers  how many of them there are
    fma        whether it multiplies and adds with one rounding

    Sums are made with fused multiply-adds where the hardware has them, else with a product and a
    sum: one of the two for everything, so results are the same bits on every host with FMA.
    """

    width: int
    registers: int
    fma: bool

    def lanes(self, itemsize: int) -> int:
        """Numbers in a vector."""
        return self.width // itemsize


def machine(triple: str, features: str) -> Machine:
    """The vector unit of a CPU described as LLVM does it.

    triple    "x86_64-unknown-linux-gnu", "arm64-apple-darwin22", ...
    features  "+avx2,+fma,-avx512f,...": what is not named is taken to be missing
    """
    architecture = triple.split("-")[0]
    if architecture in ("aarch64", "arm64"):
        return Machine(width=16, registers=32, fma=True)  # NEON is part of the architecture
    has = {f[1:] for f in features.split(",") if f.startswith("+")}
    if architecture in ("x86_64", "i386", "i686"):
        if has >= {"avx512f", "avx512dq"}:
            return Machine(width=64, registers=32, fma=True)
        if has >= {"avx2", "fma"}:
            return Machine(width=32, registers=16, fma=True)
    return Machine(width=16, registers=16, fma=False)

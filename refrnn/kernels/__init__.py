"""The compiled engine: the loops of `refrnn.reference` with sums and cells in SIMD registers.

`run` has the signature and the meaning of `reference.run`; `pack` prepares the weights once, for
many runs; `Packed.stepper` is for one step at a time. `recorder` prepares them for runs that know
the way back, with the meaning of `refrnn.backward.loop.record`; its code is compiled when it is
first called, by itself. float32 and float64, every cell of the table with its own activations, but
"gru_reset_before" has no way back here: `supports` and `goes_back` say what. `multiplier` makes
products of matrices, for what is trained beside the recurrent layers.

**One result.** The bits of a row depend on that row alone: not on how its sequence is cut into
calls, on the rows beside it, on the number of threads, or on the run; nor on the CPU, as long as it
has fused multiply-add. (Which of several NaNs a NaN is, is not promised.)

**Compiled on demand.** The first `pack` of a cell and dtype compiles its loop for the vector unit
of this CPU, in about 2 s; Numba keeps it on disk beside this file or in its cache folder, and later
processes load it. Importing this package loads neither Numba nor LLVM. Where there is no Numba, or
it fails, `CompileError` is raised and nothing else happens.

**Threads.** A long enough run is shared out by rows among threads that hold no lock of Python's:
as many as the argument `threads` says, by default as NUMBA_NUM_THREADS, which Numba reads, or as
there are CPUs. The threads are Python's own, so runs may be called from several threads at once and
after a fork.
"""

from refrnn.kernels.engine import CompileError, Packed, Stepper, pack, run, supports
from refrnn.kernels.products import multiplier, multiplies
from refrnn.kernels.recording import Recorder, goes_back, recorder

__all__ = [
    "CompileError", "Packed", "Recorder", "Stepper", "goes_back", "multiplier", "multiplies",
    "pack", "recorder", "run", "supports",
]  # fmt: skip

"""Recorded vectors: what another implementation returned on a graphics card, for machines without.

A `Recording` is what went in (`Given`) and what each front end made of it (`Variant`s), with the
proof that cuDNN computed it. `write` and `read` keep it in one file, `judge` holds refrnn and every
variant to the bound of the arithmetic that was recorded, and `distances` says how far wrong
conventions would have been off.
"""

from refrnn.goldens.judging import FAR, Verdict, distances, judge, unseen
from refrnn.goldens.recording import PROOF, PROVENANCE, Given, Recording, Variant, lengths
from refrnn.goldens.storing import read, write

__all__ = [
    "FAR",
    "PROOF",
    "PROVENANCE",
    "Given",
    "Recording",
    "Variant",
    "Verdict",
    "distances",
    "judge",
    "lengths",
    "read",
    "unseen",
    "write",
]

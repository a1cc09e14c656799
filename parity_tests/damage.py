"""Damaged files for the tests of readers: bytes exchanged, numbers put in, ends cut off."""

import random
from collections.abc import Iterator

WORDS = (0, 1, 2, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


def damaged(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` files that were `data`; equal seeds give equal files."""
    rng = random.Random(seed)
    for _ in range(count):
        made = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8))):
            at, action = rng.randrange(len(made)), rng.randrange(6)
            if action == 0:
                made[at] = rng.randrange(256)
            elif action == 1:
                made[at] ^= 1 << rng.randrange(8)
            elif action == 2:
                size = rng.choice((2, 4, 8))
                word = rng.choice((*WORDS, rng.randrange(len(made)))) % 256**size
                made[at : at + size] = word.to_bytes(size, "little")
            elif action == 3:
                source = rng.randrange(len(made))
                made[at : at + 16] = made[source : source + 16]
            elif action == 4:
                made[at:at] = rng.randbytes(rng.choice((1, 4)))
            elif len(made) > 8 and rng.random() < 0.3:
                del made[at:]
            if not made:
                break
        yield bytes(made)

"""What a power cut made of what was not synced: the question, and ready-made answers."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal, NamedTuple


class Change(NamedTuple):
    """One change that was not on stable storage when the power went."""

    operation: Literal["write", "resize", "create", "rename", "remove"]
    path: str  # of a rename: where to
    offset: int = 0  # of a write; of a resize, the new size
    data: bytes = b""  # of a write


# Says of a change what reached the disk: None, nothing; of a write, the bytes that are at its
# offset now, at most as many as were written (fewer: the rest of its range is as it was; any
# bytes will do, a disk promises nothing of a write's range); of any other change, its `data`.
Outcome = Callable[[Change], bytes | None]


def keep(change: Change) -> bytes | None:
    """The Outcome in which everything reached the disk."""
    return change.data


def lose(change: Change) -> bytes | None:
    """The Outcome in which only what was synced did."""
    return None


def drawn(draw: Callable[[int], int], *, damage: bool = False) -> Outcome:
    """Each change on its own: kept, lost, or (a write) torn; with `damage` also zeros or garbage.

    `draw(most)` is an int from 0 to `most`. 0 always means kept, so that what Hypothesis shrinks
    is left with the losses that matter: `drawn(lambda most: data.draw(integers(0, most)))`.
    """

    def outcome(change: Change) -> bytes | None:
        size = len(change.data)
        match draw(1 if change.operation != "write" else 4 if damage else 2):
            case 0:
                return change.data
            case 1:
                return None
            case 2:
                return change.data[: size - 1 - draw(size - 1)]
            case 3:
                return bytes(size)
            case _:
                return random.Random(draw(2**16)).randbytes(size)  # noqa: S311 no secret

    return outcome


def seeded(seed: int, *, damage: bool = False) -> Outcome:
    """`drawn` by a random generator: the same seed, the same outcome."""
    generator = random.Random(seed)  # noqa: S311 no secret
    return drawn(lambda most: generator.randint(0, most), damage=damage)

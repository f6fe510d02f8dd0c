"""The outcome of a power cut for each unsynced change, and ready-made functions that decide it."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Literal

from journal._waits import check_callable
from journal.testing.arguments import check_whole

SECTOR_BYTES = 512
TEARS = (1, 3, 512, 4096)


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was not on stable storage when the power failed."""

    operation: Literal["write", "resize", "create", "rename", "remove"]
    """The kind of change."""

    path: str
    """The path of the file. For a rename, the new path."""

    offset: int = 0
    """The offset of a write, in bytes, or the new size of a resize."""

    data: bytes = b""
    """The bytes of a write. Empty for any other change."""

    old: bytes = field(default=b"", compare=False)
    """The bytes that the disk has in the range of a write, before the write. As long as `data`."""

    stale: tuple[bytes, ...] = field(default=(), compare=False)
    """Older contents of the range of a write, in this file or in older files whose blocks it may
    have been given. Each is as long as `data`."""

    @property
    def sectors(self) -> list[int]:
        """The offsets in `data` at which a sector of the file begins, except 0."""
        first = SECTOR_BYTES - self.offset % SECTOR_BYTES
        return list(range(first, len(self.data), SECTOR_BYTES))


Outcome = Callable[[Change], bytes | None]
"""A function that decides what reached the disk of a change.

It returns None if nothing did. For a write, it otherwise returns the bytes that are now at its
offset, at most as many as were written. If there are fewer, the rest of the range is unchanged. Any
bytes are legal, because a disk promises nothing about the range of an unsynced write. For any other
change, it returns the change's `data`, which is empty."""


def keep(change: Change) -> bytes | None:
    """Decide that the whole change reached the disk, as an Outcome."""
    return change.data


def lose(change: Change) -> bytes | None:
    """Decide that nothing of the change reached the disk, as an Outcome."""
    return None


def fates(change: Change, tears: Collection[int] = TEARS) -> dict[str, bytes | None]:
    """Return the possible fates of `change`, each a value that an Outcome returns, by name.

    "kept" and "lost" come first. A write may also be torn: after each number of bytes in `tears`,
    at its first and last sector boundary, and before its last byte. Its later sectors may be stored
    without the earlier ones. Its range may hold zeros, garbage, or older contents. If two fates
    leave the same bytes, only the first is returned.
    """
    data, old, size = change.data, change.old, len(change.data)
    results: dict[str, bytes | None] = {"kept": data, "lost": None}
    if change.operation != "write":
        return results
    sectors = change.sectors
    edges = {*sectors[:1], *sectors[-1:]}
    cuts = sorted({*tears, *edges, size - 1})
    candidates = {f"torn after {at}": data[:at] for at in cuts if 0 < at < size}
    candidates |= {f"torn before {at}": old[:at] + data[at:] for at in sorted(edges)}
    candidates |= {"zeros": bytes(size), "garbage": bytes(byte ^ 0x5A for byte in data)}
    candidates |= {f"stale {number}": stale for number, stale in enumerate(change.stale, 1)}
    seen = {data, old}
    for name, stored in candidates.items():
        whole = stored + old[len(stored) :]
        if whole not in seen:
            seen.add(whole)
            results[name] = stored
    return results


def drawn(draw: Callable[[int], int], *, damage: bool = False) -> Outcome:
    """Return an Outcome that draws the fate of each change separately.

    A change is kept or lost. A write may also be torn at any byte, or any subset of its sectors may
    be stored. With `damage`, its range may also hold zeros, garbage or older contents.

    `draw(most)` returns an int from 0 to `most`, inclusive. 0 always stands for "kept", so that a
    failure that Hypothesis shrinks has only the losses that matter. With Hypothesis, pass
    `lambda most: data.draw(integers(0, most))`. Raises TypeError if `draw` can't be called.
    """
    check_callable(draw, "draw")

    def sectors(change: Change) -> bytes:
        edges = [0, *change.sectors, len(change.data)]
        parts = [
            (change.old if draw(1) else change.data)[begin:end] for begin, end in pairwise(edges)
        ]
        return b"".join(parts)

    def outcome(change: Change) -> bytes | None:
        size = len(change.data)
        kinds = ["kept", "lost"]
        if change.operation == "write":
            kinds += ["torn"]
            kinds += ["zeros", "garbage"] if damage else []
            kinds += ["stale"] if damage and change.stale else []
            kinds += ["sectors"] if change.sectors else []
        match kinds[draw(len(kinds) - 1)]:
            case "kept":
                return change.data
            case "lost":
                return None
            case "torn":
                return change.data[: size - 1 - draw(size - 1)]
            case "zeros":
                return bytes(size)
            case "garbage":
                return random.Random(draw(2**16)).randbytes(size)  # noqa: S311 no secret
            case "stale":
                return change.stale[draw(len(change.stale) - 1)]
            case _:
                return sectors(change)

    return outcome


def seeded(seed: int, *, damage: bool = False) -> Outcome:
    """Return an Outcome as `drawn` does, with a random generator that starts from `seed`.

    Raises TypeError unless `seed` is an int.
    """
    check_whole("seed", seed, low=-inf, rule="a whole number")
    generator = random.Random(seed)  # noqa: S311 no secret
    return drawn(lambda most: generator.randint(0, most), damage=damage)

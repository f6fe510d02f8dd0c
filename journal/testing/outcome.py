"""What a power cut made of what was not synced: the question, and ready-made answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

SECTOR_BYTES = 512
TEARS = (1, 3, 512, 4096)


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was not on stable storage when the power went."""

    operation: Literal["write", "resize", "create", "rename", "remove"]
    """The kind of change."""

    path: str
    """The path of the file. For a rename, the new path."""

    offset: int = 0
    """The offset of a write, in bytes, or the new size of a resize."""

    data: bytes = b""
    """The bytes of a write. Empty for any other change."""

    old: bytes = field(default=b"", compare=False)
    """The bytes that the disk has in the range of a write now. As long as `data`."""

    stale: tuple[bytes, ...] = field(default=(), compare=False)
    """Older contents of that range, in this file or in older files whose blocks it may have got.
    Each is as long as `data`."""

    @property
    def sectors(self) -> list[int]:
        """Where in `data` a sector of the file begins, but for the first."""
        first = SECTOR_BYTES - self.offset % SECTOR_BYTES
        return list(range(first, len(self.data), SECTOR_BYTES))


Outcome = Callable[[Change], bytes | None]
"""Says of a change what reached the disk: None, nothing; of a write, the bytes that are at its
offset now, at most as many as were written (fewer: the rest of its range is as it was; any
bytes will do, a disk promises nothing of a write's range); of any other change, its `data`."""


def keep(change: Change) -> bytes | None:
    """The Outcome in which everything reached the disk."""
    return change.data


def lose(change: Change) -> bytes | None:
    """The Outcome in which only what was synced did."""
    return None


def fates(change: Change, tears: Collection[int] = TEARS) -> dict[str, bytes | None]:
    """What may have become of `change`, by name, as an Outcome says it.

    "kept" and "lost" come first. A write may also be torn after so many bytes, at a sector's
    begin or before its last byte; its later sectors may be there and the earlier ones not; its
    range may hold zeros, garbage, or an older content. Two names of the same bytes are one.
    """
    data, old, size = change.data, change.old, len(change.data)
    found: dict[str, bytes | None] = {"kept": data, "lost": None}
    if change.operation != "write":
        return found
    sectors = change.sectors
    edges = {*sectors[:1], *sectors[-1:]}
    cuts = sorted({*tears, *edges, size - 1})
    more = {f"torn after {at}": data[:at] for at in cuts if 0 < at < size}
    more |= {f"torn before {at}": old[:at] + data[at:] for at in sorted(edges)}
    more |= {"zeros": bytes(size), "garbage": bytes(byte ^ 0x5A for byte in data)}
    more |= {f"stale {number}": stale for number, stale in enumerate(change.stale, 1)}
    seen = {data, old}
    for name, left in more.items():
        whole = left + old[len(left) :]
        if whole not in seen:
            seen.add(whole)
            found[name] = left
    return found


def drawn(draw: Callable[[int], int], *, damage: bool = False) -> Outcome:
    """Each change on its own: kept, lost, or (a write) torn at any byte, or with any of its
    sectors there; with `damage` also zeros, garbage or an older content.

    `draw(most)` is an int from 0 to `most`. 0 always means kept, so that what Hypothesis shrinks
    is left with the losses that matter: `drawn(lambda most: data.draw(integers(0, most)))`.
    """

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
    """`drawn` by a random generator: the same seed, the same outcome."""
    generator = random.Random(seed)  # noqa: S311 no secret
    return drawn(lambda most: generator.randint(0, most), damage=damage)

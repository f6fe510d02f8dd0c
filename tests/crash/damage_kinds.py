"""Enumerate every kind of damage: to the bytes of a file, to whole files, and to the directory.

The parameter `every` thins out the places: 1 damages each of them, 2 every second one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, islice, product
from typing import NamedTuple

from tests.crash.crash_support import Durability
from tests.crash.damaged_journal import (
    SMALL,
    Files,
    Size,
    flip,
    history,
    is_segment,
    lsn_of,
    places,
)
from tests.independent_reader import FRAME_HEADER

GARBAGE = 0xA5
SECTORS = {False: (8, 64), True: (512, 4096)}  # a small journal has small sectors


class Journal(NamedTuple):
    """An undamaged journal, with its own past and another journal as material for damage."""

    files: Files
    past: tuple[Files, ...]
    foreign: Files
    size: Size


class Damaged(NamedTuple):
    description: str
    files: Files


Kind = Callable[[Journal, str, int], Iterator[Damaged]]


def journal_that_is(
    *, closed: bool, durability: Durability = "disk", size: Size = SMALL
) -> Journal:
    *past, files = history(closed=closed, durability=durability, size=size)
    foreign = history(closed=closed, durability=durability, size=size, journal_id=2)[-1]
    return Journal(files, tuple(past), foreign, size)


def sectors(journal: Journal, name: str, every: int) -> Iterator[tuple[int, int]]:
    """Yield ranges: aligned ones of two sizes, and from each start to the end."""
    end = len(journal.files[name])
    small, large = SECTORS[journal.size != SMALL]
    starts = range(0, end, small)[::every]
    yield from ((start, min(end, start + small)) for start in starts)
    aligned = range(0, end, large)[:: 1 + every // 64]
    yield from ((start, min(end, start + large)) for start in aligned)
    yield from ((start, end) for start in starts)


def replace(journal: Journal, name: str, start: int, end: int, new: bytes) -> Files:
    """Return the journal's files with bytes `start` to `end` of `name` replaced by `new`."""
    data = journal.files[name]
    return {**journal.files, name: data[:start] + new + data[end:]}


# --- damage to bytes ---


def flipped(journal: Journal, name: str, every: int) -> Iterator[Damaged]:
    for offset, bit, files in flip(journal.files, name):
        if (8 * offset + bit) % every == 0:
            yield Damaged(f"bit {bit} of byte {offset}", files)


def truncated(journal: Journal, name: str, every: int) -> Iterator[Damaged]:
    end = len(journal.files[name])
    ends = {place.end for place in places(journal.files[name])} if is_segment(name) else set()
    for size in sorted({*range(0, end, every), *ends} - {end}):
        yield Damaged(f"cut at {size}", replace(journal, name, size, end, b""))


def extended(journal: Journal, name: str, every: int) -> Iterator[Damaged]:
    end = len(journal.files[name])
    for size in (1, FRAME_HEADER.size, 4096):
        for fill in (0, GARBAGE):
            files = replace(journal, name, end, end, bytes([fill]) * size)
            yield Damaged(f"{size} bytes {fill} after the end", files)


def zeroed(journal: Journal, name: str, every: int) -> Iterator[Damaged]:
    for start, end in sectors(journal, name, every):
        files = replace(journal, name, start, end, bytes(end - start))
        yield Damaged(f"zeros from {start} to {end}", files)


def garbled(journal: Journal, name: str, every: int) -> Iterator[Damaged]:
    for start, end in sectors(journal, name, every):
        files = replace(journal, name, start, end, bytes([GARBAGE]) * (end - start))
        yield Damaged(f"garbage from {start} to {end}", files)


def stale(journal: Journal, name: str, every: int) -> Iterator[Damaged]:
    """Yield the journal with writes lost: each range gets its older content."""
    for old in {each[name] for each in journal.past if name in each}:
        for start, end in sectors(journal, name, every):
            new = old[start:end].ljust(end - start, b"\0")
            files = replace(journal, name, start, end, new)
            yield Damaged(f"older content from {start} to {end}", files)


def deleted(journal: Journal, name: str, every: int) -> Iterator[Damaged]:
    end = len(journal.files[name])
    for size in (1, 3, FRAME_HEADER.size, 100):
        for start in range(0, end - size + 1, every):
            files = replace(journal, name, start, start + size, b"")
            yield Damaged(f"without {size} bytes from {start} on", files)


def inserted(journal: Journal, name: str, every: int) -> Iterator[Damaged]:
    for size, fill in ((1, 0), (1, GARBAGE), (FRAME_HEADER.size, 0), (512, GARBAGE)):
        for start in range(0, len(journal.files[name]) + 1, every):
            files = replace(journal, name, start, start, bytes([fill]) * size)
            yield Damaged(f"{size} bytes {fill} inserted at {start}", files)


def spliced(journal: Journal, name: str, every: int) -> Iterator[Damaged]:
    """Yield the journal with frames and marks copied into this segment.

    Each one, from this segment and from the others, is written instead of each other one, over it,
    before it and after the end. Its header alone is also written over each one.
    """
    if is_segment(name):
        pieces = (
            (source, place.start, journal.files[source][place.start : place.end])
            for source in filter(is_segment, journal.files)
            for place in places(journal.files[source])
        )
        where = product(pieces, [*_targets(journal.files[name])])
        for (source, start, piece), (placement, begin, end) in islice(where, 0, None, every):
            new = piece[: FRAME_HEADER.size] if placement == "header over" else piece
            until = begin + len(new) if end is None else end
            files = replace(journal, name, begin, until, new)
            yield Damaged(f"{source} {start} {placement} {begin}", files)


def _targets(data: bytes) -> Iterator[tuple[str, int, int | None]]:
    """Yield how a piece is placed, where it begins, and the end of the bytes that it replaces.

    None as the end means that it replaces as many bytes as it has.
    """
    for place in places(data):
        yield "instead of", place.start, place.end
        yield "over", place.start, None
        yield "header over", place.start, None
        yield "before", place.start, place.start
    yield "after", places(data)[-1].end, None


# --- damage to files ---


def removed(journal: Journal, name: str, every: int) -> Iterator[Damaged]:
    yield Damaged("removed", {n: data for n, data in journal.files.items() if n != name})


def foreign(journal: Journal, name: str, every: int) -> Iterator[Damaged]:
    yield Damaged("that of another journal", {**journal.files, name: journal.foreign[name]})


def older(journal: Journal, name: str, every: int) -> Iterator[Damaged]:
    for old in {each[name] for each in journal.past if name in each}:
        yield Damaged(f"an older copy of {len(old)} bytes", {**journal.files, name: old})


def exchanged(journal: Journal, name: str, every: int) -> Iterator[Damaged]:
    """Yield the journal with the file replaced by a copy of another, and with the two swapped."""
    for other in set(journal.files) - {name}:
        own_data, other_data = journal.files[name], journal.files[other]
        yield Damaged(f"a copy of {other}", {**journal.files, name: other_data})
        yield Damaged(f"swapped with {other}", {**journal.files, name: other_data, other: own_data})


def duplicated(journal: Journal, name: str, every: int) -> Iterator[Damaged]:
    """Yield the journal with a copy under each name that another file of its kind could have."""
    last_lsn = max(map(lsn_of, journal.files)) + 3
    lsns = range(1, last_lsn, 1)
    names = (
        [f"{lsn:020d}-{epoch:010d}.seg" for lsn in lsns for epoch in range(1, 7)]
        if is_segment(name)
        else [f"checkpoint-{lsn:020d}.json" for lsn in lsns]
    )
    for copy in [*names[::every], f"{name}.bak", f"{name} (copy)"]:
        if copy not in journal.files:
            files = {**journal.files, copy: journal.files[name]}
            yield Damaged(f"copied to {copy}", files)


BYTES: tuple[Kind, ...] = (
    flipped, truncated, extended, zeroed, garbled, stale, deleted, inserted, spliced
)  # fmt: skip
FILES: tuple[Kind, ...] = (removed, foreign, older, exchanged, duplicated)


def several_removed(journal: Journal) -> Iterator[Damaged]:
    """Yield the journal without each set of two or more files, but never without all."""
    for count in range(2, len(journal.files)):
        for names in combinations(sorted(journal.files), count):
            remaining = {name: data for name, data in journal.files.items() if name not in names}
            yield Damaged(f"without {names}", remaining)


def older_directory(journal: Journal) -> Iterator[Damaged]:
    for number, files in enumerate(journal.past):
        yield Damaged(f"as after step {number}", files)

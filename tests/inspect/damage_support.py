"""A journal with a long history, and many ways to damage it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from journal import JournalReader
from tests.inspect.inspect_support import (
    FRAME_BYTES,
    checkpoints,
    compact,
    flip,
    make,
    open_journal,
    put,
    segments,
)

LAST_LSN, CHECKPOINT_LSN = 45, 20


def history(path: Path) -> Path:
    """Make a journal of three epochs with 15 records each, the last three of each in one batch.

    The segments begin at LSN 7, 16, 22, 31 and 37, and the checkpoints are at LSN 8 and 20.
    """
    for epoch in range(3):
        with open_journal(path) as journal:
            for lsn in range(15 * epoch + 1, 15 * epoch + 13):
                put(journal, [lsn, "x" * 600])
                if lsn in (8, CHECKPOINT_LSN):
                    compact(journal, f"as of {lsn}")
            journal.wait_durable(journal.append_batch([[15 * epoch + n] for n in (13, 14, 15)]))
    assert [first_lsn(file) for file in segments(path)] == [7, 16, 22, 31, 37]
    return path


def first_lsn(file: Path) -> int:
    return int(file.name[:20])


def segment(path: Path, lsn: int) -> Path:
    (file,) = (file for file in segments(path) if first_lsn(file) == lsn)
    return file


def damage_frame(path: Path, lsn: int, at: int = FRAME_BYTES) -> None:
    """Damage one byte of the frame that holds `lsn`."""
    with JournalReader.open(path) as reader:
        (entry,) = islice(reader.entries(lsn - 1), 1)
    assert entry.path is not None
    assert entry.offset is not None
    flip(Path(entry.path), entry.offset + at)


def swap(one: Path, other: Path) -> None:
    ours, theirs = one.read_bytes(), other.read_bytes()
    one.write_bytes(theirs)
    other.write_bytes(ours)


def copy_as(file: Path, lsn: int, epoch: int) -> Path:
    return Path(shutil.copy(file, file.with_name(f"{lsn:020d}-{epoch:010d}.seg")))


def zero(file: Path, start: int, end: int) -> None:
    data = file.read_bytes()
    file.write_bytes(data[:start] + bytes(end - start) + data[end:])


def add_foreign(path: Path, take: Callable[[Path], Path]) -> None:
    """Put a file of another journal at `path`, under its own name."""
    shutil.copy(take(history(path.with_name("other"))), path)


def segment_beginning_at(path: Path, lsn: int) -> Path:
    """Return a segment of epoch 2 that begins at `lsn`, in a journal with none of these records."""
    other = path.with_name("begun")
    make(other, range(lsn - 1))
    with open_journal(other) as journal:
        put(journal, lsn)
    (*_, last) = segments(other)
    return last


def copy_and_damage(path: Path) -> None:
    copy_as(segment(path, 7), 8, 1)
    damage_frame(path, 32)


def damage_two_frames(path: Path) -> None:
    for lsn in (34, 26):
        damage_frame(path, lsn)


def flip_two_headers(path: Path) -> None:
    for lsn in (7, 31):
        flip(segment(path, lsn), 30)


def add_foreign_and_flip(path: Path) -> None:
    add_foreign(path, lambda other: checkpoints(other)[1])
    flip(segment(path, 16), 30)


# Each damage comes with the last LSN that can be recovered.
REFUSED: dict[str, tuple[Callable[[Path], Any], int]] = {
    "a missing segment in the middle": (lambda p: segment(p, 22).unlink(), 21),
    "a missing segment at the checkpoint": (lambda p: segment(p, 16).unlink(), 20),
    "no segments": (lambda p: list(map(Path.unlink, segments(p))), 20),
    "two swapped segments": (lambda p: swap(segment(p, 22), segment(p, 31)), 45),
    "two swapped covered segments": (lambda p: swap(segment(p, 7), segment(p, 16)), 45),
    "another journal's segment": (lambda p: add_foreign(p, lambda other: segment(other, 22)), 21),
    "another journal's checkpoint": (lambda p: add_foreign(p, lambda o: checkpoints(o)[1]), 45),
    "another journal's segment in a range": (
        lambda p: add_foreign(p, lambda other: segment_beginning_at(other, 24)), 45),
    "a copy in another segment's range": (lambda p: copy_as(segment(p, 22), 24, 2), 45),
    "a copy with a later epoch": (lambda p: copy_as(segment(p, 7), 24, 3), 45),
    "a copy in a batch": (lambda p: copy_as(segment(p, 37), 44, 3), 45),
    "copies everywhere": (
        lambda p: [copy_as(segment(p, 22), lsn, 2) for lsn in (9, 17, 18, 23, 24, 30)], 45),
    "a copy and damage": (copy_and_damage, 31),
    "a page of zeros": (lambda p: zero(segment(p, 22), 64, 4096), 21),
    "a file of zeros": (lambda p: zero(segment(p, 22), 0, 4096), 21),
    "an empty file": (lambda p: os.truncate(segment(p, 22), 0), 21),
    "a byte of a segment's header": (lambda p: flip(segment(p, 22), 30), 45),
    "a byte of the last segment's header": (lambda p: flip(segment(p, 37), 30), 45),
    "a byte of the first needed header": (lambda p: flip(segment(p, 16), 30), 45),
    "a byte of a record": (lambda p: damage_frame(p, 30), 27),
    "a byte of a frame's header": (lambda p: damage_frame(p, 30, 10), 27),
    "a byte of the last commit": (lambda p: damage_frame(p, 45), 42),
    "damage in two places": (damage_two_frames, 25),
    "the headers of a needed and a covered segment": (flip_two_headers, 45),
    "another journal's checkpoint and a damaged header": (add_foreign_and_flip, 45),
    "a checkpoint's copy after the end": (
        lambda p: shutil.copy(checkpoints(p)[1], p / f"checkpoint-{99:020d}.json"), 45),
}  # fmt: skip

"""Comparing: which of a mirror and a local directory has bytes that the other lacks.

A writer that has claimed the mirror compares before it recovers. A directory may be behind its
mirror: it is new, or a snapshot of the machine took it back to an earlier state. To recover it as
it is would cut acknowledged records off, in the mirror too. Only bytes decide, no clock and no
claim.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from journal._disk.disk import TMP, Directory, write_all
from journal._format.checkpoint import checkpoint_lsns
from journal._format.segment import SegmentName, is_zero, segment_names, segments_after
from journal._mirror.entry import Piece
from journal._mirror.reading import BEGINNING as FIRST
from journal._mirror.reading import read_log
from journal._mirror.store import Store
from journal._mirror.unshipped import BEGINNING, Cursor, sealed_bytes

Verdict = Literal["new", "equal", "behind", "ahead", "forked"]


class Comparison(NamedTuple):
    """The result of a comparison.

    verdict: "new" if the mirror has no bytes; "equal"; "behind" if only the directory lacks bytes;
    "ahead" if only the mirror does; "forked" if both do, or if bytes differ. cursor: the end of
    what the mirror has. missing: the bytes that the directory lacks, in the order of the log.
    """

    verdict: Verdict
    cursor: Cursor
    missing: list[Piece]


def compare(store: Store, directory: Directory) -> Comparison:
    """Compare a mirror with a local directory, which no writer may have open.

    Segments that a local checkpoint covers count as compacted, not as missing. Raises what the
    store and the disk raise, CorruptionError and MirrorDamageError.
    """
    names = directory.names()
    local = {name: sealed_bytes(directory, name) for name in segment_names(names)}
    cursor, ends = BEGINNING, dict[SegmentName, int]()
    missing, differing = list[Piece](), set[SegmentName]()
    for entry in read_log(store, FIRST):
        for piece in entry.pieces:
            name = segment_names([piece.name])[0]
            ends[name] = max(ends.get(name, 0), piece.end)
            lacking = _lacking(directory, piece) if name in local else [piece]
            if lacking is None:
                differing.add(name)
            missing += lacking or []
        cursor = cursor.after(entry.pieces)
    needed = {str(name) for name in segments_after(sorted(ends), _checkpoint_lsn(names))}
    missing = [piece for piece in missing if piece.name in needed]
    is_ahead = any(size > ends.get(name, 0) for name, size in local.items())
    if not ends:
        return Comparison("new", cursor, [])
    if differing or (missing and is_ahead):
        return Comparison("forked", cursor, [])
    return Comparison("behind" if missing else "ahead" if is_ahead else "equal", cursor, missing)


def _checkpoint_lsn(names: list[str]) -> int:
    return max(checkpoint_lsns(names), default=0)


def fetch(directory: Directory, missing: list[Piece]) -> None:
    """Write the bytes that the directory lacks, and sync them. After a crash, compare again.

    A new segment gets its name only when it is whole and synced.
    """
    names = directory.names()
    for name in dict.fromkeys(piece.name for piece in missing):
        is_new = name not in names
        unfinished = name + TMP
        if unfinished in names:
            directory.remove(unfinished)
        file = directory.open(unfinished, "create") if is_new else directory.open(name, "update")
        try:
            for piece in missing:
                if piece.name == name:
                    write_all(file, piece.data, piece.offset)
            file.sync()
        finally:
            file.close()
        if is_new:
            directory.rename_new(unfinished, name)
            directory.sync()


def _lacking(directory: Directory, piece: Piece) -> list[Piece] | None:
    """Return the part of a piece that the local segment lacks, or None if its bytes differ.

    A segment lacks what is after its end, and also zeros ahead of its log: a power cut may leave
    zeros where bytes were written.
    """
    file = directory.open(piece.name, "read")
    try:
        own = file.read(len(piece.data), piece.offset)
    finally:
        file.close()
    if own == piece.data:
        return []
    theirs = piece.data[: len(own)]
    same = next((at for at, (a, b) in enumerate(zip(own, theirs, strict=True)) if a != b), len(own))
    if not is_zero(own[same:]):
        return None
    return [Piece(piece.name, piece.offset + same, piece.data[same:])]

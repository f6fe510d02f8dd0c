"""Predict what a repair fixes in the files of a damaged journal before it cuts the log."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from tests.crash.damage_oracle import Evidence
from tests.crash.damaged_journal import Files, is_segment, lsn_of, places
from tests.independent_reader import (
    CHECKPOINT_NAME,
    FRAME_HEADER,
    FormatError,
    decode_checkpoint,
    decode_segment_header,
)


def fixed_by_repair(contents: Files, undamaged: Files) -> Files:
    """Return the files after a repair has given segments and checkpoints the names of what they
    contain, and rebuilt damaged headers that the frames confirm."""
    journal_id, moves = Evidence.of(undamaged).journal_id, dict[str, str]()
    for name in filter(is_segment, contents):
        with suppress(FormatError):
            header = decode_segment_header(contents[name])
            if header.name != name and header.journal_id == journal_id:
                moves[name] = header.name
    for name in filter(is_checkpoint, contents):
        with suppress(FormatError, ValueError):
            checkpoint = decode_checkpoint(contents[name])
            if checkpoint.lsn != lsn_of(name) and checkpoint.journal_id == journal_id:
                moves[name] = f"checkpoint-{checkpoint.lsn:020d}.json"
    claims = Counter(moves.values())
    moves = {name: new for name, new in moves.items() if claims[new] == 1}
    while stuck := [n for n, new in moves.items() if new in contents and new not in moves]:
        for name in stuck:
            del moves[name]
    fixed = {moves.get(name, name): data for name, data in contents.items()}
    for name in filter(is_segment, contents):
        data = contents[name]
        is_damaged = name not in moves and name in undamaged and not is_segment_header(data)
        if is_damaged and is_confirmed(data, undamaged[name]):
            fixed[name] = undamaged[name][:64] + data[64:]
    return fixed


def is_checkpoint(name: str) -> bool:
    return CHECKPOINT_NAME.fullmatch(name) is not None


def is_segment_header(data: bytes) -> bool:
    try:
        decode_segment_header(data)
    except FormatError:
        return False
    return True


def is_confirmed(data: bytes, undamaged: bytes) -> bool:
    """Return whether the first frame is whole, and the seed is stated or confirmed once more."""
    first, *others = places(undamaged)
    if len(data) < 64 or data[first.start : first.end] != undamaged[first.start : first.end]:
        return False
    crc, fields = slice(60, 64), slice(0, 60)
    if data[crc] == undamaged[crc] or data[fields] == undamaged[fields]:
        return True
    head = data[first.end : first.end + FRAME_HEADER.size]
    if any(head):
        return bool(others) and head == undamaged[first.end : first.end + FRAME_HEADER.size]
    return first.durable_lsn == first.first_lsn - 1

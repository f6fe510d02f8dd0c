"""Pieces: parts of what a command has printed on a worker, as messages carry them.

A position is the number of bytes that the command had printed to the stream before. All files of a
stream but the newest have the same size, so the numbers of the files state their positions.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple

from manager._remote.messages import Body, MessageError, text, whole
from manager.outputs import OutputDirectory, Part, owner_of, part_named

PIECE_BYTES_MAX = 256 << 10
"""The size of the data of the largest piece."""

POSITION_MAX = 1 << 62
"""The bound of positions. No stream gets that long."""

_PARTS_MAX = 1 << 40  # no runner writes that many; a command may have made such a name
_TRIES = 8
_STREAMS = ("out", "err")


class Wanted(NamedTuple):
    """A request for a piece of a stream of one start of an agent."""

    part: Part
    """The first file of the stream."""

    position: int
    """The position at which the piece begins, unless the files begin later."""

    @classmethod
    def of(cls, body: Body) -> Wanted:
        """Return the request in a message. Raises MessageError."""
        agent_id, stream = text(body.get("agent_id"), "agent_id"), body.get("stream")
        start, position = whole(body.get("start")), whole(body.get("position"))
        if stream not in _STREAMS or position >= POSITION_MAX:
            raise MessageError("not the name of a stream, or a position that none has")
        return cls(Part(owner_of(agent_id), start, stream, 0), position)


class Piece(NamedTuple):
    """A part of a stream."""

    is_known: bool
    """True if the worker has files of the stream."""

    position: int
    """The position of the data. What lies between it and the wanted position is not kept."""

    data: bytes
    """The data. It is empty if nothing more has been printed yet."""

    @classmethod
    def of(cls, body: Body, wanted_position: int) -> Piece:
        """Return the piece in a worker's answer. Raises MessageError."""
        is_known, data = body.get("is_known"), body.get("data")
        position = whole(body.get("position"), low=wanted_position)
        if type(is_known) is not bool or type(data) is not bytes or position >= POSITION_MAX:
            raise MessageError("not a piece of a stream")
        if len(data) > PIECE_BYTES_MAX:
            raise MessageError(f"a piece of {len(data)} bytes")
        return cls(is_known, position, data)


def read_piece(directory: OutputDirectory, wanted: Wanted, bytes_max: int) -> Piece:
    """Return a piece of at most `bytes_max` bytes. Raises OSError and UnsafePathError."""
    prefix = wanted.part.name.removesuffix("0")
    for _ in range(_TRIES):  # while this looks, the command may fill a file and remove another one
        names = [name for name in directory.names() if name.startswith(prefix)]
        parts = sorted(part for part in map(part_named, names) if part is not None)
        parts = [part for part in parts if part.number < _PARTS_MAX]
        if not parts:
            break
        with suppress(FileNotFoundError):
            piece = _read(directory, parts, wanted.position, bytes_max)
            if piece.position < POSITION_MAX:  # else a command has made these files
                return piece
    return Piece(False, wanted.position, b"")


def _read(directory: OutputDirectory, parts: list[Part], position: int, bytes_max: int) -> Piece:
    """Return a piece of these files, oldest first. Raises FileNotFoundError if one is gone."""
    first = directory.read(parts[0])
    try:
        size = os.fstat(first).st_size  # of each file but the newest
        position = max(position, parts[0].number * size)
        if len(parts) == 1 or position < (parts[0].number + 1) * size:
            offset = position - parts[0].number * size
            return Piece(True, position, os.pread(first, bytes_max, offset))
    finally:
        os.close(first)
    part = next((p for p in parts if position < (p.number + 1) * size), parts[-1])
    position = max(position, part.number * size)
    fd = directory.read(part)
    try:
        return Piece(True, position, os.pread(fd, bytes_max, position - part.number * size))
    finally:
        os.close(fd)

"""Pieces of blobs: an iterator for obstore, and files that nats-py reads and writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self


class Pieces:
    """An iterator over foreign pieces, which remembers the error that they raised."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.error: BaseException | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except StopIteration:
            raise
        except BaseException as error:
            self.error = error
            raise


class PiecesFile(Pieces):
    """A file to read, made of foreign pieces."""

    _piece = memoryview(b"")

    def readinto(self, buffer: Any) -> int:
        try:
            while not self._piece:
                self._piece = memoryview(next(self))
        except StopIteration:
            return 0
        size = min(len(buffer), len(self._piece))
        buffer[:size], self._piece = self._piece[:size], self._piece[size:]
        return size


class Content:
    """A file to write, which keeps the pieces."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, piece: bytes) -> None:
        self.pieces.append(piece)

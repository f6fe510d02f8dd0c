"""Pieces as files, from which nats-py reads a blob, and to which it writes one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class PiecesFile:
    """A file to read, made of foreign pieces. It remembers the error that they raised."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._piece = memoryview(b"")
        self.error: BaseException | None = None

    def readinto(self, buffer: Any) -> int:
        try:
            while not self._piece:
                self._piece = memoryview(next(self._pieces))
        except StopIteration:
            return 0
        except BaseException as error:
            self.error = error
            raise
        size = min(len(buffer), len(self._piece))
        buffer[:size], self._piece = self._piece[:size], self._piece[size:]
        return size


class Content:
    """A file to write, which keeps the pieces."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, piece: bytes) -> None:
        self.pieces.append(piece)

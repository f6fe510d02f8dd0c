"""Shelf: the output of a worker's commands, which its manager may read and remove."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from journal import UnsafePathError
from manager._remote import messages
from manager._remote.messages import Body, MessageError
from manager._remote.pieces import PIECE_BYTES_MAX, Wanted, read_piece
from manager.outputs import OutputDirectory, owner_of, part_named

VERBS = ("output", "forget")
"""The requests of a manager to a worker with a shelf."""

READS_MAX = 8
"""The number of requests that a worker answers at a time. Further ones get no answer. A manager
lets no more clients read, so that a worker with many readers does not look like one that has gone.
"""

_OVERHEAD_BYTES = 1024  # of an answer, beside its data


class Shelf:
    """The output files in the directory of a worker."""

    def __init__(self, directory: OutputDirectory) -> None:
        self._directory = directory

    async def answer(self, verb: str, body: Body, message_bytes_max: int) -> Body:
        """Return the answer to a request of the manager, which says what is wrong with it, or what
        the disk refuses."""
        return await asyncio.to_thread(self._answer, verb, body, message_bytes_max)

    def _answer(self, verb: str, body: Body, message_bytes_max: int) -> Body:
        try:
            if verb == "forget":
                self._remove(messages.texts(body.get("agent_ids"), "agent_ids"))
                return {}
            bytes_max = min(PIECE_BYTES_MAX, max(1, message_bytes_max - _OVERHEAD_BYTES))
            return read_piece(self._directory, Wanted.of(body), bytes_max)._asdict()
        except (MessageError, UnsafePathError) as error:
            text = str(error).encode(errors="replace").decode()  # a path may be any bytes
            return {"error": text[:_OVERHEAD_BYTES]}
        except OSError as error:
            return {"error": str(error.strerror)}

    def _remove(self, agent_ids: list[str]) -> None:
        owners = set(map(owner_of, agent_ids))
        for name in self._directory.names():
            part = part_named(name) if name.partition(".")[0] in owners else None
            if part is not None:
                with suppress(OSError):
                    self._directory.remove(part)

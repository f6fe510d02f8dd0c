"""Courier: sends a worker's requests to its manager, and ignores managers that are older than the
newest one it has heard from."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from manager import clock
from manager._remote import messages, subjects
from manager._remote.desk import LEASE_S
from manager._remote.link import Link, UnansweredError
from manager._remote.messages import Body, MessageError
from manager.errors import DispatchError

_log = logging.getLogger("manager")
_PAUSE_S, _PAUSE_S_MAX = 0.1, 2.0
_ANSWER_S = 3.0
_LEASE_S_MIN = 0.05


class Courier:
    """The requests of one worker. Use it in one event loop."""

    def __init__(
        self,
        link: Link,
        fleet: str,
        worker: str,
        is_free: Callable[[], bool],
        clock_s: Callable[[], float] = clock.monotonic,
    ) -> None:
        """Prepare requests. `is_free` returns whether no agents run in the worker, so that it may
        begin to work for another journal."""
        self._link = link
        self._fleet = fleet
        self._worker = worker
        self._is_free = is_free
        self._clock_s = clock_s
        # The name may be any bytes, and a message carries only UTF-8.
        self._machine = socket.gethostname().encode(errors="replace").decode()
        self.journal_id = ""
        """The journal that the worker works for, or "" before the first answer."""

        self._epochs: dict[str, int] = {}  # the highest that each journal's managers have named
        self.lease_s = LEASE_S
        """The time, in seconds, after which the manager gives up a silent worker."""

        self.lease_changed = asyncio.Event()
        """Set when a manager has named another `lease_s`. The worker's heartbeat clears it."""

        self.answered_s = clock_s()
        """The time of the last answer, by the clock."""

    @property
    def message_bytes_max(self) -> int:
        """The size of the largest message that the servers take."""
        return self._link.message_bytes_max

    @property
    def answer_s(self) -> float:
        """The time for which an answer is awaited, in seconds."""
        return min(self.lease_s / 3, _ANSWER_S)

    async def ask(self, verb: str, body: Body, journal_id: str) -> Body:
        """Return the answer of a manager of this journal. Repeat the request until there is one,
        but not while the worker works for another journal.

        Raises DispatchError if the manager speaks another version of the protocol.
        """
        pause_s = _PAUSE_S
        while True:
            if self.journal_id in ("", journal_id):
                answer = await self.try_to_ask(verb, body, self.answer_s)
                if answer is not None and self.journal_id == journal_id:
                    return answer
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_S_MAX)

    async def try_to_ask(self, verb: str, body: Body, timeout_s: float) -> Body | None:
        """Return the manager's answer, or None if there is none that counts. Raises DispatchError
        as `ask` does."""
        epoch = self._epochs.get(self.journal_id, 0)
        seen = {"worker": self._worker, "journal": self.journal_id, "epoch": epoch}
        seen["machine"] = self._machine
        data = messages.pack({**messages.versions(), **seen, **body})
        subject = subjects.to_manager(self._fleet, verb, self._worker)
        try:
            answer = messages.unpack(await self._link.ask(subject, data, timeout_s))
            if not self.heeds(answer):
                return None
        except UnansweredError:
            return None
        except MessageError as error:
            _log.warning("worker %s: an answer is %s", self._worker, error)
            return None
        self.answered_s = self._clock_s()
        if refusal := answer.get("error"):
            text = str(answer.get("text"))[:1000]
            if refusal == "version":
                raise DispatchError(f"the manager refuses worker {self._worker}: {text}")
            _log.warning("worker %s: the manager refuses a request: %s", self._worker, text)
            return None
        return answer

    def heeds(self, message: Body) -> bool:
        """Return whether a message is of a manager that this worker may obey: of the same journal,
        unless no agent runs here, and of no lower epoch than any before it of that journal.

        Raises MessageError, and DispatchError as `ask` does.
        """
        try:
            messages.common_version(message)
        except messages.VersionError as error:
            raise DispatchError(f"the manager of worker {self._worker} {error}") from None
        journal_id = messages.text(message.get("journal"), "journal")
        epoch = messages.whole(message.get("epoch"), low=1)
        if epoch < self._epochs.get(journal_id, 0):
            return False
        if journal_id != self.journal_id:
            if self.journal_id and not self._is_free():
                return False  # the leases of its agents are of another journal
            self.journal_id = journal_id
        self._epochs[journal_id] = epoch
        lease_s = max(messages.seconds(message.get("lease_s"), messages.LEASE_S_MAX), _LEASE_S_MIN)
        if lease_s != self.lease_s:
            self.lease_s = lease_s
            self.lease_changed.set()
        return True

"""Rivals: finds other managers at the address of a fleet, of which only one may serve workers.

A worker's request goes to any one of the managers that serve a fleet. With two of them, each would
miss some. So a manager asks for others before it serves, and every few seconds from then on: two
may have begun at the same time, or while the network was divided. The one that has served longer
without a break goes on. Their claims may cross, and each is older when it hears of the other than
the other was when it asked. So if they have served about as long, their keys decide.
"""

from __future__ import annotations

import asyncio
import os
import socket

from manager._remote import messages, subjects
from manager._remote.desk import Desk
from manager._remote.link import Link, UnansweredError
from manager._remote.messages import Body, MessageError
from manager.errors import DispatchError

_CLAIM_S = 5.0
_ANSWER_S = 1.0
_EQUAL_S = 1.0  # between the ages of two managers that have served about as long
_BREAK_S = 3 * _CLAIM_S
_SERVED_S_MAX = 1e12


class Rivals:
    """The other managers at the address of one manager's fleet. Use it in one event loop."""

    def __init__(self, link: Link, fleet: str, desk: Desk) -> None:
        self._link = link
        self._fleet = fleet
        self._desk = desk
        self._subject = subjects.claim(fleet)
        self._own = os.urandom(8).hex()
        self._machine = socket.gethostname().encode(errors="replace").decode()
        self._began_s: float | None = None
        self._looked_s = desk.clock_s()
        self._end: asyncio.Future[DispatchError] = asyncio.get_running_loop().create_future()

    async def check(self) -> None:
        """Ask for other managers. Raises DispatchError if this one must end because of another, or
        if its login may not ask."""
        served_s = self._served_s()
        try:
            answer = await self._link.ask(self._subject, self._claim(served_s), _ANSWER_S)
            if (error := self._judged(messages.unpack(answer), served_s)) is not None:
                raise error
        except UnansweredError as error:
            if error.is_forbidden:
                raise DispatchError(
                    f"the login may not publish to {self._subject}, so this manager can't find "
                    "another one of its fleet; its permissions are wrong"
                ) from error
        except MessageError:
            pass

    async def listen(self) -> None:
        """Begin to answer other managers. Raises DispatchError if the servers do not confirm it."""
        self._began_s = self._looked_s = self._desk.clock_s()
        await self._link.listen(self._subject, self._receive)

    async def watch(self) -> None:
        """Ask for other managers from time to time. Raises DispatchError as `check` does."""
        while True:
            await asyncio.wait((self._end,), timeout=_CLAIM_S)
            if self._end.done():
                raise self._end.result()
            await self.check()

    def _receive(self, data: bytes) -> bytes | None:
        """Return the answer to the claim of another manager. If that one goes on, return None, and
        let `watch` raise."""
        try:
            claim, served_s = messages.unpack(data), self._served_s()
            if claim.get("manager") == self._own:
                return None
            error = self._judged(claim, served_s)
        except MessageError:
            return None
        if error is None:
            return self._claim(served_s)
        if not self._end.done():
            self._end.set_result(error)
        return None

    def _claim(self, served_s: float | None) -> bytes:
        claim = {"manager": self._own, "machine": self._machine, "served_s": served_s}
        return messages.pack(self._desk.stamped(claim))

    def _served_s(self) -> float | None:
        """Return the time for which this manager has served, since it was last stopped or cut off.
        Return None if it does not serve yet.

        While it was stopped or cut off, another one may have begun.
        """
        if self._began_s is None:
            return None
        now_s = self._desk.clock_s()
        if now_s - self._looked_s > _BREAK_S or not self._link.is_connected:
            self._began_s = now_s
        self._looked_s = now_s
        return now_s - self._began_s

    def _judged(self, other: Body, served_s: float | None) -> DispatchError | None:
        """Return the error with which this manager ends because of another, or None if it goes on.

        Raises MessageError.
        """
        own = self._desk.stamped({})
        journal_id = messages.text(other.get("journal"), "journal")
        epoch = messages.whole(other.get("epoch"))
        machine = messages.text(other.get("machine"), "machine")[:255]
        key = messages.text(other.get("manager"), "manager")
        other_s = other.get("served_s")
        if other_s is not None:
            other_s = messages.seconds(other_s, _SERVED_S_MAX)
        if journal_id == own["journal"] and epoch != own["epoch"]:
            if epoch < own["epoch"]:
                return None
            return DispatchError(
                f"a newer manager of this journal has taken over on machine {machine!r}; this one "
                "must be closed"
            )
        if self._outlasts(key, other_s, served_s):
            return None
        which = "a copy of this journal" if journal_id == own["journal"] else "another journal"
        return DispatchError(
            f"a manager of {which} already serves the fleet {self._fleet!r}, on machine "
            f"{machine!r}; close that one, or give this fleet an address of its own, as in "
            "nats://HOST/NAME"
        )

    def _outlasts(self, key: str, other_s: float | None, served_s: float | None) -> bool:
        """Return whether this manager goes on, and not the other one. One of them serves."""
        if other_s is None or served_s is None:
            return other_s is None
        if abs(other_s - served_s) < _EQUAL_S:
            return key < self._own
        return other_s < served_s

"""A network in memory that loses, doubles and delays messages, in a loop with a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from manager._remote.link import Answer, Handler, Listener, UnansweredError
from tests.support import TIMEOUT_S

T = TypeVar("T")
MESSAGE_BYTES_MAX = 1 << 20
Fate = tuple[float, ...]
"""The delays, in seconds, after which the copies of a message arrive. () loses it."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when nothing else is to be done."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self.holds = 0  # while it is not 0, the clock stands still
        self._select = self._selector.select  # type: ignore[attr-defined]
        self._selector.select = self._jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now_s

    def _jump(self, timeout_s: float | None) -> Any:
        if timeout_s is None or self.holds:
            return self._select(10 if timeout_s != 0 else 0)  # another thread will wake the loop
        if not (events := self._select(0)):
            self._now_s += max(timeout_s, 1e-6)  # each turn takes time, as it does in any loop
        return events


def run(work: Awaitable[object]) -> None:
    """Run a coroutine in a loop with a real clock."""
    asyncio.run(asyncio.wait_for(work, TIMEOUT_S))


@contextmanager
def holding_time() -> Iterator[None]:
    """Let the clock stand still, because another thread does something that takes no time."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.holds += 1
    try:
        yield
    finally:
        loop.holds -= 1


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, as `asyncio.run` does, with a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class Network:
    """The servers of a fleet. Each subject has any number of services, which share its requests."""

    def __init__(self, fates: Iterator[Fate]) -> None:
        """Make a network. `fates` are those of all messages, in the order in which they are sent.
        After the last one, each message arrives at once."""
        self._fates = fates
        self.services: list[tuple[str, Handler, NetworkLink]] = []
        self.listeners: list[tuple[str, Listener, NetworkLink]] = []
        self.sent = 0
        self.claim_s = 0.0  # the time that a manager's claim takes to the others

    def send(self, deliver: Callable[[], None]) -> None:
        """Deliver copies of a message, as its fate says."""
        self.sent += 1
        loop = asyncio.get_running_loop()
        for delay_s in next(self._fates, (0.0,)):
            loop.call_later(delay_s, deliver)

    def service(self, subject: str) -> tuple[Handler, NetworkLink] | None:
        """Return the next service of a subject that can be reached, or None."""
        for index, (pattern, handler, link) in enumerate(self.services):
            if link.is_connected and _fits(pattern, subject):
                self.services.append(self.services.pop(index))  # in turn
                return handler, link
        return None


class NetworkLink:
    """A link through a network in memory."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.is_connected = True
        self.is_silent = False  # a manager does not know yet that the network has gone
        self.message_bytes_max = MESSAGE_BYTES_MAX

    async def reaches_server(self) -> bool:
        return self.is_connected and not self.is_silent

    async def ask(self, subject: str, data: bytes, timeout_s: float) -> bytes:
        assert len(data) <= self.message_bytes_max
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def arrive(answer: bytes) -> None:
            if self.is_connected and not answered.done():
                answered.set_result(answer)

        def deliver() -> None:
            service = self._network.service(subject)
            if service is not None:
                handler, link = service
                handler(subject, data, link.answerer(arrive))

        listeners = [each for each in self._network.listeners if each[0] == subject]
        if subject.endswith(".claim"):  # of managers: the fates are those of workers' messages
            if not listeners:
                raise UnansweredError(subject)  # as NATS reports at once
            await asyncio.sleep(self._network.claim_s)
            for _, listener, link in listeners:
                if self.is_connected and link.is_connected:
                    answer = listener(data)
                    if answer is not None:
                        arrive(answer)
        elif self.is_connected:
            self._network.send(deliver)
        try:
            return await asyncio.wait_for(answered, timeout_s)
        except TimeoutError:
            raise UnansweredError(subject) from None

    def answerer(self, arrive: Callable[[bytes], None]) -> Answer:
        """Return how a service at this end answers a request."""

        async def answer(data: bytes) -> None:
            assert len(data) <= self.message_bytes_max
            if self.is_connected:
                self._network.send(lambda: arrive(data))

        return answer

    async def serve(self, name: str, subjects: dict[str, str], handler: Handler) -> None:
        assert name
        self._network.services += [(subject, handler, self) for subject in subjects.values()]

    async def listen(self, subject: str, handler: Listener) -> None:
        self._network.listeners.append((subject, handler, self))

    async def stop_serving(self) -> None:
        self._network.services[:] = [s for s in self._network.services if s[2] is not self]

    async def close(self) -> None:
        self.is_connected = False
        self._network.listeners[:] = [s for s in self._network.listeners if s[2] is not self]
        self._network.services[:] = [s for s in self._network.services if s[2] is not self]


def _fits(pattern: str, subject: str) -> bool:
    parts, words = pattern.split("."), subject.split(".")
    return len(parts) == len(words) and all(
        part in ("*", word) for part, word in zip(parts, words, strict=True)
    )

"""Outbox: the reports of one lease, sent in order, each until the manager has recorded it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from manager._remote.courier import Courier
from manager._remote.messages import Body, Lease
from manager.waking import call_in_loop

_OVERHEAD_BYTES = 4096  # of a report, beside its body
_LOOK_S = 0.1  # between two checks of another event loop whether the reports have ended
_PROGRESS_MAX = 64  # events of progress of one agent that wait to be sent; older ones are dropped


@dataclass(slots=True)
class _Report:
    sequence: int
    kind: str
    body: Body
    answered: asyncio.Future[Body]


class Outbox:
    """The reports of one lease. They end with the lease. Use it in the event loop that made it; any
    loop may call `ask` and `tell`."""

    def __init__(
        self,
        courier: Courier,
        journal_id: str,
        lease: Lease,
        on_over: Callable[[], None],
        *,
        sequence: int = 0,
    ) -> None:
        """Prepare an outbox for a lease of this journal. `on_over` is called once the manager says
        that the lease is over."""
        self._courier = courier
        self._journal_id = journal_id
        self._lease = lease
        self._on_over = on_over
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Report] = deque()
        self.sequence = sequence
        """The number of the newest report."""

        self._is_over = False
        self._is_closed = False
        self._sender: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """True if the manager wants no more reports of this lease."""
        return self._is_over

    @property
    def body_bytes_max(self) -> int:
        """The size of the largest body of a report that the servers carry."""
        return self._courier.message_bytes_max - _OVERHEAD_BYTES

    async def ask(self, kind: str, body: Body) -> Body:
        """Send a report after those before it, and return its answer. Any event loop may call
        this."""
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return await self.post(kind, body)
        answered: asyncio.Future[Body] = loop.create_future()

        def pass_on() -> None:
            self.post(kind, body).add_done_callback(answer)

        def answer(posted: asyncio.Future[Body]) -> None:
            if not posted.cancelled():
                call_in_loop(loop, _resolve, answered, posted.result())

        call_in_loop(self._loop, pass_on)
        # The loop of the reports may end before it has answered.
        while not (answered.done() or self._is_over or self._is_closed or self._loop.is_closed()):
            await asyncio.wait((answered,), timeout=_LOOK_S)
        return answered.result() if answered.done() else {"outcome": "over"}

    def tell(self, kind: str, body: Body) -> None:
        """Send a report after those before it. Any event loop may call this."""

        def post() -> None:
            self.post(kind, body)

        if asyncio.get_running_loop() is self._loop:
            post()
        else:
            call_in_loop(self._loop, post)

    def post(self, kind: str, body: Body) -> asyncio.Future[Body]:
        """Send a report after those before it, and return a future of its answer. It is cancelled
        if the worker ends."""
        answered: asyncio.Future[Body] = asyncio.get_running_loop().create_future()
        if self._is_over:
            answered.set_result({"outcome": "over"})
            return answered
        if self._is_closed:
            answered.cancel()
            return answered
        self.sequence += 1
        self._waiting.append(_Report(self.sequence, kind, body, answered))
        if kind == "progress":
            self._drop_old_progress()
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())
        return answered

    def end(self) -> None:
        """Send nothing more, because the lease is over."""
        if not self._is_over:
            self._is_over = True
            while self._waiting:
                _resolve(self._waiting.popleft().answered, {"outcome": "over"})
            if self._sender is not None:
                self._sender.cancel()
            self._on_over()

    def close(self) -> None:
        """Send nothing more, because the worker ends. The waiters for answers are cancelled."""
        self._is_closed = True
        if self._sender is not None:
            self._sender.cancel()
        while self._waiting:
            self._waiting.popleft().answered.cancel()

    async def _send(self) -> None:
        while self._waiting:
            report = self._waiting[0]
            request = {
                "lease": self._lease.message,
                "sequence": report.sequence,
                "kind": report.kind,
                "body": report.body,
            }
            answer = await self._courier.ask("report", request, self._journal_id)
            if answer.get("outcome") == "over":
                self._sender = None
                self.end()
                return
            if self._waiting and self._waiting[0] is report:
                self._waiting.popleft()
            _resolve(report.answered, answer)
        self._sender = None

    def _drop_old_progress(self) -> None:
        # The first report may have been recorded already, so it is not dropped.
        later = islice(self._waiting, 1, None)
        events = [report for report in later if report.kind == "progress"]
        if len(events) > _PROGRESS_MAX:
            self._waiting.remove(events[0])
            _resolve(events[0].answered, {"outcome": "dropped"})


def _resolve(answered: asyncio.Future[Body], answer: Body) -> None:
    if not answered.done():
        answered.set_result(answer)

"""Outbox: the reports of one lease, sent in order, each until the manager has recorded it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from manager._remote.courier import Courier
from manager._remote.messages import Body, Lease

_OVERHEAD_BYTES = 4096  # of a report, beside its body
_PROGRESS_MAX = 64  # events of progress of one agent that wait to be sent; older ones are dropped


@dataclass(slots=True)
class _Report:
    sequence: int
    kind: str
    body: Body
    answered: asyncio.Future[Body]


class Outbox:
    """The reports of one lease. They end with the lease."""

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
        self._waiting: deque[_Report] = deque()
        self.sequence = sequence
        """The number of the newest report."""

        self._is_over = False
        self._sender: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """True if the manager wants no more reports of this lease."""
        return self._is_over

    @property
    def body_bytes_max(self) -> int:
        """The size of the largest body of a report that the servers carry."""
        return self._courier.message_bytes_max - _OVERHEAD_BYTES

    def post(self, kind: str, body: Body) -> asyncio.Future[Body]:
        """Send a report after those before it, and return a future of its answer."""
        answered: asyncio.Future[Body] = asyncio.get_running_loop().create_future()
        if self._is_over:
            answered.set_result({"outcome": "over"})
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
                _resolve(self._waiting.popleft(), {"outcome": "over"})
            if self._sender is not None:
                self._sender.cancel()
            self._on_over()

    def close(self) -> None:
        """Stop sending, because the worker ends."""
        if self._sender is not None:
            self._sender.cancel()

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
            _resolve(report, answer)
        self._sender = None

    def _drop_old_progress(self) -> None:
        # The first report may have been recorded already, so it is not dropped.
        later = islice(self._waiting, 1, None)
        events = [report for report in later if report.kind == "progress"]
        if len(events) > _PROGRESS_MAX:
            self._waiting.remove(events[0])
            _resolve(events[0], {"outcome": "dropped"})


def _resolve(report: _Report, answer: Any) -> None:
    if not report.answered.done():
        report.answered.set_result(answer)

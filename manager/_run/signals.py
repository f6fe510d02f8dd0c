"""Signals: the handlers of the signals that stop a run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import Signals
from types import FrameType
from typing import Any, Self

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """A handler of SIGINT, SIGTERM and SIGHUP. They raise SystemExit, except within `delivered_to`.

    A SIGHUP that was ignored before stays ignored, so that a run under `nohup` goes on. Signals
    that the parent has blocked are unblocked, so that they stop the run. A SIGCHLD
    that was ignored gets its default: otherwise the system would reap each command, its exit code
    would be lost, and a signal could reach a stranger of the same number.
    """

    def __init__(self) -> None:
        self.has_come = False
        """True once one of the signals has arrived."""

        self.has_given_up = False
        """True once the run has given up what the disk has not taken."""

        self._deliver: Callable[[Signals], object] | None = None
        self._old_handlers: dict[Signals, Any] = {}
        self._old_mask: set[int | Signals] = set()

    def __enter__(self) -> Self:
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
            self._old_handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in _STOPPING:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._old_handlers[number] = signal.signal(number, self._on_signal)
        self._old_mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
        return self

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._old_mask)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)

    @contextmanager
    def delivered_to(self, deliver: Callable[[Signals], object]) -> Iterator[None]:
        """Call `deliver` with each signal that arrives during the block."""
        self._deliver = deliver
        try:
            yield
        finally:
            self._deliver = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.has_come = True
        if self._deliver is None:
            raise SystemExit(128 + number)
        self._deliver(Signals(number))

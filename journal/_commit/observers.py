"""Observers: tells them of events, in the engine's threads, and logs what they raise.

No signal handler runs in those threads, so every exception there is an observer's. In a caller's
thread it could not be told from a signal handler's.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from journal._log import post
from journal._mutex import Alarm

if TYPE_CHECKING:
    from journal.metrics import Observer

Event = Callable[["Observer"], None]


class Observers:
    """The observers of a journal, and the events that the flusher has yet to tell them."""

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm  # what the flusher sleeps on
        self.all: tuple[Observer, ...] = ()
        # Changed by single atomic operations only.
        self.queued: deque[tuple[Event, tuple[Observer, ...]]] = deque()

    def add(self, observer: Observer) -> None:
        """Tell `observer` of all events from now on."""
        self.all += (observer,)

    def tell(self, event: Event) -> None:
        """Call the observers, in one of the engine's threads."""
        _notify(event, self.all)

    def queue(self, event: Event) -> None:
        """Have the flusher call the observers, for a caller's thread."""
        if self.all:
            self.queued.append((event, self.all))
            self._alarm.wake()

    def notify_queued(self) -> None:
        """Call the observers for all events in the queue. Called by the flusher only."""
        while self.queued:
            _notify(*self.queued.popleft())


def _notify(event: Event, observers: tuple[Observer, ...]) -> None:
    for observer in observers:
        try:
            event(observer)
        except BaseException as error:
            post(
                logging.ERROR,
                "an observer raised, so it missed an event: fix %s",
                type(observer).__qualname__,
                error=error,
            )

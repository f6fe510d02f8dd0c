"""Observers: calls the observers in the engine's threads, and logs the exceptions they raise.

No signal handler runs in those threads, so every exception there comes from an observer. In a
caller's thread, it might as well come from a signal handler.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from journal._log import post
from journal._mutex import Alarm
from journal._waits import refuse

if TYPE_CHECKING:
    from journal.metrics import Observer

Event = Callable[["Observer"], None]
_EVENTS = ("committed", "stalled", "compacted", "compaction_failed", "failed")


def _check(observer: object) -> None:
    """Raise TypeError for a class, and for an object that receives no event."""
    if isinstance(observer, type):
        rule = f"observer must be an instance, such as {observer.__name__}(), and no class"
        refuse(TypeError, rule, observer)
    if not any(callable(getattr(observer, event, None)) for event in _EVENTS):
        refuse(TypeError, "observer must have the methods of Observer", observer)


class Observers:
    """The observers of a journal, and the events that the flusher has yet to report."""

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm  # wakes the flusher
        self.all: tuple[Observer, ...] = ()
        # Changed only by single atomic operations.
        self.queued: deque[tuple[Event, tuple[Observer, ...]]] = deque()

    def add(self, observer: Observer) -> None:
        """Report all events to `observer` from now on. Raises TypeError if it is none."""
        _check(observer)
        self.all += (observer,)

    def notify(self, event: Event) -> None:
        """Call the observers now. Only the engine's threads may do so."""
        _notify(event, self.all)

    def queue(self, event: Event) -> None:
        """Let the flusher call the observers, for an event in a caller's thread."""
        if self.all:
            self.queued.append((event, self.all))
            self._alarm.wake()

    def notify_queued(self) -> None:
        """Call the observers for all queued events. Only the flusher calls this, and after its end
        the thread of a mirror."""
        while self.queued:
            try:
                event, observers = self.queued.popleft()
            except IndexError:  # the other thread has just taken it
                return
            _notify(event, observers)


def _notify(event: Event, observers: tuple[Observer, ...]) -> None:
    for observer in observers:
        try:
            event(observer)
        except BaseException as error:
            post(
                logging.ERROR,
                "an observer raised an exception and missed an event; fix %s",
                type(observer).__qualname__,
                error=error,
            )

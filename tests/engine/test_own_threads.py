"""Calls that observers and finalizers make in a thread of the engine.

A garbage collection runs finalizers in whatever thread makes it due.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from journal import ClosedError, InterruptedCallError, Journal
from journal.testing import SimulatedDisk
from tests.engine.waiting_support import wait_durable, wait_room
from tests.support import frozen, open_on, put, until


class Calling:
    """An observer that makes a call at each event of one kind, in a thread of the engine."""

    def __init__(self, event: str, call: Callable[[], object]) -> None:
        self.errors: list[BaseException | None] = []
        setattr(self, event, self._observe)
        self._call = call

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_: None

    def _observe(self, *_: object) -> None:
        try:
            self._call()
        except BaseException as error:
            self.errors.append(error)
        else:
            self.errors.append(None)


def compact(journal: Journal) -> None:
    journal.compact(frozen(journal)).close()


@pytest.mark.parametrize("call", [wait_durable, wait_room, compact, Journal.close])
def test_a_call_that_would_wait_for_the_flusher_is_refused_in_its_thread(
    disk: SimulatedDisk, call: Callable[[Journal], object]
) -> None:
    """An observer, or a finalizer that a garbage collection runs in the flusher's thread, is
    refused a call that would wait for that thread. The journal continues."""
    with open_on(disk) as journal:
        observer = Calling("committed", lambda: call(journal))
        journal.observe(observer)
        put(journal, 1)
        until(lambda: observer.errors, "the call")
        put(journal, 2)
    assert type(observer.errors[0]) is InterruptedCallError


@pytest.mark.parametrize("call", [wait_room, Journal.close])
def test_a_call_that_would_wait_for_the_compactor_is_refused_in_its_thread(
    disk: SimulatedDisk, call: Callable[[Journal], object]
) -> None:
    """An observer or a finalizer in the compactor's thread can't wait for that thread. The journal
    continues."""
    with open_on(disk, checkpoint_min_bytes=100) as journal:
        observer = Calling("compacted", lambda: call(journal))
        journal.observe(observer)
        journal.start_compaction(frozen(journal))
        put(journal, "x" * 200)
        until(lambda: observer.errors, "the call")
        put(journal, 2)
    assert type(observer.errors[0]) is InterruptedCallError


def test_a_thread_of_a_forked_child_is_not_taken_for_the_flusher(tmp_path: Path) -> None:
    """The system may give the id of a thread of the parent to one of the child."""
    with Journal.open(tmp_path / "j") as journal:
        journal.append_and_wait(1)
        child = os.fork()
        if not child:
            if journal._turn.own_ids:
                journal._turn.own_ids.add(threading.get_ident())
            code = 1
            with suppress(BaseException):
                try:
                    journal.append_and_wait(2)
                except ClosedError:
                    code = 0
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

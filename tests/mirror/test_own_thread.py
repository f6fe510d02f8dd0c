"""Calls that finalizers make in the shipper's thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from journal import InterruptedCallError, Journal
from journal._mirror.memory_store import MemoryStore
from journal._mirror.restoring import restore_into
from tests.engine.waiting_support import wait_durable, wait_room
from tests.mirror.stores import TIMEOUT_S, opened, write
from tests.support import until


class CallingStore(MemoryStore):
    """A store in whose next upload a call is made, as by a finalizer in the shipper's thread."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []
        self.errors: list[BaseException] = []

    def append(self, number: int, data: bytes) -> None:
        if self.calls:
            try:
                self.calls.pop()()
            except BaseException as error:
                self.errors.append(error)
        super().append(number, data)


def wait_mirrored(journal: Journal) -> None:
    journal.wait_mirrored(journal.append(1), timeout_s=TIMEOUT_S)


@pytest.mark.parametrize(
    ("ack", "call"),
    [
        ("remote", wait_durable),
        ("remote", wait_mirrored),
        ("remote", wait_room),
        ("remote", Journal.close),
        ("local", wait_mirrored),
    ],
)
def test_a_call_that_would_wait_for_the_shipper_is_refused_in_its_thread(
    tmp_path: Path, ack: str, call: Callable[[Journal], object]
) -> None:
    """A finalizer that a garbage collection runs in the shipper's thread can't wait for that
    thread. The journal continues."""
    store = CallingStore()
    with opened(tmp_path / "a", store, ack=ack) as journal:
        store.calls.append(lambda: call(journal))
        write(journal, 2)
        until(lambda: store.errors, "the call")
    assert [type(error) for error in store.errors] == [InterruptedCallError]
    assert restore_into(store, tmp_path / "r").lsn == journal.last_lsn

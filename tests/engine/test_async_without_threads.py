"""Closing in an event loop when the process may start no more threads."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from journal.testing import SimulatedDisk
from tests.engine.test_async_handle import (
    CHANGES,
    KINDS,
    OPENERS,
    anext_of,
    assert_free,
    reached,
    run,
)
from tests.support import Held, open_on


def refuse_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each start of a thread fail, as the interpreter does at a limit of the system."""

    def refuse(*arguments: Any, **named: Any) -> int:
        raise RuntimeError("can't start new thread")

    for name in ("_start_new_thread", "_start_joinable_thread"):  # before and since CPython 3.13
        if hasattr(threading, name):
            monkeypatch.setattr(threading, name, refuse)


@KINDS
def test_a_close_needs_no_thread(
    disk: SimulatedDisk, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a thread for it, the close is made in the loop's thread: all changes are durable,
    and nobody holds the lock."""

    async def main() -> None:
        with monkeypatch.context() as patch:
            async with OPENERS[kind](disk) as handle:
                CHANGES[kind](handle)
                refuse_threads(patch)
            assert handle.closed
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await OPENERS[kind](disk)

    run(main())
    assert_free(disk)
    with open_on(disk) as journal:
        assert journal.last_lsn > 0


def test_a_cancelled_open_is_closed_without_a_thread(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handle of a cancelled open is closed, too, and the cancellation goes on."""

    async def main() -> None:
        with monkeypatch.context() as patch, Held(disk, "lock") as held:
            opening = asyncio.create_task(anext_of(OPENERS["Journal"](disk)))
            await reached(held)
            opening.cancel()
            await asyncio.sleep(0)
            patch.setattr("journal._engine.async_handle.threading.Thread.start", refuse_start())
            held.release_all()
            with pytest.raises(asyncio.CancelledError):
                await opening

    run(main())
    assert_free(disk)


def refuse_start() -> Any:
    """Return a Thread.start that starts the journal's own threads, and no other ones."""
    start = threading.Thread.start

    def start_own(thread: threading.Thread) -> None:
        if thread.name == "journal-call":
            raise RuntimeError("can't start new thread")
        start(thread)

    return start_own

"""Opens whose event loop ends before they do."""

from __future__ import annotations

import asyncio
import gc

from journal.testing import SimulatedDisk
from tests.engine.test_async_handle import (
    KINDS,
    OPENERS,
    anext_of,
    assert_free,
    engine_threads,
    reached,
)
from tests.support import Held, until


@KINDS
def test_an_open_whose_loop_is_closed_first_is_closed(disk: SimulatedDisk, kind: str) -> None:
    """If the loop was stopped and closed during the open, the thread closes what it opens, even
    though nothing has closed the coroutine."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(anext_of(OPENERS[kind](disk)))
    gc.disable()  # a collection would close the coroutine, and the handle
    try:
        with Held(disk, "lock") as held:
            loop.run_until_complete(reached(held))
            loop.close()
            held.release_all()
            until(lambda: not engine_threads(), "the thread has ended")
        assert_free(disk)
    finally:
        gc.enable()
    task._log_destroy_pending = False  # type: ignore[attr-defined]

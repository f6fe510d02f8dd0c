"""The thread that holds the connection to a stream."""

from __future__ import annotations

import asyncio

import pytest

from journal._mirror.urls import open_store
from tests.mirror.servers import make_stream
from tests.support import foreign_loop


def test_the_thread_runs_no_loop_of_the_program_s_policy(
    nats_address: str, fresh_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream is used where a loop that the program's policy makes can't run in a thread."""
    make_stream(nats_address, fresh_name)
    monkeypatch.setattr(asyncio, "new_event_loop", foreign_loop)
    store = open_store(f"nats://{nats_address}/{fresh_name}")
    store.append(1, b"a")
    store.close()

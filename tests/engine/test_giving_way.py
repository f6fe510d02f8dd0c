"""A thread that reads a large file lets others run."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from journal import Journal
from journal._disk import giving_way
from journal._disk.giving_way import give_way
from tests.engine.compaction_support import compact

CHUNKS = 5  # of 64 KiB


class Clock:
    """The clock of each thread's processor time, which counts the pauses."""

    def __init__(self) -> None:
        self.now_ns = 10**9
        self.tick_ns = 0  # for each reading
        self.pauses: list[str] = []  # the names of the threads

    def thread_time_ns(self) -> int:
        self.now_ns += self.tick_ns
        return self.now_ns

    def sleep(self, pause_s: float) -> None:
        assert 0 < pause_s < 0.01
        self.pauses.append(threading.current_thread().name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return a clock whose thread has just paused, beside another thread."""
    clock = Clock()
    monkeypatch.setattr(giving_way, "thread_time_ns", clock.thread_time_ns)
    monkeypatch.setattr(giving_way, "sleep", clock.sleep)
    monkeypatch.setattr(giving_way._last_pause, "at_ns", clock.now_ns)
    monkeypatch.setattr(giving_way, "active_count", lambda: 2)
    return clock


def test_a_thread_pauses_after_each_step(clock: Clock) -> None:
    """It pauses once it has used the processor for a step, and a pause begins the next step."""
    for used_ns, pauses in ((0, 0), (999_999, 0), (1, 1), (999_999, 1), (1, 2), (10**9, 3), (0, 3)):
        clock.now_ns += used_ns
        give_way()
        assert len(clock.pauses) == pauses


def test_a_thread_of_a_forked_child_pauses_too(clock: Clock) -> None:
    """Its clock begins at 0, before the last pause that its parent has noted."""
    for now_ns, pauses in ((0, 1), (999_999, 1), (10**6, 2)):
        clock.now_ns = now_ns
        give_way()
        assert len(clock.pauses) == pauses


def test_a_lone_thread_does_not_pause(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open at the start of a program takes no longer."""
    monkeypatch.setattr(giving_way, "active_count", lambda: 1)
    clock.now_ns += 10**9
    give_way()
    assert not clock.pauses


def test_compactions_and_opens_pause_between_reads(tmp_path: Path, clock: Clock) -> None:
    """P7: Threads and event loops run while a large checkpoint is read."""
    clock.tick_ns = 10**7
    with Journal.open(tmp_path) as journal:
        before = len(clock.pauses)
        compact(journal, *["x" * (1 << 16)] * CHUNKS).close()
        assert len(clock.pauses) >= before + CHUNKS

    async def opened() -> None:
        async with Journal.aopen(tmp_path):
            pass

    clock.pauses.clear()
    asyncio.run(opened())
    assert len(clock.pauses) >= CHUNKS
    assert threading.main_thread().name not in clock.pauses

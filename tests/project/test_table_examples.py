"""The programs of the how-to guide on tables: a cache, a queue and sessions."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import ConflictError, FailedError, Tables
from journal.testing import SimulatedDisk, lose
from tests.project.page_support import ROOT, blocks_of
from tests.support import TIMEOUT_S
from tests.tables.tables_support import open_tables, rows

PAGE = ROOT / "journal" / "docs" / "HOWTO.md"
TITLE = "\n## Build a cache, a queue and sessions\n"
SOURCES = {
    block.saved_as.removesuffix(".py"): block.text
    for block in blocks_of(PAGE.read_text().partition(TITLE)[2].partition("\n## ")[0])
    if block.saved_as
}


class Clock:
    """The clock of a program and of its disk, in place of the module `time`."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        disk.tick_ns = 0

    def time(self) -> float:
        return self.disk.clock_ns / 10**9

    def time_ns(self) -> int:
        return self.disk.clock_ns

    def advance(self, ms: int) -> None:
        self.disk.clock_ns += ms * 10**6


def load(name: str, clock: Clock) -> Any:
    module = ModuleType(name)
    exec(compile(SOURCES[name], name, "exec"), module.__dict__)
    vars(module)["time"] = clock
    return module


def reopened(disk: SimulatedDisk, app: Tables) -> Tables:
    """Cut the power, and reopen the tables."""
    disk.power_cut(lose)
    with suppress(FailedError):
        app.close(timeout_s=TIMEOUT_S)
    return open_tables(disk)


KEYS = st.integers(0, 5)


TTL_MS = 3000
CALLS = st.tuples(st.sampled_from(["get", "put"]), KEYS, st.integers(0, 3))


@given(st.lists(CALLS | st.tuples(st.just("wait"), st.just(0), st.just(0)), max_size=30),
       st.integers(1, 4))  # fmt: skip
def test_the_cache_keeps_the_entries_used_last(
    calls: list[tuple[str, int, int]], size: int
) -> None:
    """The cache behaves like an OrderedDict with a limit, from which no expired entry is read."""
    model: OrderedDict[int, tuple[int, int]] = OrderedDict()  # values, and when they expire
    disk = SimulatedDisk()
    clock = Clock(disk)
    now_ms = 0
    with open_tables(disk) as app:
        cache = load("cache", clock).Cache(app, size, TTL_MS / 1000)
        for call, key, value in calls:
            if call == "wait":
                now_ms += 1000
                clock.advance(1000)
            elif call == "put":
                cache.put(key, value)
                model[key] = value, now_ms + TTL_MS
                model.move_to_end(key)
                if len(model) > size:
                    model.popitem(last=False)
            elif key in model and now_ms < model[key][1]:
                assert cache.get(key) == model[key][0]
                model.move_to_end(key)
            else:
                with pytest.raises(KeyError):
                    cache.get(key)
            assert [found for _, found in cache.turns.items()] == list(model)
            assert [cache.entries[found][2] for found in model] == [
                row[0] for row in model.values()
            ]
            assert len(cache.entries) == len(model)


def test_a_cache_with_a_smaller_size_does_not_grow() -> None:
    """A cache that is opened with a smaller size has at most as many entries as it had."""
    disk = SimulatedDisk()
    module = load("cache", Clock(disk))
    with open_tables(disk) as app:
        for size in (4, 2):
            for number in range(10):
                module.Cache(app, size).put(10 * size + number, 0)
        assert len(app.table("entries")) == 4


def test_the_queue_loses_no_job_and_repeats_none_that_is_done() -> None:
    """P2: A power cut after `put`, `take` or `done` returned does not undo it."""
    disk = SimulatedDisk()
    clock = Clock(disk)
    module = load("jobs", clock)
    app = open_tables(disk)
    module.Queue(app).put("a")
    clock.advance(1)
    app = reopened(disk, app)
    queue = module.Queue(app)
    queue.put("b")
    lease, job = queue.take()
    assert job == "a"
    app = reopened(disk, app)
    queue = module.Queue(app)
    queue.done(lease)
    for _ in range(queue.attempts):
        app = reopened(disk, app)
        queue = module.Queue(app)
        assert queue.take()[1] == "b"
        clock.advance(queue.lease_ms)
    app = reopened(disk, app)
    queue = module.Queue(app)
    assert queue.take() is None  # even if the job has killed the process each time
    assert list(rows(queue.failed).values()) == ["b"]
    app.close()


def test_the_queue_hands_a_job_out_again_when_its_lease_expires() -> None:
    """A job whose lease expires is handed out `attempts` times; a late `done` is refused."""
    disk = SimulatedDisk()
    clock = Clock(disk)
    with open_tables(disk) as app:
        queue = load("jobs", clock).Queue(app, lease_s=1, attempts=2)
        queue.put("a")
        first, _ = queue.take()
        assert queue.take() is None
        clock.advance(1000)
        second, job = queue.take()
        assert job == "a"
        with pytest.raises(ConflictError):
            queue.done(first)
        clock.advance(1000)
        assert queue.take() is None
        with pytest.raises(ConflictError):
            queue.done(second)
        assert not queue.jobs
        assert list(rows(queue.failed).values()) == ["a"]


def test_sessions_expire_after_their_last_use() -> None:
    """A power cut loses no session that `begin` returned, and brings back none that was ended."""
    disk = SimulatedDisk()
    clock = Clock(disk)
    module = load("sessions", clock)
    app = open_tables(disk)
    token = module.Sessions(app, ttl_s=1).begin({"user": "ada"})
    app = reopened(disk, app)
    sessions = module.Sessions(app, ttl_s=1)
    other = sessions.begin({"user": "bob"})
    for _ in range(3):
        clock.advance(999)
        assert sessions.get(token) == {"user": "ada"}
    for call in (sessions.get, sessions.end):
        with pytest.raises(KeyError):
            call(other)
    assert list(sessions.sessions) == [token]
    sessions.end(token)
    app = reopened(disk, app)
    with pytest.raises(KeyError):
        module.Sessions(app, ttl_s=1).get(token)
    app.compact()
    assert len(app.table("sessions")) == 0
    app.close()


def test_the_programs_are_short() -> None:
    """Each program has at most 30 lines of code, without empty lines and docstrings."""
    lines = {
        name: sum(bool(line.strip()) and '"""' not in line for line in source.splitlines())
        for name, source in SOURCES.items()
    }
    assert lines.keys() == {"cache", "jobs", "sessions"}
    assert max(lines.values()) <= 30, lines

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
from tests.engine.tables_support import open_tables, rows
from tests.project.page_support import ROOT, blocks_of
from tests.support import TIMEOUT_S

PAGE = ROOT / "journal" / "docs" / "HOWTO.md"
TITLE = "\n## Build a cache, a queue and sessions\n"
SOURCES = {
    block.saved_as.removesuffix(".py"): block.text
    for block in blocks_of(PAGE.read_text().partition(TITLE)[2].partition("\n## ")[0])
    if block.saved_as
}


class Clock:
    """The programs' clock, in milliseconds."""

    now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


def load(name: str, clock: Clock | None = None) -> Any:
    module = ModuleType(name)
    exec(compile(SOURCES[name], name, "exec"), module.__dict__)
    if clock:
        vars(module)["now_ms"] = clock
    return module


def reopened(disk: SimulatedDisk, app: Tables) -> Tables:
    """Cut the power, and reopen the tables."""
    disk.power_cut(lose)
    with suppress(FailedError):
        app.close(timeout_s=TIMEOUT_S)
    return open_tables(disk)


KEYS = st.integers(0, 5)


@given(st.lists(st.tuples(KEYS, st.none() | st.integers(0, 3)), max_size=30), st.integers(1, 4))
def test_the_cache_keeps_the_entries_used_last(
    calls: list[tuple[int, int | None]], size: int
) -> None:
    """The cache behaves like an OrderedDict with a limit; None in place of a value is a `get`."""
    model: OrderedDict[int, int] = OrderedDict()
    with open_tables(SimulatedDisk()) as app:
        cache = load("cache").Cache(app, size)
        for key, value in calls:
            if value is not None:
                cache.put(key, value)
                model[key] = value
                model.move_to_end(key)
                if len(model) > size:
                    model.popitem(last=False)
            elif key in model:
                assert cache.get(key) == model[key]
                model.move_to_end(key)
            else:
                with pytest.raises(KeyError):
                    cache.get(key)
            assert [found for _, found in cache.turns.items()] == list(model)
            assert {key: value for key, (_, value) in rows(cache.entries).items()} == model


def test_the_queue_loses_no_job_and_repeats_none_that_is_done() -> None:
    """P2: A power cut after `put` or `done` returned does not undo it; a lease may be lost."""
    disk, clock = SimulatedDisk(), Clock()
    module = load("jobs", clock)
    app = open_tables(disk)
    module.Queue(app).put("a")
    clock.now_ms += 1
    app = reopened(disk, app)
    queue = module.Queue(app)
    queue.put("b")
    lease, job = queue.take()
    assert job == "a"
    app = reopened(disk, app)
    queue = module.Queue(app)
    lease, job = queue.take()  # again, since the lease was lost
    assert job == "a"
    queue.done(lease)
    app = reopened(disk, app)
    queue = module.Queue(app)
    assert queue.take()[1] == "b"
    assert queue.take() is None
    app.close()


def test_the_queue_hands_a_job_out_again_when_its_lease_expires() -> None:
    """A job whose lease expires is handed out `attempts` times; a late `done` is refused."""
    clock = Clock()
    with open_tables(SimulatedDisk()) as app:
        queue = load("jobs", clock).Queue(app, lease_s=1, attempts=2)
        queue.put("a")
        first, _ = queue.take()
        assert queue.take() is None
        clock.now_ms += 1000
        second, job = queue.take()
        assert job == "a"
        with pytest.raises(ConflictError):
            queue.done(first)
        clock.now_ms += 1000
        assert queue.take() is None
        with pytest.raises(ConflictError):
            queue.done(second)
        assert not queue.jobs
        assert list(rows(queue.failed).values()) == ["a"]


def test_sessions_expire_after_their_last_use() -> None:
    """A power cut loses none that `begin` returned. `sweep` removes those that have expired."""
    disk, clock = SimulatedDisk(), Clock()
    module = load("sessions", clock)
    app = open_tables(disk)
    token = module.Sessions(app, ttl_s=1).begin({"user": "ada"})
    app = reopened(disk, app)
    sessions = module.Sessions(app, ttl_s=1)
    other = sessions.begin({"user": "bob"})
    for _ in range(3):
        clock.now_ms += 999
        assert sessions.get(token) == {"user": "ada"}
    with pytest.raises(KeyError):
        sessions.get(other)
    sessions.sweep()
    assert list(sessions.sessions) == [token]
    assert [found for _, found in sessions.expiries] == [token]
    app.close()


def test_the_programs_are_short() -> None:
    """Each program has at most 35 lines of code, without empty lines and docstrings."""
    lines = {
        name: sum(bool(line.strip()) and '"""' not in line for line in source.splitlines())
        for name, source in SOURCES.items()
    }
    assert lines.keys() == {"cache", "jobs", "sessions"}
    assert max(lines.values()) <= 35, lines

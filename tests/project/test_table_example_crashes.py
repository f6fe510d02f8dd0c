"""Crashes of the programs of the how-to guide on tables: at every change of a simulated disk, with
every outcome, and of a real process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from journal import ConflictError, Tables
from journal.testing import Bounds, SimulatedDisk
from journal.testing.medium import Medium
from tests.crash.crash_support import images_of
from tests.project.page_support import ROOT
from tests.project.test_table_examples import SOURCES, Clock, load
from tests.support import PATH, TIMEOUT_S
from tests.tables.tables_support import open_tables, rows

Told = dict[str, list[Any]]  # what the program was told, by kind


def crashes_of(work: Callable[[SimulatedDisk, Told], None]) -> Iterator[tuple[SimulatedDisk, Told]]:
    """Run a program, then yield each disk that a crash during it may leave, and what the program
    had been told by then."""
    disk, told = SimulatedDisk(), Told()
    moments: list[tuple[Medium, Told]] = []

    def watch(*_: object) -> None:
        moments.append((disk.snapshot(), deepcopy(told)))

    disk.watch = watch
    work(disk, told)
    watch()
    for medium, told_then in moments:
        if PATH in medium._folders:
            for image in images_of(medium, Bounds(outcomes_max=256)):
                left = SimulatedDisk(image.medium)
                left.clock_ns = disk.clock_ns
                yield left, told_then


def call(told: Told, kind: str, item: Any, function: Callable[[], Any]) -> Any:
    """Note that a call begins, and that it has returned."""
    told.setdefault(f"begun {kind}", []).append(item)
    result = function()
    told.setdefault(kind, []).append(item)
    return result


def use_queue(disk: SimulatedDisk, told: Told) -> None:
    """Put four jobs; finish two of them, let one lease expire and one job fail."""
    clock = Clock(disk)
    with open_tables(disk) as app:
        queue = load("jobs", clock).Queue(app, lease_s=1, attempts=2)

        def put(job: str) -> None:
            clock.advance(1)
            call(told, "put", job, lambda: queue.put(job))

        def take(expected: str) -> Any:
            lease, job = queue.take()
            assert job == expected
            return lease

        def done(lease: Any, job: str) -> None:
            call(told, "done", job, lambda: queue.done(lease))

        for job in ("a", "b"):
            put(job)
        done(take("a"), "a")
        late = take("b")
        clock.advance(1000)
        again = take("b")
        with pytest.raises(ConflictError):
            queue.done(late)
        app.compact()
        done(again, "b")
        put("bad")
        for _ in range(2):
            take("bad")
            clock.advance(1000)
        assert queue.take() is None  # "bad" has failed
        put("c")


def test_no_crash_loses_a_job_or_repeats_one_that_is_done() -> None:
    """P2: After any crash, each job that `put` accepted is handed out or has failed, unless `done`
    has returned for it; then it is not handed out."""
    count = 0
    for disk, told in crashes_of(use_queue):
        count += 1
        clock = Clock(disk)
        clock.advance(10_000)
        with open_tables(disk) as app:
            queue, handed_out = load("jobs", clock).Queue(app), []
            while taken := queue.take():
                handed_out.append(taken[1])
                queue.done(taken[0])
            left = [*handed_out, *rows(queue.failed).values()]
        assert len(set(left)) == len(left)
        done = set(told.get("done", ()))
        assert not done & set(left)
        finished = done | set(told.get("begun done", ()))
        assert set(told.get("put", ())) - finished <= set(left) <= set(told.get("begun put", ()))
    assert count > 100


def use_sessions(disk: SimulatedDisk, told: Told) -> None:
    """Begin, use and end sessions."""
    clock = Clock(disk)
    with open_tables(disk) as app:
        sessions = load("sessions", clock).Sessions(app, ttl_s=10)
        tokens = {}
        for user in ("ada", "bob", "eve"):
            told.setdefault("begun", []).append(user)
            tokens[user] = sessions.begin({"user": user})
            told.setdefault("tokens", []).append((user, tokens[user]))
            for token in tokens.values():
                sessions.get(token)
        app.compact()
        call(told, "end", "ada", lambda: sessions.end(tokens["ada"]))
        call(told, "end", "eve", lambda: sessions.end(tokens["eve"]))


def test_no_crash_loses_a_session_or_brings_one_back() -> None:
    """P2: After any crash, a session that `begin` returned is there, unless `end` was called; none
    is there for which `end` has returned."""
    count = 0
    for disk, told in crashes_of(use_sessions):
        count += 1
        clock = Clock(disk)
        with open_tables(disk) as app:
            sessions = load("sessions", clock).Sessions(app, ttl_s=10)
            there = {data["user"] for data in rows(sessions.sessions).values()}
            for user, token in told.get("tokens", ()):
                if user in there:
                    assert sessions.get(token) == {"user": user}
                else:
                    assert user in told.get("begun end", ())
        assert not set(told.get("end", ())) & there
        assert there <= set(told.get("begun", ()))
    assert count > 80


def use_cache(disk: SimulatedDisk, told: Told) -> None:
    """Put and get entries, of which some are evicted, and sync now and then."""
    clock = Clock(disk)
    with open_tables(disk) as app:
        cache = load("cache", clock).Cache(app, size=2)

        def note() -> None:
            told.setdefault("states", [[]]).append(list(cache.entries.items()))

        told["synced"] = [0]
        for number, key in enumerate("abacad"):
            if number == 2:
                cache.get("a")
                note()
            cache.put(key, number)
            note()
            if number % 2:
                app.sync()
                told["synced"] = [len(told["states"]) - 1]
        app.compact()


def test_no_crash_takes_a_cache_apart() -> None:
    """P3: After any crash, each entry has its turn, and the cache is in a state that it had, none
    before the last `sync`."""
    count = 0
    for disk, told in crashes_of(use_cache):
        count += 1
        with open_tables(disk) as app:
            entries = rows(app.table("entries"))
            turns = {key: turn for turn, key in app.table("turns").items()}
        assert {key: row[0] for key, row in entries.items()} == turns
        first = told.get("synced", [0])[0]
        assert list(entries.items()) in told.get("states", [[]])[first:]
    assert count > 80


# --- a real process ---

CHILD = """
import os, sys, threading
from jobs import Queue
from journal import ConflictError, Tables

def tell(*words):
    os.write(1, (" ".join(words) + "\\n").encode())  # at once and whole

def produce(queue, run, number):
    while True:
        job = f"{run}.{number}"
        queue.put(job)
        tell("put", job)
        number += 1

def work(queue):
    while True:
        if taken := queue.take():
            lease, job = taken
            tell("took", job)
            try:
                queue.done(lease)
            except ConflictError:
                continue  # the machine is so slow that the lease has expired
            tell("done", job)

with Tables.open("queue.d") as app:
    queue = Queue(app, lease_s=5, attempts=1000)
    for target, *arguments in [(produce, queue, sys.argv[1], 0)] + 3 * [(work, queue)]:
        threading.Thread(target=target, args=arguments, daemon=True).start()
    threading.Event().wait()
"""


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_no_kill_loses_a_job_or_repeats_one_that_is_done(tmp_path: Path, kills: int) -> None:
    """P2: A process with several workers is killed again and again: each job that `put` accepted is
    done in the end, and none is handed out after `done` has returned."""
    (tmp_path / "jobs.py").write_text(SOURCES["jobs"])
    lines: list[list[str]] = []
    for run in range(kills):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(run)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout
            timer = threading.Timer(TIMEOUT_S, child.kill)
            timer.start()
            output = [child.stdout.readline() for _ in range(40 + 7 * run)]
            child.kill()
            output += child.stdout.readlines()
            timer.cancel()
        lines += [line.split() for line in output if line.endswith("\n")]
    told: dict[str, set[str]] = {"put": set(), "took": set(), "done": set()}
    for word, job in lines:
        assert word != "took" or job not in told["done"]
        told[word].add(job)
    assert len(told["done"]) > kills
    clock = Clock(SimulatedDisk())
    clock.disk.clock_ns = time.time_ns() + 10**12  # when all leases have expired
    with Tables.open(tmp_path / "queue.d") as app:
        queue, rest = load("jobs", clock).Queue(app, attempts=1000), set()
        while taken := queue.take():
            rest.add(taken[1])
            with suppress(ConflictError):
                queue.done(taken[0])
        assert not rows(queue.failed)
    assert not told["done"] & rest
    assert told["put"] <= told["took"] | rest
    assert len(told["took"] - told["done"] - rest) <= 3 * kills  # done, and killed before the line

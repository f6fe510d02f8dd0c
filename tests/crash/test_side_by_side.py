"""Crashes while syncs are in flight side by side: any order of their ends, any failure, any cut."""

from __future__ import annotations

import errno
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from journal import FailedError, Journal
from journal.testing import SimulatedDisk, drawn, keep, lose
from tests.engine.waiting_support import wait_in
from tests.lanes_support import LANES, HeldSyncs, in_flight, side_by_side, without_lone_waiters
from tests.support import TIMEOUT_S, open_on, put, reopened, until
from tests.tiers import examples

STEPS = st.lists(st.sampled_from(["append", "append", "end", "end", "fail"]), max_size=14)


class Run:
    """A journal whose syncs end when the test lets them, and a model of what is acknowledged."""

    def __init__(self, disk: SimulatedDisk, pool: ThreadPoolExecutor) -> None:
        self.disk, self.pool = disk, pool
        self.held = HeldSyncs(disk)
        self.journal: Journal = open_on(disk, segment_bytes=1 << 16)
        put(self.journal, 0)
        self.held.hold()
        self.appended = [0]
        self.acknowledged = 1
        self.has_failed = False
        self._waiting: list[Future[None]] = []

    def append(self, data: st.DataObject) -> None:
        """Append a record, and begin its commit if a sync may begin."""
        if in_flight(self.journal) < LANES:
            begun = len(self.held.all)
            record = data.draw(st.integers(0, 99) | st.binary(max_size=600))
            self.appended.append(record)  # type: ignore[arg-type]
            self._waiting.append(wait_in(self.pool, self.journal, self.journal.append(record)))
            self.held.wait_for(begun + 1)

    def end_one(self, data: st.DataObject, *, fails: bool) -> None:
        """Let one of the syncs in flight succeed or fail, and check who is released."""
        running = [sync for sync in self.held.all if not sync.has_ended]
        if not running:
            return
        sync = data.draw(st.sampled_from(running))
        sync.release(OSError(errno.EIO, "broken") if fails else None)
        lanes = self.journal._core.committer._lanes
        until(
            lambda: sum(not each.has_ended for each in tuple(lanes._pending)) == len(running) - 1,
            "the end of the sync",
        )
        if fails:
            self.has_failed = True
            until(lambda: self.journal._lifecycle.failure, "the failure")
        done = [each.has_ended for each in self.held.all]
        if not fails:
            self.acknowledged = 1 + (done.index(False) if False in done else len(done))
        expected = self.acknowledged
        until(lambda: self.journal.durable_lsn == expected, f"LSN {expected}")
        assert self.journal.durable_lsn == expected

    def end(self) -> SimulatedDisk:
        """End the run, and return the disk as it was before that."""
        before = SimulatedDisk(self.disk.snapshot())
        self.held.release_all()
        with suppress(FailedError):
            self.journal.close(timeout_s=TIMEOUT_S)
        for lsn, future in enumerate(self._waiting, 2):
            error = future.exception(TIMEOUT_S)
            assert error is None or (self.has_failed and lsn > self.acknowledged)
        return before


@given(STEPS, st.data())
@settings(max_examples=examples(100))
def test_what_is_acknowledged_survives(steps: list[str], data: st.DataObject) -> None:
    """P1, P2, P5: Commits are acknowledged in the order of the log, as soon as their syncs and all
    earlier ones have succeeded. A power cut at any moment loses none of these."""
    with side_by_side(), without_lone_waiters(), ThreadPoolExecutor(16) as pool:
        run = Run(SimulatedDisk(), pool)
        run.disk.failed_sync = data.draw(st.sampled_from([lose, keep]))
        try:
            for step in steps:
                if run.has_failed:
                    break
                if step == "append":
                    run.append(data)
                else:
                    run.end_one(data, fails=step == "fail")
            acknowledged = run.acknowledged
        finally:
            disk = run.end()
    disk.power_cut(drawn(lambda most: data.draw(st.integers(0, most))))
    recovered = reopened(disk)
    assert len(recovered) >= acknowledged
    assert recovered == run.appended[: len(recovered)]

"""A failing compaction fails alone: the log continues, and the next attempt works."""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Literal

import pytest

from journal import FailedError
from journal._format import checkpoint
from journal.testing import SimulatedDisk, lose
from journal.testing.disk import Operation
from tests.engine.compaction_support import checkpoint_lsns, compact
from tests.support import (
    FIRST,
    PATH,
    TIMEOUT_S,
    crash,
    frozen,
    logged,
    names,
    open_on,
    put,
    put_lines,
    reopened,
    until,
)


def exploding(*_: object) -> Iterator[Any]:
    yield 1
    raise ZeroDivisionError("the owner's own")


def freezing() -> tuple[int, Iterable[Any]]:
    raise ZeroDivisionError("the owner's own")


@pytest.mark.parametrize("durability", ["disk", "os"])
@pytest.mark.parametrize("where", ["freeze", "items"])
def test_an_error_of_the_owner_ends_the_compaction_attempt(
    disk: SimulatedDisk, where: str, durability: Literal["disk", "os"]
) -> None:
    """If the freeze or its iterator raises, the caller gets the error, no `*.tmp` is left, no file
    is removed, and the log and the next compaction work."""
    with open_on(disk, durability=durability) as journal:
        put_lines(journal, 12, size=700)
        compact(journal, 1)
        put_lines(journal, 12, size=700)
        before = (names(disk, ".seg"), names(disk, ".json"))
        freeze = freezing if where == "freeze" else lambda: (journal.last_lsn, exploding())
        with pytest.raises(ZeroDivisionError, match="own"):
            journal.compact(freeze)
        assert (names(disk, ".seg"), names(disk, ".json"), names(disk, ".tmp")) == (*before, [])
        put(journal, "on")
        compact(journal, "good")
        assert checkpoint_lsns(disk) == [12, 25]


STEPS: list[tuple[Operation, str]] = [
    ("create", ".json.tmp"),
    ("write", ".json.tmp"),
    ("sync", ".json.tmp"),
    ("rename", ".json"),
    ("sync_directory", PATH),
    ("open", ".json"),
    ("read", ".json"),
    ("names", PATH),
    ("remove", ".seg"),
    ("remove", "12.json"),
]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EMFILE], ids=errno.errorcode.get)
@pytest.mark.parametrize(("operation", "path"), STEPS)
def test_the_log_survives_a_disk_error_in_a_compaction(
    disk: SimulatedDisk, operation: Operation, path: str, code: int
) -> None:
    """P2, P8: A disk error ends that attempt only. No `*.tmp` is left, the log continues, the next
    compaction works, and a power cut afterwards loses nothing."""
    with open_on(disk) as journal:
        for n in range(2):
            put_lines(journal, 12, size=700)
            compact(journal, n)
        put_lines(journal, 12, size=700)
        disk.fail(operation, code, path=path)
        with pytest.raises(OSError, match=errno.errorcode[code]):
            compact(journal, "failing")
        disk.before = None
        assert names(disk, ".tmp") == []
        assert {12, 24} & {*checkpoint_lsns(disk)}
        put(journal, "on")
        assert len(logged(journal, 24)) == 13
        compact(journal, "good")
        assert checkpoint_lsns(disk)[-2:] in ([24, 37], [36, 37])
        put(journal, "tail")
        disk.power_cut(lose)
        crash(journal, disk)
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert list(journal.checkpoint.items()) == ["good"]
        assert logged(journal, None) == ["tail"]


def test_a_failed_journal_is_not_compacted(disk: SimulatedDisk) -> None:
    """P2: After a failure of the log, also of the sync that a compaction begins with, no checkpoint
    is made: the snapshot may include records that the log lost."""
    with suppress(FailedError), open_on(disk, durability="os") as journal:
        put(journal, 1)
        disk.fail("sync", errno.EIO, path=".seg")
        with pytest.raises(FailedError):
            compact(journal, "lost")
        with pytest.raises(FailedError):
            compact(journal, "lost")
    disk.before = None
    assert names(disk, ".json") == names(disk, ".tmp") == []


@pytest.mark.parametrize("lsn", [2, 10**9, -1])
def test_a_freeze_with_a_wrong_lsn_is_refused(disk: SimulatedDisk, lsn: int) -> None:
    """P5: A freeze that returns a wrong LSN raises ValueError, and nothing is written. Later opens
    would take a checkpoint past the end of the log for corruption."""
    with open_on(disk) as journal:
        put(journal, 1)
        with pytest.raises(ValueError, match=rf"LSN {lsn}"):
            journal.compact(lambda: (lsn, [1]))
        assert names(disk, ".json") == []
    assert reopened(disk) == [1]


def test_a_compaction_reports_a_failure_of_the_log(
    disk: SimulatedDisk, pool: ThreadPoolExecutor
) -> None:
    """P2, P9: If the log fails while items are encoded, `compact` raises FailedError like any other
    call, and not ClosedError."""
    reached, may_go = threading.Event(), threading.Event()

    def items() -> Iterator[str]:
        yield "first"
        reached.set()
        assert may_go.wait(TIMEOUT_S)
        yield from itertools.repeat("more")

    with suppress(FailedError), open_on(disk) as journal:
        put(journal, 1)
        compacting = pool.submit(journal.compact, lambda: (1, items()))
        assert reached.wait(TIMEOUT_S)
        disk.fail("sync", errno.EIO, path=FIRST)
        with pytest.raises(FailedError):
            put(journal, 2)
        assert journal._core.committer.join(TIMEOUT_S)
        may_go.set()
        with pytest.raises(FailedError, match="EIO"):
            compacting.result(TIMEOUT_S)
        assert names(disk, ".tmp") == []


def test_an_item_over_the_line_limit_is_refused(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5: An item over the line limit of FORMAT.md ends that attempt, and an item at the limit is
    read back."""
    monkeypatch.setattr(checkpoint, "LINE_BYTES_MAX", 1000)
    longest = "x" * (1000 - len('"",\n'))
    with open_on(disk) as journal:
        put(journal, 1)
        with pytest.raises(ValueError, match=r"item 1 .*999 bytes is over 1000"):
            compact(journal, longest, longest + "x")
        assert (names(disk, ".json"), names(disk, ".tmp")) == ([], [])
        assert list(compact(journal, longest, longest).items()) == [longest, longest]


def test_updates_have_room_after_the_compactor_thread_ends(disk: SimulatedDisk) -> None:
    """P8: After the compactor's thread has ended, no update waits for a compaction, however far the
    log grows."""
    with open_on(disk, checkpoint_min_bytes=4000, flush_bytes=1000) as journal:
        journal.start_compaction(frozen(journal, "state"))
        compactor = journal._core.compactor
        until(lambda: journal._core.committer.due_bytes == 4000, "the thread waits until it is due")
        compactor.stop()
        assert compactor.join(TIMEOUT_S)
        put_lines(journal, 20, size=700)
        journal.wait_room(timeout_s=0)

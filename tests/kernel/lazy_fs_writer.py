"""The owner of a journal that `test_lazy_fs` kills: what it does, what its log must hold.

    python -m tests.kernel.lazy_fs_writer PATH DURABILITY

The log follows from LSNs alone, whichever thread appends: so what a crash leaves of it can be
checked to the byte. A line for each acknowledgement: the LSN that is safe from the death of the
process, and the LSN that is safe from a power cut. The first line tells what recovery has shown.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from journal import DurableState, FailedError, Options
from tests.support import Table

THREADS = 3
KEYS = 40
# Batches of 1, 2 and 3 records, over and over: their size, by the LSNs before them modulo 6.
SIZES = {0: 1, 1: 2, 3: 3}
FAILED = 3  # the exit code of one whose journal failed


def record_at(lsn: int) -> list[Any]:
    value = None if lsn % 7 == 0 else f"{lsn}: " + "x" * (lsn * 31 % 300)
    return [str(lsn % KEYS), value]


def batch_after(lsn: int) -> list[Any]:
    return [record_at(lsn + i) for i in range(1, SIZES[lsn % 6] + 1)]


def content_at(lsn: int) -> dict[str, Any]:
    """The table as of an LSN: what the last records say of each key."""
    rows = map(record_at, range(max(1, lsn - KEYS + 1), lsn + 1))
    return {key: value for key, value in rows if value is not None}


def open_checked(path: Path, durability: Any) -> DurableState[Table]:
    """P5: it opens. P3: batches are whole. P1: each record is the one of its LSN. P6: they
    amount to the state that is there."""
    options = Options(
        durability=durability,
        segment_bytes=8192,  # rolls a few times a cycle
        checkpoint_min_bytes=2**40,  # compacts when a thread says so
    )
    state = DurableState.open(path, Table(), options=options)
    try:
        lsn = state.journal.last_lsn
        assert lsn % 6 in SIZES, f"P3: {lsn} is in the midst of a batch"
        assert all(each.record == record_at(each.lsn) for each in state.journal.replay()), "P1"
        assert state.machine.content() == content_at(lsn), "P6"
    except BaseException:
        state.close()
        raise
    return state


def work(path: Path, durability: str) -> None:
    """Append, wait, roll and compact until killed, or until the journal fails."""
    try:
        state = open_checked(path, durability)
    except (OSError, FailedError):
        sys.exit(FAILED)
    tell(state.journal.last_lsn, state.journal.last_lsn)
    works = [partial(append, state, durability)] * THREADS + [partial(compact, state)]
    threads = [threading.Thread(target=run, args=(each,)) for each in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run(work: Callable[[], None]) -> None:
    """Whatever one thread ends with ends the process."""
    try:
        work()
    except FailedError:
        os._exit(FAILED)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def append(state: DurableState[Table], durability: str) -> None:
    generator = random.Random()
    while True:
        lsn = state.update_batch(lambda _: batch_after(state.journal.last_lsn))
        assert lsn is not None
        if generator.random() < 0.7:
            state.wait_durable(lsn, timeout_s=generator.choice([None, 30]))
            tell(lsn, lsn if durability == "disk" else state.stats().synced_lsn)
        if generator.random() < 0.02:
            time.sleep(generator.uniform(0, 0.03))  # long enough for the log to go idle


def compact(state: DurableState[Table]) -> None:
    while True:
        with suppress(OSError):  # that attempt failed, and only that
            state.compact().close()
        time.sleep(0.005)


def tell(lsn: int, synced_lsn: int) -> None:
    # At once and whole: a line is shorter than what a pipe takes in one piece.
    os.write(1, b"%d %d\n" % (lsn, synced_lsn))


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2])

"""The owner of a journal that `test_lazy_fs` kills, and the log that it must have.

    python -m tests.kernel.lazy_fs_writer PATH DURABILITY

The log depends on LSNs alone, whichever thread appends, so that the records left by a crash can be
checked to the byte. The owner prints a line for each acknowledgement: the LSN that is safe if the
process dies, and the LSN that is safe if the power is cut. The first line is the result of
recovery.
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
# Batches have 1, 2 and 3 records in turn. A key is the LSN before a batch, modulo 6; its value is
# the size of the batch.
SIZES = {0: 1, 1: 2, 3: 3}
FAILED = 3  # the exit code if the journal failed


def record_at(lsn: int) -> list[Any]:
    value = None if lsn % 7 == 0 else f"{lsn}: " + "x" * (lsn * 31 % 300)
    return [str(lsn % KEYS), value]


def batch_after(lsn: int) -> list[Any]:
    return [record_at(lsn + i) for i in range(1, SIZES[lsn % 6] + 1)]


def content_at(lsn: int) -> dict[str, Any]:
    """Return the table as of an LSN, which depends on the last record of each key."""
    rows = map(record_at, range(max(1, lsn - KEYS + 1), lsn + 1))
    return {key: value for key, value in rows if value is not None}


def open_checked(path: Path, durability: Any) -> DurableState[Table]:
    """Open the journal (P5), and check it.

    P3: batches are complete. P1: each record belongs to its LSN. P6: the state is that of the
    records.
    """
    options = Options(
        durability=durability,
        segment_bytes=8192,  # a few segments a cycle
        checkpoint_min_bytes=2**40,  # compacts only when a thread calls compact
    )
    state = DurableState.open(path, Table(), options=options)
    state.journal._fill = None  # a filler would shift the LSNs on which the records depend
    try:
        lsn = state.journal.last_lsn
        assert lsn % 6 in SIZES, f"P3: {lsn} is in the middle of a batch"
        assert all(each.record == record_at(each.lsn) for each in state.journal.replay()), "P1"
        assert state.machine.content() == content_at(lsn), "P6"
    except BaseException:
        state.close()
        raise
    return state


def work(path: Path, durability: str) -> None:
    """Append, wait, fill segments and compact, until killed or until the journal fails."""
    try:
        state = open_checked(path, durability)
    except (OSError, FailedError):
        sys.exit(FAILED)
    report(state.journal.last_lsn, state.journal.last_lsn)
    jobs = [partial(append, state, durability)] * THREADS + [partial(compact, state)]
    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run(work: Callable[[], None]) -> None:
    """Run a thread's work, and end the process if the work ends."""
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
            report(lsn, lsn if durability == "disk" else state.stats().synced_lsn)
        if generator.random() < 0.02:
            time.sleep(generator.uniform(0, 0.03))  # long enough for the log to go idle


def compact(state: DurableState[Table]) -> None:
    while True:
        with suppress(OSError):  # only this attempt failed
            state.compact().close()
        time.sleep(0.005)


def report(lsn: int, synced_lsn: int) -> None:
    # One write is atomic, because a line is shorter than the pipe's atomic size.
    os.write(1, b"%d %d\n" % (lsn, synced_lsn))


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2])

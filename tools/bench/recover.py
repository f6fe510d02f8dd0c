"""Measure how long an open takes, by the length of the log and by the size of a checkpoint.

Each journal is opened several times, in a process of its own. Beside it, the same process runs a
bare msgpack.Unpacker over the same records in memory. The peak memory is that of the process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import msgpack

from bench.figures import Bar, at_least, at_most
from bench.machine import about
from bench.output import parsed, show
from bench.peer import PACKED, RECORD
from journal import Journal, Options
from manager import AgentResult, Limits, SubAgentManager

# The least speed, as a fraction of the bare Unpacker's, by records per frame.
BARS = {64: 0.7, 1: 0.35}
ENOUGH = 1_000_000
FLEET = "fleet in a checkpoint"


@dataclass(frozen=True)
class Row:
    """The result of one journal.

    `ratio` is its records per second divided by those of the bare Unpacker.
    """

    what: str
    records: int
    open_s: float
    ratio: float | None
    peak_mib: float


def log_of(directory: Path, records: int, a_frame: int) -> None:
    """Write a log without a checkpoint, with `a_frame` records in each frame."""
    options = Options(flush_interval_s=60, flush_bytes=1 << 26)
    with Journal.open(directory, options=options) as journal:
        for number in range(records):
            journal.append(RECORD)
            if number % a_frame == a_frame - 1:
                journal.wait_durable()


def fleet_of(directory: Path, agents: int) -> None:
    limits = Limits(max_running=ENOUGH, max_admitted=ENOUGH)
    with SubAgentManager.open(directory, limits=limits) as manager:
        for number in range(agents):
            agent = manager.spawn("find every caller of it " * 10, name=f"agent {number}")
            manager.update_from_result(agent.agent_id, AgentResult("eleven of them " * 20))
        manager.compact()


def bare_s(records: int) -> float:
    """Return the seconds that a bare Unpacker takes for that many records."""
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=0)
    step = 10_000
    began = time.perf_counter()
    for _ in range(records // step):
        unpacker.feed(PACKED * step)
        for _ in unpacker:
            pass
    return time.perf_counter() - began


def opened_s(directory: Path, kind: str) -> float:
    began = time.perf_counter()
    if kind == "log":
        with Journal.open(directory):
            return time.perf_counter() - began
    with SubAgentManager.open(directory):
        return time.perf_counter() - began


def child(kind: str, directory: str, records: int, rounds: int) -> None:
    """Measure one journal in this process, and print the figures of a Row as JSON."""
    opened_s(Path(directory), kind)  # warm up
    before = [bare_s(records) for _ in range(rounds)] if kind == "log" else []
    times = [opened_s(Path(directory), kind) for _ in range(rounds)]
    ratio = statistics.median(before) / statistics.median(times) if before else None
    # `ru_maxrss` would include the peak of the process that started this one.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak_mib = int(status["VmHWM"].split()[0]) / 1024
    print(json.dumps({"open_s": statistics.median(times), "ratio": ratio, "peak_mib": peak_mib}))


def measure(what: str, kind: str, directory: Path, records: int, rounds: int) -> Row:
    """Run `child` for one journal, and return its result, named `what`."""
    command = [sys.executable, sys.argv[0], "recover", "--child", kind, str(directory)]
    done = subprocess.run(
        [*command, str(records), str(rounds)], stdout=subprocess.PIPE, text=True, check=True
    )
    return Row(what, records, **json.loads(done.stdout))


def log_name(a_frame: int) -> str:
    return f"log, {a_frame} a frame"


def measure_all(options: argparse.Namespace, directory: Path) -> Iterator[Row]:
    for records in sorted(options.records):
        for a_frame in BARS:
            path = directory / f"log-{records}-{a_frame}"
            log_of(path, records, a_frame)
            yield measure(log_name(a_frame), "log", path, records, options.rounds)
    for agents in options.agents:
        path = directory / f"fleet-{agents}"
        path.mkdir()
        fleet_of(path, agents)
        yield measure(FLEET, "fleet", path, agents, options.rounds)


def table(rows: list[Row]) -> Iterator[str]:
    yield f"{'':24}{'records':>9}{'open':>10}{'records/s':>12}{'to bare':>9}{'peak MiB':>10}"
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f} x"
        speed = row.records / row.open_s
        yield (
            f"{row.what:24}{row.records:9,}{row.open_s * 1000:7.1f} ms{speed:12,.0f}"
            f"{ratio:>9}{row.peak_mib:10.1f}"
        )


def bars(rows: list[Row]) -> Iterator[Bar]:
    """Yield bars for the longest log of each kind, and for a fleet of 10,000 agents."""
    for a_frame, least in BARS.items():
        logs = [row for row in rows if row.what == log_name(a_frame)]
        if not logs:
            continue
        shortest, longest = logs[0], logs[-1]
        if longest.ratio is not None:
            name = f"recovery at {a_frame} a frame to the bare Unpacker"
            yield at_least(name, longest.ratio, least)
        if len(logs) > 1:
            times = longest.records / shortest.records
            name = f"peak memory, a log {times:g} x as long, {a_frame} a frame"
            yield at_most(name, longest.peak_mib / shortest.peak_mib, 1.1)
    for row in rows:
        if (row.what, row.records) == (FLEET, 10_000):
            yield at_most("10,000 agents open from a checkpoint", row.open_s * 1e3, 150, "ms")


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--child"]:
        child(arguments[1], arguments[2], int(arguments[3]), int(arguments[4]))
        return 0
    parser = argparse.ArgumentParser(prog="python tools/bench recover", description=__doc__)
    parser.add_argument(
        "--records", type=int, nargs="*", default=[20_000, 100_000], help="lengths of logs"
    )
    parser.add_argument(
        "--agents", type=int, nargs="*", default=[1_000, 10_000], help="sizes of fleets"
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parsed(parser, arguments)
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        rows = list(measure_all(options, Path(name)))
    results = {"rows": [asdict(row) for row in rows]}
    return show("recover", options, about(), results, table(rows), bars(rows))

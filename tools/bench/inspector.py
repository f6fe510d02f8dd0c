"""Measure journal-inspect on a large log: its end, its verification, and following a live log.

`log -n 20` and `verify` are processes of their own on one log. Beside `verify`, a CRC of the same
bytes is measured. Then a writer appends at a fixed rate and waits for each commit, in alternating
rounds: alone, and followed by a `log -f` whose every line is read. That shows the delay of each
record, and the cost to the writer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import crc32c

from bench import imports
from bench.figures import Bar, Quantiles, at_least, at_most
from bench.machine import about
from bench.output import parsed, parser_of, show
from bench.peer import RECORD
from journal import Journal, JournalReader, Options

A_COMMIT = 64  # records per commit of the large log
NEVER = 1 << 40
_CHUNK_BYTES = 1 << 20
_FIRST, _LAST = "the first record", "the last record"
# A process of its own reads the lines, so as not to delay the writer's interpreter. It prints one
# line when the follower has printed the first record, and one at the end.
_LATE = """
import json, sys, time
print(sys.stdin.readline(), end="", flush=True)
late = []
for line in sys.stdin:
    late.append(time.monotonic() - json.loads(line)["record"][-1])
print(json.dumps(late))
"""
# The peak of a finished child would include the memory of its parent, so the child reads its own.
_PEAK = """
import runpy, sys
try:
    runpy.run_module("journal_inspect", run_name="__main__", alter_sys=True)
finally:
    facts = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(facts["VmHWM"].split()[0])
"""


@dataclass(frozen=True)
class Row:
    """The result of a process, from its start to its end, or of the checksum beside it."""

    what: str
    wall_ms: float
    mib_per_s: float | None
    peak_mib: float | None


@dataclass(frozen=True)
class Writing:
    """The result of a writer's round.

    per_s: records per second. commit: the time to append and commit, in ns.
    late: the delay of each record until the follower has printed it, in ns.
    """

    per_s: float
    commit: Quantiles
    late: Quantiles | None


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "journal_inspect", *arguments]


def fill(directory: Path, mib: float) -> int:
    """Write a log of about `mib` MiB, and return its size in bytes."""
    with Journal.open(directory, options=Options(checkpoint_min_bytes=NEVER)) as journal:
        while journal.stats().bytes < mib * 2**20:
            for _ in range(100):
                lsn = journal.append_batch([RECORD] * A_COMMIT)
            journal.wait_durable(lsn)
        return journal.stats().bytes


def wall_ms(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1e3


def run(*arguments: str) -> None:
    subprocess.run(
        command(*arguments),
        env=imports.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )


def peak_mib(*arguments: str) -> float:
    """Run journal-inspect, and return its peak memory in MiB."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PEAK, *arguments],
        env=imports.environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1]) / 1024


def checksums(directory: Path) -> None:
    for path in directory.glob("*.seg"):
        with path.open("rb", buffering=0) as file:
            crc = 0
            while chunk := file.read(_CHUNK_BYTES):
                crc = crc32c.crc32c(chunk, crc)


def large(directory: Path, mib: float, rounds: int) -> list[Row]:
    path = directory / "large"
    size_mib = fill(path, mib) / 2**20
    actions: dict[str, Callable[[], object]] = {
        "log -n 20": lambda: run("log", str(path), "-n", "20"),
        "crc32c of all bytes": lambda: checksums(path),
        "verify": lambda: run("verify", str(path)),
    }
    times = [{name: wall_ms(action) for name, action in actions.items()} for _ in range(rounds)]
    peak = peak_mib("verify", str(path))
    rows = []
    for name in actions:
        median_ms = statistics.median(of_round[name] for of_round in times)
        reads_all = name != "log -n 20"
        speed = size_mib / median_ms * 1e3 if reads_all else None
        rows.append(Row(name, median_ms, speed, peak if name == "verify" else None))
    return rows


def written(
    journal: Journal, rate: float, a_commit: int, seconds: float
) -> tuple[float, Quantiles]:
    commit_ns: list[float] = []
    began, pause_s = time.monotonic(), a_commit / rate
    while (due := began + len(commit_ns) * pause_s) < began + seconds:
        time.sleep(max(0, due - time.monotonic()))
        started = time.perf_counter_ns()
        for _ in range(a_commit):
            journal.append([*RECORD[:-1], time.monotonic()])
        journal.wait_durable()
        commit_ns.append(time.perf_counter_ns() - started)
    return len(commit_ns) * a_commit / (time.monotonic() - began), Quantiles.of(commit_ns)


def followed(directory: Path, rate: float, a_commit: int, seconds: float) -> Writing:
    with ExitStack() as undo:
        journal = undo.enter_context(
            Journal.open(directory, options=Options(checkpoint_min_bytes=NEVER))
        )
        journal.wait_durable(journal.append([_FIRST]))
        follower = undo.enter_context(
            subprocess.Popen(
                command("log", str(directory), "-f", "--until-match", _LAST, "-o", "jsonl"),
                env=imports.environment(),
                stdout=subprocess.PIPE,
            )
        )
        reader = undo.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", _LATE],
                stdin=follower.stdout,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert follower.stdout
        assert reader.stdout
        follower.stdout.close()
        assert _FIRST in reader.stdout.readline()  # from here on, the follower misses no record
        per_s, commit = written(journal, rate, a_commit, seconds)
        journal.wait_durable(journal.append([_LAST, time.monotonic()]))
        late_s = json.loads(reader.stdout.readline())
        with JournalReader.open(directory) as whole_log:
            assert len(late_s) == whole_log.last_lsn - 1
    return Writing(per_s, commit, Quantiles.of(each * 1e9 for each in late_s))


def alone(directory: Path, rate: float, a_commit: int, seconds: float) -> Writing:
    with Journal.open(directory, options=Options(checkpoint_min_bytes=NEVER)) as journal:
        return Writing(*written(journal, rate, a_commit, seconds), None)


def follow(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Return the medians of the rounds' ratios, and the longest delay of a record."""
    pairs = []
    for number in range(options.rounds):
        load = (options.rate, options.a_commit, options.seconds)
        pairs.append(
            (
                alone(directory / f"alone-{number}", *load),
                followed(directory / f"followed-{number}", *load),
            )
        )
    late = [both.late for _, both in pairs if both.late]
    return {
        "rate_per_s": options.rate,
        "written_per_s": statistics.median(both.per_s for _, both in pairs),
        "to_alone": statistics.median(both.per_s / by.per_s for by, both in pairs),
        "commit_p50": statistics.median(both.commit.p50 / by.commit.p50 for by, both in pairs),
        "commit_p99": statistics.median(both.commit.p99 / by.commit.p99 for by, both in pairs),
        "late": asdict(Quantiles.median(late)),
        "latest_ns": max(each.max for each in late),
    }


def lines(rows: list[Row], follow: dict[str, Any]) -> Iterator[str]:
    for row in rows:
        speed = f"{row.mib_per_s:10,.0f} MiB/s" if row.mib_per_s else ""
        peak = f", {row.peak_mib:.1f} MiB of memory" if row.peak_mib else ""
        yield f"{row.what:22}{row.wall_ms:9.1f} ms{speed}{peak}"
    late_ns = (follow["late"]["p50"], follow["late"]["p99"], follow["latest_ns"])
    p50, p99, most = (f"{ns / 1e6:.0f} ms" for ns in late_ns)
    yield (
        f"log -f of {follow['written_per_s']:,.0f} records/s: delay p50 {p50}, p99 {p99}, "
        f"max {most}"
    )
    yield (
        f"the writer while followed, to alone: {follow['to_alone']:.3f} x the records/s, "
        f"{follow['commit_p50']:.2f} x a commit's p50, {follow['commit_p99']:.2f} x its p99"
    )


def bars(rows: list[Row], follow: dict[str, Any]) -> Iterator[Bar]:
    yield at_most("log -n 20", rows[0].wall_ms, 200, "ms")
    yield at_most("log -f, the latest record", follow["latest_ns"] / 1e6, 100, "ms")
    yield at_least("the writer's records/s, followed to alone", follow["to_alone"], 0.95)


def main(arguments: list[str]) -> int:
    parser = parser_of("inspector", __doc__)
    parser.add_argument("--mib", type=float, default=1024, help="size of the large log in MiB")
    parser.add_argument("--rate", type=float, default=20_000, help="records per second")
    parser.add_argument("--a-commit", type=int, default=20, help="records per commit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="per round of the writer")
    options = parsed(parser, arguments)
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        rows = large(Path(name), options.mib, options.rounds)
        ratios = follow(options, Path(name))
    results = {"rows": [asdict(row) for row in rows], "follow": ratios}
    environment = about("msgpack", "crc32c")
    return show("inspector", options, environment, results, lines(rows, ratios), bars(rows, ratios))

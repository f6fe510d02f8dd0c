"""journal-inspect at scale: the end of a large log, all of it verified, and a live one followed.

`log -n 20` and `verify` are processes of their own over one log; beside `verify`, the CRC of the
same bytes alone. Then a writer appends at a fixed rate and waits for each commit, in turns alone
and with a `log -f` behind it whose every line is read: how late each record comes out, and what
that costs the writer.
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

from bench.figures import Bar, Quantiles, at_least, at_most
from bench.imports import environment
from bench.machine import about
from bench.output import parsed, show
from bench.peers import RECORD
from journal import Journal, JournalReader, Options

A_COMMIT = 64  # records, of the large log
NEVER = 1 << 40
_CHUNK_BYTES = 1 << 20
_SETTLE_S = 0.5
_LAST = "the last record"
# Its lines go to another process than the writer's, whose interpreter they would hold up.
_LATE = """
import json, sys, time
late = []
for line in sys.stdin:
    late.append(time.monotonic() - json.loads(line)["record"][-1])
print(json.dumps(late))
"""
# What the system tells of children that have ended begins with the memory of who forked them.
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
    """A process from its start to its end, or what is beside it."""

    what: str
    wall_ms: float
    mib_per_s: float | None
    peak_mib: float | None


@dataclass(frozen=True)
class Writing:
    """Of one turn: records a second; how long each append and commit took, and how late each
    record came out of the follower, in ns."""

    per_s: float
    commit: Quantiles
    late: Quantiles | None


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "journal_inspect", *arguments]


def fill(directory: Path, mib: float) -> int:
    """A log of about that size; its bytes."""
    with Journal.open(directory, options=Options(checkpoint_min_bytes=NEVER)) as journal:
        while journal.stats().bytes < mib * 2**20:
            for _ in range(100):
                lsn = journal.append_batch([RECORD] * A_COMMIT)
            journal.wait_durable(lsn)
        return journal.stats().bytes


def timed(what: Callable[[], object]) -> float:
    began = time.perf_counter()
    what()
    return (time.perf_counter() - began) * 1e3


def run(*arguments: str) -> None:
    subprocess.run(
        command(*arguments),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )


def peak_mib(*arguments: str) -> float:
    """The most memory that it takes."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PEAK, *arguments],
        env=environment(),
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
    whats: dict[str, Callable[[], object]] = {
        "log -n 20": lambda: run("log", str(path), "-n", "20"),
        "crc32c of all bytes": lambda: checksums(path),
        "verify": lambda: run("verify", str(path)),
    }
    times = [{name: timed(what) for name, what in whats.items()} for _ in range(rounds)]
    peak = peak_mib("verify", str(path))
    rows = []
    for name in whats:
        wall_ms = statistics.median(found[name] for found in times)
        reads_all = name != "log -n 20"
        speed = size_mib / wall_ms * 1e3 if reads_all else None
        rows.append(Row(name, wall_ms, speed, peak if name == "verify" else None))
    return rows


def written(
    journal: Journal, rate: float, a_commit: int, seconds: float
) -> tuple[float, Quantiles]:
    took: list[float] = []
    began, pause_s = time.monotonic(), a_commit / rate
    while (due := began + len(took) * pause_s) < began + seconds:
        time.sleep(max(0, due - time.monotonic()))
        started = time.perf_counter_ns()
        for _ in range(a_commit):
            journal.append([*RECORD[:-1], time.monotonic()])
        journal.wait_durable()
        took.append(time.perf_counter_ns() - started)
    return len(took) * a_commit / (time.monotonic() - began), Quantiles.of(took)


def followed(directory: Path, rate: float, a_commit: int, seconds: float) -> Writing:
    with ExitStack() as undo:
        journal = undo.enter_context(
            Journal.open(directory, options=Options(checkpoint_min_bytes=NEVER))
        )
        follower = undo.enter_context(
            subprocess.Popen(
                command("log", str(directory), "-f", "--until-match", _LAST, "-o", "jsonl"),
                env=environment(),
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
        follower.stdout.close()
        time.sleep(_SETTLE_S)  # it has begun to follow
        per_s, commit = written(journal, rate, a_commit, seconds)
        journal.wait_durable(journal.append([_LAST, time.monotonic()]))
        late = json.loads(reader.communicate()[0])
        with JournalReader.open(directory) as all_of_it:
            assert len(late) == all_of_it.last_lsn
    return Writing(per_s, commit, Quantiles.of(each * 1e9 for each in late))


def alone(directory: Path, rate: float, a_commit: int, seconds: float) -> Writing:
    with Journal.open(directory, options=Options(checkpoint_min_bytes=NEVER)) as journal:
        return Writing(*written(journal, rate, a_commit, seconds), None)


def follow(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """The medians of the rounds' ratios, and the latest record of all."""
    pairs = []
    for number in range(options.rounds):
        at = (options.rate, options.a_commit, options.seconds)
        pairs.append(
            (alone(directory / f"alone-{number}", *at), followed(directory / f"f-{number}", *at))
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


def lines(rows: list[Row], found: dict[str, Any]) -> Iterator[str]:
    for row in rows:
        speed = f"{row.mib_per_s:10,.0f} MiB/s" if row.mib_per_s else ""
        peak = f", {row.peak_mib:.1f} MiB of memory" if row.peak_mib else ""
        yield f"{row.what:22}{row.wall_ms:9.1f} ms{speed}{peak}"
    late = (found["late"]["p50"], found["late"]["p99"], found["latest_ns"])
    p50, p99, most = (f"{ns / 1e6:.0f} ms" for ns in late)
    yield (
        f"log -f behind {found['written_per_s']:,.0f} records/s: late by p50 {p50}, p99 {p99}, "
        f"max {most}"
    )
    yield (
        f"the writer beside itself alone: {found['to_alone']:.3f} x the records/s, "
        f"{found['commit_p50']:.2f} x a commit's p50, {found['commit_p99']:.2f} x its p99"
    )


def bars(rows: list[Row], found: dict[str, Any]) -> Iterator[Bar]:
    yield at_most("log -n 20", rows[0].wall_ms, 200, "ms")
    yield at_most("log -f, the latest record", found["latest_ns"] / 1e6, 100, "ms")
    yield at_least("the writer's records/s, followed to alone", found["to_alone"], 0.95)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python tools/bench inspector",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--mib", type=float, default=1024, help="of the large log")
    parser.add_argument("--rate", type=float, default=20_000, help="records a second")
    parser.add_argument("--a-commit", type=int, default=20, help="records that share a commit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of each turn of the writer")
    options = parsed(parser, arguments)
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        rows = large(Path(name), options.mib, options.rounds)
        found = follow(options, Path(name))
    everything = {"rows": [asdict(row) for row in rows], "follow": found}
    where = about("msgpack", "crc32c")
    return show("inspector", options, where, everything, lines(rows, found), bars(rows, found))

"""`python tools/bench`: each benchmark runs, and prints its results and the bars that they must
reach.

The measured values depend on the machine, and are not tested.
"""

from __future__ import annotations

import asyncio
import builtins
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from bench import append, bars, compact, imports, load
from bench.figures import Quantiles, at_least, at_most, bars_table
from bench.peers import opened

from journal import Journal
from tests.installed import find_command, import_package
from tests.kernel.kernel_disk import SmallDisk
from tests.support import TIMEOUT_S, until
from tests.tiers import slow_unless

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--rounds", 1, "--seconds", 0.05)
SMALL = {
    "append": ("--rounds", 1, "--seconds", 0.05),
    "hold": ("--rounds", 1, "--before", "."),
    "recover": ("--rounds", 1, "--records", 10_000, 20_000, "--agents", 10),
    "commits": (
        *(*QUICK, "--threads", 1, 2, "--coroutines", 2),
        *("--peers", "sqlite", "sqlite-upserts", "aiosqlite-batched"),
    ),
    "compact": (*QUICK, "--agents", 10, "--threads", 2, "--updates", 640),
    "fanout": ("--seconds", 0.05, "--agents", 10, "--threads", 2, "--coroutines", 3),
    "burn": (*QUICK, "--burners", 0, 1, "--threads", 1, 2, "--coroutines", 2, "--peers", "sqlite"),
    "flushes": ("--updates", 100),
    "imports": ("--rounds", 1),
    "adapters": (
        *(*QUICK, "--threads", 1, 2, "--static-kb", 1, "--static-threads", 8, "--delay-ms", 0),
        *("--conversations", 32, "--sessions", 1, 2, "--live-mb", 1),
    ),
    "growth": (*QUICK, "--items", 100, 200),
    "inspector": (*QUICK, "--mib", 0.1, "--rate", 1000),
    "legacy": ("--rounds", 1, "--agents", 10),
    "mirror": (*QUICK, "--threads", 2, "--delay-ms", 1),
    "runners": ("--rounds", 1, "--tasks", 20),
    "resumed": ("--rounds", 1, "--tasks", 100),
    "verbs": ("--rounds", 1, "--records", 1000, "--agents", 40, "--before", "."),
    "standby": (*QUICK, "--mib", 0.1, "--rate", 100),
    "tables": (
        *(*QUICK, "--rows", 300, "--calls", 50, "--keys", 300, "--threads", 1, 2),
        *("--peers", "shelve", "sqlite3"),
    ),
    "workers": ("--rounds", 1, "--workers", 1, 2, "--agents", 20, "--commands", 4, "--queued", 9),
}
BARS = {  # the bars that even such a small run must report
    "append": {"append to the bare loop"},
    "hold": {"held for a plain record", "held for a packed record"},
    "recover": {"recovery at 64 a frame to the bare Unpacker", "peak memory, a log 2 x as long"},
    "commits": {"1 thread to the bare disk"},
    "compact": {"lock hold p50", "lock hold p99", "from due p99", "bytes written", "disk held"},
    "fanout": set(),
    "burn": {"1 computing, 2 threads: p99 from due to the best"},
    "flushes": {"flushes a commit, 64 threads"},
    "imports": {"import journal", "import manager", "journal-inspect --help"},
    "adapters": {
        *("superstep, 1 threads, +0 ms: per_s", "superstep, static, 8 threads, +0 ms: bytes"),
        *(
            "graph turn, paced, 32 coroutines, +0 ms: lag_ms",
            "session turn, 1 coroutines, +0 ms: per_s",
        ),
        *("memory, 1 MB of values", "worst stall of a thread in compaction", "reopen, 1 MB"),
    },
    "growth": {
        *("tables, 200 items: hold, growing, longest", "tuples, 200 items: hold, growing, longest"),
        *("tables, 200 items: disk under them", "tuples, 200 items: disk under them"),
    },
    "inspector": {"log -n 20", "log -f, the latest record", "the writer's records/s"},
    "legacy": {"subagents import of 10 agents"},
    "runners": set(),  # those of the runners that are installed
    "resumed": {"subagents run: first command of 100 tasks"},
    "verbs": {
        *("agents: CPU to before", "show: CPU to before", "history: CPU to before"),
        *("diff: CPU to before", "report: CPU to before", "log -g: CPU to before"),
    },
    "standby": {"a follower is behind, p99", "takeover with a copy of 0.1 MiB"},
    "mirror": {'ack="local": CPU', 'ack="local": records/s', 'ack="remote", +1 ms'},
    "tables": {
        *("set to ", "durable set, 2 threads to sqlite3", "get to ", "prefix read to sqlite3"),
        *("insert, hold p99, CPU", "insert, hold p99.9, CPU", "snapshot, 300 keys"),
        *("memory a row", "added to a full collection", "open"),
    },
    "workers": {"memory of a dispatcher"},  # and those of taskiq, if it is installed
}


def run_bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-P", str(ROOT / "tools" / "bench"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S * 4,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def results_of(*arguments: object) -> dict[str, Any]:
    """Run a benchmark. Return the results that it prints as JSON."""
    results: dict[str, Any] = json.loads(run_bench(*arguments, "--json").stdout)
    return results


def mark_slow(benches: Iterable[str], *quick: str) -> list[Any]:
    """Return the parameters of a test: all benches, of which only `quick` are not slow."""
    return slow_unless(lambda name: name in quick, benches)


@pytest.mark.parametrize("bench", mark_slow(SMALL, "append", "commits", "legacy"))
def test_a_benchmark_prints_machine_results_and_bars(bench: str, tmp_path: Path) -> None:
    """A benchmark prints the machine and versions, its results, and each bar with its value and
    whether the bar is met."""
    if bench == "flushes":
        folder = tmp_path / "disk"
        folder.mkdir()
        with SmallDisk(folder):  # skips where no disk can be mounted
            pass
        shutil.rmtree(folder)
    if bench == "adapters":
        for package in ("langgraph.checkpoint.sqlite", "agents"):
            import_package(package)
    if bench == "workers":
        find_command("nats-server")
        import_package("nats")
    results = results_of(bench, *SMALL[bench], *at(bench, tmp_path))
    assert results["bench"] == bench
    assert {"python", "system", "cpus", "journal"} <= results.keys()
    for name in BARS[bench]:
        assert [bar for bar in results["bars"] if bar["name"].startswith(name)], name
    for bar in results["bars"]:
        assert math.isfinite(bar["value"])
        reached = bar["value"] >= bar["bar"]
        assert bar["met"] == (reached if bar["sense"] == "at least" else not reached)
    assert not list(tmp_path.iterdir())  # the measured directory is left empty


def at(bench: str, directory: Path) -> tuple[object, ...]:
    return () if bench in ("imports", "flushes") else ("--dir", directory)


@pytest.mark.slow
def test_a_fleet_is_compared_with_another_version(tmp_path: Path) -> None:
    """With --before, the rounds of two versions alternate, and each ratio has a line and a bar."""
    small = ("--seconds", 0.05, "--agents", 10, "--threads", 1, "--ways", "rewrite", "journal")
    printed = run_bench("fanout", *small, "--before", ROOT, "--dir", tmp_path).stdout
    assert "journal, 10 agents, 1 threads, this version to the one before:" in printed
    assert "updates/s to before, journal, 10 agents, 1 threads" in printed
    assert "rewrite" not in printed


@pytest.mark.parametrize("bench", mark_slow(["burn", "fanout"], "fanout"))
def test_the_table_has_a_line_per_row(bench: str, tmp_path: Path) -> None:
    """Without --json, a benchmark prints the machine, a table and the bars. With --plot, it also
    draws."""
    import_package("matplotlib")
    drawn = tmp_path / "drawn.svg"
    lines = run_bench(bench, *SMALL[bench], "--plot", drawn).stdout.splitlines()
    assert lines[0].startswith("python ")
    assert drawn.read_text().count("<svg ") == 1
    if bench == "fanout":
        assert [line for line in lines if line.startswith("3 coroutines, 10 agents")]
        assert [line for line in lines if "the loop's lag at full speed" in line]
    else:
        assert [line for line in lines if " 1      2   threads         sqlite " in line]


def test_a_peer_that_is_missing_is_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing peer is skipped with a note, and the others are measured."""
    real = builtins.__import__

    def without_lmdb(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "lmdb":
            raise ModuleNotFoundError("No module named 'lmdb'", name="lmdb")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_lmdb)
    peers = opened(["lmdb", "sqlite"], tmp_path)
    assert list(peers) == ["sqlite"]
    peers["sqlite"].close()
    assert "lmdb is skipped" in capsys.readouterr().err


# --- load ---


def test_latency_is_counted_from_due() -> None:
    """A call that stalls delays the calls that are due meanwhile, and their latency includes it."""
    stalls = iter([1.0])
    latencies = load.at_rate([lambda: time.sleep(next(stalls, 0))], 20, 0.5)
    assert len(latencies) == 10
    assert all(latency > 0.5e9 for latency in latencies)


def test_latency_is_counted_from_due_in_a_loop() -> None:
    """A stall of the event loop is in the latency of each call, and in the lateness of a timer."""
    stalls = iter([1.0])

    async def call() -> None:
        time.sleep(next(stalls, 0))  # stalls the loop

    latencies, late = asyncio.run(load.coroutines_at_rate([call], 20, 0.5))
    assert len(latencies) == 10
    assert all(latency > 0.5e9 for latency in latencies)
    assert max(late) > 0.5


def test_the_start_of_callers_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate is that of the calls after the first one of each caller."""
    now = 0
    times = iter([100, 100])

    def call() -> None:
        nonlocal now
        now += next(times, 1)

    async def call_in_loop() -> None:
        call()

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert 0.95 < load.at_full_speed([call], 50) < 1.05  # the time may begin amid a call
    per_s, late = asyncio.run(load.coroutines_at_full_speed([call_in_loop], 50))
    assert per_s == 1
    assert late


def test_each_caller_calls_at_least_twice() -> None:
    """A round that is over before its threads or coroutines start still measures a call of each."""
    calls: list[str] = []

    async def call() -> None:
        calls.append("coroutine")

    assert load.at_full_speed([lambda: calls.append("thread")] * 2, 0) > 0
    per_s, late = asyncio.run(load.coroutines_at_full_speed([call] * 2, 0))
    assert per_s > 0
    assert len(late) == 1
    assert calls.count("thread") >= 4
    assert calls.count("coroutine") >= 4


def test_a_caller_that_fails_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round ends although a thread raises."""
    failures: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    assert load.at_full_speed([lambda: 1 // 0], 0) == 0
    assert len(failures) == 1


def test_at_least_one_call_is_due() -> None:
    """A round that is shorter than the interval between two calls still measures one call."""
    calls: list[str] = []

    async def call() -> None:
        calls.append("coroutine")

    assert len(load.at_rate([lambda: calls.append("thread")] * 2, 100, 0.001)) == 1
    latencies, late = asyncio.run(load.coroutines_at_rate([call] * 2, 100, 0.001))
    assert len(latencies) == 1
    assert late


@pytest.mark.parametrize("bench", ["burn", "commits"])
def test_rounds_may_be_too_short(
    bench: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rounds of no time at all give ratios: no peer is divided by zero updates."""
    size = ("--threads", "2", "--coroutines", "2", "--peers", "sqlite", "--rounds", "1")
    options = ["--seconds", "0", "--json", "--dir", str(tmp_path), *size]
    options += ["--burners", "1"] if bench == "burn" else []
    assert import_module(f"bench.{bench}").main(options) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["peer"] for row in rows} >= {"journal", "sqlite"}
    assert all(row["per_s"] > 0 for row in rows if row["peer"] != "nothing")


def test_computing_threads_end_with_the_measurement() -> None:
    """The computing threads take turns until the measurement ends, and end with it."""
    before = set(threading.enumerate())
    with load.burning(2) as turns:
        burners = set(threading.enumerate()) - before
        assert len(burners) == 2
        until(turns, "a computing thread takes a turn")
    assert not any(burner.is_alive() for burner in burners)


def test_growth_is_measured_at_least_once(tmp_path: Path) -> None:
    """A run of no time at all still measures the growth of the process, once."""
    with Journal.open(tmp_path / "journal") as journal:
        assert len(list(append.growth(journal, 0))) == 1


def test_the_disk_is_watched_at_least_once(tmp_path: Path) -> None:
    """A directory that is watched for no time at all has the size of its files."""
    (tmp_path / "file").write_bytes(bytes(100))
    with compact.watched(tmp_path) as held_bytes:
        pass
    assert held_bytes.value == 100


# --- bars ---


def test_a_bar_is_met_or_not() -> None:
    """A value at its bar meets it, a value on the wrong side does not, and the table says which."""
    assert at_least("a", 1, 1).met
    assert not at_least("a", 0.9, 1).met
    assert at_most("a", 1, 1, "ms").met
    assert not at_most("a", 1.1, 1, "ms").met
    assert [
        line.split()[-2:] for line in bars_table([at_most("a", 1.1, 1), at_most("b", 1, 1)])
    ] == [
        ["NOT", "MET"],
        ["x", "met"],
    ]


def test_all_bars_are_in_one_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table has the bars of all benchmarks, and `-o` saves the results of each for the
    plots."""
    done = subprocess.CompletedProcess("", 0, json.dumps({"bars": [at_most("b", 2, 1).as_json()]}))
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: done)
    assert bars.main(["imports", "append", "-o", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["MET", "MET"]
    assert {path.name for path in tmp_path.iterdir()} == {"imports.json", "append.json"}


def test_imports_are_measured_with_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports are measured with bytecode, like those of an installed package, whatever the
    environment says."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    environment = imports.environment()
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(imports.ROOT)


def test_quantiles_of_nothing_and_of_rounds() -> None:
    """Quantiles of no values are 0, the maximum is the last value, and the median of several rounds
    is taken for each quantile."""
    assert Quantiles.of([]) == Quantiles(0, 0, 0, 0)
    assert Quantiles.of(range(1000)) == Quantiles(500, 990, 999, 999)
    rounds = [Quantiles(1, 5, 7, 9), Quantiles(3, 4, 8, 9), Quantiles(2, 6, 9, 10)]
    assert Quantiles.median(rounds) == Quantiles(2, 5, 8, 9)

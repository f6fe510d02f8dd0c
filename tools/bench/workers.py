"""Measure workers in other processes, beside taskiq on Redis and beside the local runner.

- How many agents a second run whose coroutines do nothing, from the first `spawn` to the last end
  that is durable, at each number of worker processes. taskiq's tasks do nothing either, and are
  measured from the first call to the last stored result; its stream is in a Redis with an
  append-only file that is synced each second, and at each write ("always"), as the journal is.
- How long calls hold the manager's lock then, beside the same agents with `run_workers`.
- How many commands `true` a second run through `subagents worker`, beside `subagents run` alone,
  from the first start to the last end.
- How much memory a dispatcher adds to a manager with many queued agents.

This needs the dependency group `mirror` for its NATS server. A peer that is not installed is
skipped: taskiq is in the group `bench`, and redis-server is a package of the system.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from proof.servers import Server, free_ports, nats_servers, wait_until

from bench.figures import Bar, at_least, at_most, human
from bench.imports import environment
from bench.machine import about
from bench.output import parsed, parser_of, show
from manager import read_fleet

OURS = "workers"
SYNCS = {"taskiq": "everysec", "taskiq always": "always"}
"""The peers, with the `appendfsync` of their Redis."""

_JOBS = 4
_MODULE = (sys.executable, "-P", "-m")
_START_S = 3.0


def missing() -> str:
    """Return why taskiq can't be measured, or ""."""
    if importlib.util.find_spec("taskiq_redis") is None:
        return "taskiq is not measured: install the dependency group bench"
    if shutil.which("redis-server") is None:
        return "taskiq is not measured: install redis-server"
    return ""


@contextmanager
def processes(*commands: Iterable[str], env: dict[str, str]) -> Iterator[None]:
    """Run processes meanwhile. At the end, kill them and their children."""
    started = [
        subprocess.Popen([*command], env=env, stdout=subprocess.DEVNULL, start_new_session=True)
        for command in commands
    ]
    try:
        yield
        for each in started:
            assert each.poll() is None, "a worker has ended"
    finally:
        for each in started:
            os.killpg(each.pid, signal.SIGKILL)
            each.wait()


def printed(*command: str, env: dict[str, str]) -> dict[str, Any]:
    """Return the JSON that a command prints."""
    done = subprocess.run([*_MODULE, *command], env=env, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def of_ours(directory: Path, address: str, role: str, workers: int, count: int) -> dict[str, Any]:
    """Return what a manager with `workers` worker processes prints."""
    url, env = f"nats://{address}/{directory.name}", environment()
    command = (*_MODULE, "bench.workers_fleet", "work", "", url)
    with processes(*((*command, f"w{number}") for number in range(workers)), env=env):
        return printed("bench.workers_fleet", role, str(directory), url, str(count), env=env)


def of_taskiq(directory: Path, fsync: str, workers: int, count: int) -> dict[str, Any]:
    """Return what a client of taskiq with `workers` worker processes prints."""
    with free_ports(1) as [port]:
        settings = f"--port {port} --bind 127.0.0.1 --appendonly yes --appendfsync {fsync} --save"
        server = Server(["redis-server", *settings.split(), ""], directory)
        env = environment() | {"BENCH_REDIS_URL": f"redis://127.0.0.1:{port}"}
        worker = (
            *_MODULE,
            "taskiq",
            "worker",
            "bench.workers_peer:broker",
            "--log-level",
            "ERROR",
            "--max-prefetch",
            "100",
        )
        try:
            wait_until(lambda: _accepts(port), "Redis starts")
            with processes((*worker, "--workers", str(workers)), env=env):
                return printed("bench.workers_peer", str(count), env=env)
        finally:
            server.close()


def _accepts(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def commands_per_s(directory: Path, address: str | None, count: int) -> float:
    """Return the number of `true` a second, here or on a worker at `address`, from the first start
    to the last end. So the start of the processes is not counted."""
    (directory / "tasks").write_text("".join(f"true #{n}\n" for n in range(count)))
    env = environment() | {"SHELL": "/bin/sh"}
    run = [*_MODULE, "manager", "run", "tasks", f"-j{_JOBS}"]
    with ExitStack() as stack:
        if address is not None:
            url = f"nats://{address}/{directory.name}"
            (directory / "worker").mkdir()
            worker = (*_MODULE, "manager", "worker", url, "--slots", str(_JOBS))
            stack.enter_context(processes((*worker, "--dir", str(directory / "worker")), env=env))
            time.sleep(_START_S)  # a run starts its commands at once, too
            run += ["--on", url]
        subprocess.run(run, cwd=directory, env=env, stdout=subprocess.DEVNULL, check=True)
    agents = read_fleet(str(directory / ".subagents")).agents(include_archived=True)
    began_ms = min(agent.started_at_ms or 0 for agent in agents)
    ended_ms = max(agent.ended_at_ms or 0 for agent in agents)
    return 1000 * count / max(ended_ms - began_ms, 1)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return all results: the medians over the rounds, in which the variants alternate."""
    noops: dict[str, dict[int, list[float]]] = {}
    holds: dict[str, list[dict[str, float]]] = {"remote": [], "local": []}
    trues: dict[str, list[float]] = {"run": [], "worker": []}
    peers = {} if missing() else SYNCS
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.dir)))

        def folder() -> Path:
            return Path(tempfile.mkdtemp(dir=root, prefix="f"))

        (root / "nats").mkdir()
        _, address = stack.enter_context(nats_servers(root / "nats"))
        for _ in range(options.rounds):
            for workers in options.workers:
                ours = of_ours(folder(), address, "noop", workers, options.agents)
                found = {OURS: ours["seconds"]}
                holds["remote"].append(ours)
                for peer, fsync in peers.items():
                    taken = of_taskiq(folder(), fsync, workers, options.agents)
                    found[peer] = taken["seconds"]
                for name, seconds in found.items():
                    times = noops.setdefault(name, {}).setdefault(workers, [])
                    times.append(options.agents / seconds)
            holds["local"].append(of_ours(folder(), address, "local", 0, options.agents))
            for name, at in (("run", None), ("worker", address)):
                trues[name].append(commands_per_s(folder(), at, options.commands))
        memory = of_ours(folder(), address, "memory", 1, options.queued)
    return {
        "noops_per_s": {
            name: {str(workers): statistics.median(rates) for workers, rates in each.items()}
            for name, each in noops.items()
        },
        "ratios": {
            name: {
                str(workers): statistics.median(
                    ours / peer
                    for ours, peer in zip(noops[OURS][workers], noops[name][workers], strict=True)
                )
                for workers in options.workers
            }
            for name in peers
        },
        "holds_ns": {
            name: {
                key: statistics.median(hold[key] for hold in each)
                for key in ("hold_p50_ns", "hold_p99_ns")
            }
            for name, each in holds.items()
        },
        "commands_per_s": {name: statistics.median(rates) for name, rates in trues.items()},
        "memory": {"queued": options.queued, **memory},
        "missing": missing(),
    }


def table(results: dict[str, Any]) -> Iterator[str]:
    for name, rates in results["noops_per_s"].items():
        ratios = results["ratios"].get(name)
        for workers, rate in rates.items():
            ratio = f"{ratios[workers]:20.2f} x" if ratios else ""
            yield f"{name:16}{workers:>4} workers{rate:12,.0f} agents/s{ratio}"
    if results["missing"]:
        yield results["missing"]
    for name, hold in results["holds_ns"].items():
        p50, p99 = (human(hold[key]) for key in ("hold_p50_ns", "hold_p99_ns"))
        yield f"the lock is held, agents run {name}: p50 {p50}, p99 {p99}"
    rates = results["commands_per_s"]
    yield f"true: {rates['worker']:,.0f} a second on a worker, {rates['run']:,.0f} in a run"
    memory = results["memory"]
    yield (
        f"memory of a dispatcher with {memory['queued']:,} queued agents: "
        f"{memory['bytes'] / 1e3:,.0f} kB, at most {memory['peak_bytes'] / 1e3:,.0f} kB"
    )


def bars(results: dict[str, Any]) -> Iterator[Bar]:
    for name, ratios in results["ratios"].items():
        for workers, ratio in ratios.items():
            yield at_least(f"{workers} workers to {name}", ratio, 1.0)
    yield at_most("memory of a dispatcher", results["memory"]["peak_bytes"] / 1e6, 1.0, "MB")


def main(arguments: list[str]) -> int:
    parser = parser_of("workers", __doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--agents", type=int, default=5000, help="that do nothing")
    parser.add_argument("--commands", type=int, default=300, help="`true`")
    parser.add_argument("--queued", type=int, default=100_000, help="agents, for the memory")
    parser.add_argument("--rounds", type=int, default=3)
    options = parsed(parser, arguments)
    results = measure(options)
    versions = about("nats-py", "taskiq", "taskiq-redis")
    return show("workers", options, versions, results, table(results), bars(results))

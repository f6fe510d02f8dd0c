"""Kill workers, managers and servers of a fleet again and again, and look for tasks that are lost.

A manager spawns tasks under parents. Worker processes run them, over a cluster of three NATS
servers. Each fault kills one worker, the manager, or a server (sometimes all three), in an order
and at moments that the seed decides, and starts it again. At the end,

- each task is in the state once, completed, with the result of the lease that ended it, and with
  the checkpoint that was acknowledged first;
- each parent has completed after its tasks;
- no lease of a killed worker went on for longer than its time and 10 s after the last of these:
  the kill of its worker, the moment from which a manager serves, the start of a server;
- no such time went by without a fault and without the end of a task.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from manager import Agent, read_fleet
from proof import servers
from proof.workers_process import PARENT, TASK, result_of, task_name

CHECKOUT = Path(__file__).resolve().parents[2]
MARGIN_S = 10.0
_LOOK_S = 0.5
_SLOTS = 4
_SERVES_S = 60.0  # the time within which a manager serves, even on a busy machine
_DOWN_S = 1.0  # at most, of a server


class BrokenError(AssertionError):
    """A promise is broken."""


@dataclass
class Report:
    """The faults and what came of them."""

    killed: Counter[str] = field(default_factory=Counter)
    leases: int = 0
    repeated: int = 0
    stuck_s: float = 0.0
    idle_s: float = 0.0

    def __str__(self) -> str:
        killed = ", ".join(f"{count} {what}s" for what, count in sorted(self.killed.items()))
        return (
            f"killed {killed}; each task once in the state; {self.leases:,} runs, of which "
            f"{self.repeated:,} were repeated; longest after the last fault: {self.stuck_s:.1f} s "
            f"for a lease of a killed worker, {self.idle_s:.1f} s without the end of a task"
        )


class Fleet:
    """The processes of a fleet, which can be killed."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.report = Report()
        self._folder, self._options = folder, options
        self._random = random.Random(options.seed)
        self._servers: list[servers.Server] = []
        self._workers: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._dead_s: dict[str, float] = {}  # when each worker was killed
        self._fault_s = 0.0  # when a manager began to serve, or a server was started last
        self._is_serving = False
        self._ended = 0
        self._ended_s = time.monotonic()
        self._count = 0

    def run(self, stack: ExitStack) -> None:
        """Run the fleet through all faults, until all tasks have ended. Raises BrokenError."""
        (self._folder / "nats").mkdir()
        self._servers, addresses = stack.enter_context(
            servers.nats_servers(self._folder / "nats", 3)
        )
        self._url = f"nats://{addresses}/proof"
        stack.callback(self._kill_all)
        self._start_manager()
        for number in range(self._options.workers):
            self._start_worker(number)
        log = self._folder / "log"
        servers.wait_until(lambda: log.stat().st_size, "a task begins")
        self._fault_s = time.monotonic()
        strike = {"worker": self._worker, "manager": self._manager, "server": self._server}
        faults = [*strike] * self._options.kills
        self._random.shuffle(faults)
        for fault in faults:
            if self.report.killed[fault] < self._options.kills:
                self._watch(self._random.random() * 2 * self._options.pause_s)
                strike[fault]()
        (self._folder / "last").touch()
        while self._running.poll() is None:
            self._watch(_LOOK_S)
        if self._running.returncode:
            raise BrokenError(f"the manager ended with {self._running.returncode}")
        self._check()

    # --- the faults ---

    def _worker(self) -> None:
        number = self._random.randrange(len(self._workers))
        name, process = self._workers[number]
        _kill(process)
        self._dead_s[name] = time.monotonic()
        self._start_worker(number)
        self.report.killed["worker"] += 1

    def _manager(self) -> None:
        if (code := self._running.poll()) is not None:
            raise BrokenError(f"the manager ended with {code}")
        _kill(self._running)
        self._start_manager()
        self.report.killed["manager"] += 1

    def _server(self) -> None:
        victims = [self._random.choice(self._servers)]
        left = self._options.kills - self.report.killed["server"]
        if self._random.random() < 0.1 and left >= len(self._servers):
            victims = self._servers
        for victim in victims:
            victim.kill()
        self._watch(self._random.random() * _DOWN_S)
        for victim in victims:
            victim.start()
        self._fault_s = time.monotonic()
        self.report.killed["server"] += len(victims)

    # --- the processes ---

    def _start_manager(self) -> None:
        each = -(-self._options.tasks // self._options.parents)
        sizes = (str(self._options.lease_s), str(self._options.parents), str(each))
        self._running = self._start("manager", str(self._folder), self._url, *sizes)
        self._is_serving, self._fault_s = False, time.monotonic()

    def _start_worker(self, number: int) -> None:
        self._count += 1
        name = f"w{number}-{self._count}"
        sizes = (str(_SLOTS), str(self._options.work_s))
        process = self._start("worker", str(self._folder / "log"), self._url, name, *sizes)
        self._workers[number : number + 1] = [(name, process)]

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        path = f"{CHECKOUT}{os.pathsep}{CHECKOUT / 'tools'}"
        with (self._folder / "errors").open("ab") as errors:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "proof.workers_process", *arguments],
                env=os.environ | {"PYTHONPATH": path},
                stderr=errors,
            )

    def _kill_all(self) -> None:
        for process in (self._running, *(process for _, process in self._workers)):
            _kill(process)

    # --- the promises ---

    def _watch(self, for_s: float) -> None:
        """Look at the fleet for some time. Raises BrokenError for an agent that is stuck."""
        until_s = time.monotonic() + for_s
        while (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _LOOK_S))
            self._look()

    def _look(self) -> None:
        agents, now_s = self._agents(), time.monotonic()
        bound_s = self._options.lease_s + MARGIN_S
        if not self._is_serving:
            serving = self._folder / "serving"
            self._is_serving = serving.exists() and serving.read_text() == str(self._running.pid)
            if now_s - self._fault_s > _SERVES_S:
                raise BrokenError(f"the manager does not serve after {_SERVES_S:g} s")
            if not self._is_serving:
                return
            self._fault_s = now_s
        for agent in agents:
            if agent.status != "running" or agent.lease is None:
                continue
            name = agent.lease["worker"].partition(".")[0]
            if (dead_s := self._dead_s.get(name)) is not None:
                stuck_s = now_s - max(dead_s, self._fault_s)
                self.report.stuck_s = max(self.report.stuck_s, stuck_s)
                if stuck_s > bound_s:
                    raise BrokenError(f"{agent.name} is with {name}, killed {stuck_s:.1f} s ago")
        tasks = [agent for agent in agents if agent.agent_type == TASK]
        ended = sum(agent.ended_at_ms is not None for agent in tasks)
        if ended != self._ended or ended == len(tasks):
            self._ended, self._ended_s = ended, now_s
        idle_s = now_s - max(self._ended_s, self._fault_s, *self._dead_s.values())
        self.report.idle_s = max(self.report.idle_s, idle_s)
        if idle_s > bound_s + 2 * self._options.work_s:
            raise BrokenError(f"no task has ended for {idle_s:.1f} s; {ended} have")

    def _agents(self) -> list[Agent]:
        return read_fleet(self._folder / ".subagents").agents(include_archived=True)

    def _check(self) -> None:
        options = self._options
        each = -(-options.tasks // options.parents)
        agents = self._agents()
        expected = {task_name(p, n) for p in range(options.parents) for n in range(each)}
        names = Counter(agent.name for agent in agents if agent.agent_type == TASK)
        if names != Counter(expected):
            extra, missing = names - Counter(expected), Counter(expected) - names
            raise BrokenError(f"too many tasks: {[*extra][:9]}, missing: {[*missing][:9]}")
        lines = [line.split() for line in (self._folder / "log").read_text().splitlines()]
        events = [(event, name, (int(epoch), int(lsn))) for event, name, epoch, lsn in lines]
        by_task = {agent.name: agent for agent in agents}
        for event, name, token in events:
            check_event(by_task[name], event, token)
        made = {(name, token) for event, name, token in events if event == "made"}
        for agent in agents:
            check_end(agent, made, each)
        self.report.leases = sum(event == "begun" for event, *_ in events)
        self.report.repeated = self.report.leases - len(expected)


def check_event(agent: Agent, event: str, token: tuple[int, int]) -> None:
    """Raise BrokenError if a line of a worker's log contradicts the agent's end."""
    assert agent.lease is not None
    if token > (agent.lease["epoch"], agent.lease["lsn"]):
        raise BrokenError(f"{agent.name} was begun again by {token}, after its end")
    if event == "kept" and agent.checkpoint != [*token]:
        raise BrokenError(f"{agent.name} has lost the checkpoint of {token}")


def check_end(agent: Agent, made: set[tuple[str, tuple[int, int]]], each: int) -> None:
    """Raise BrokenError unless an agent has completed as it should. `made` are the results that
    workers have made, and `each` is the number of a parent's tasks."""
    if agent.status != "completed":
        raise BrokenError(f"{agent.name} is {agent.status}")
    if agent.agent_type == PARENT:
        expected = f"{each} tasks"
    else:
        assert agent.lease is not None
        token = agent.lease["epoch"], agent.lease["lsn"]
        expected = result_of(agent.name, *token)
        if (agent.name, token) not in made:
            raise BrokenError(f"{agent.name} has a result that no worker has made")
    if agent.result != expected:
        raise BrokenError(f"{agent.name} has the result {agent.result!r}, not {expected!r}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def main(arguments: list[str]) -> int:
    """Run the faults, and return the exit code: 1 after the first broken promise."""
    parser = argparse.ArgumentParser(
        prog="python tools/proof workers",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--workers", type=int, default=10, help="processes; default: 10")
    parser.add_argument("--tasks", type=int, default=2000, help="default: 2000")
    parser.add_argument("--parents", type=int, default=20, help="default: 20")
    parser.add_argument(
        "--kills", type=int, default=100, help="of workers, managers and servers each; default: 100"
    )
    parser.add_argument("--lease-s", type=float, default=3.0, help="default: 3")
    parser.add_argument("--work-s", type=float, default=4.0, help="of a task, about; default: 4")
    parser.add_argument("--pause-s", type=float, default=1.0, help="between faults; default: 1")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    options = parser.parse_args(arguments)
    if min(options.workers, options.tasks, options.parents) < 1 or options.kills < 0:
        parser.error("--workers, --tasks and --parents must be 1 or more")
    began_s = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fleet = Fleet(folder, options)
        what = f"{options.tasks:,} tasks, {options.workers} workers, seed {options.seed}"
        try:
            fleet.run(stack)
        except BrokenError as error:
            print(f"{what}: {error}; killed {dict(fleet.report.killed)}")
            print((folder / "errors").read_text()[-4000:], file=sys.stderr)
            return 1
    print(f"{what}, {time.monotonic() - began_s:.0f} s: {fleet.report}")
    return 0

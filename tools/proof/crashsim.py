"""Explore every crash of random workloads, on the real engine over a simulated disk.

Each seed gives a workload of appends, batches, waits, idle marks, compactions (some with commits
during them), closes, reopenings, kills and power cuts. Odd seeds have durability "os", even ones
"disk". Segments, frames and writes are so small that segments roll, commits are split into frames,
and writes are cut short. Each workload runs once and is explored; see `journal.testing.explore`. A
failure ends the run, and is reported with its seed and the operations before the crash.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count, islice
from multiprocessing import get_context
from typing import Any

from journal import __version__
from journal.testing import (
    Bounds,
    BrokenPromiseError,
    ExplorationReport,
    ManualOptions,
    Owner,
    explore,
    seeded,
)
from proof.ledger import Ledger
from proof.mirrored_explorer import explore_mirrored

# The weight of each step, in percent.
STEPS = {
    "append": 18,
    "commit": 24,
    "batch": 10,
    "wait": 10,
    "idle": 12,
    "compact": 6,
    "compact_beside": 4,
    "reopen": 5,
    "kill": 5,
    "power_cut": 6,
}
REPORT_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The workload of a seed, and the options that it runs with."""

    seed: int
    options: ManualOptions
    write_bytes_max: int | None
    fillers: tuple[int, ...]
    steps: tuple[str, ...]

    @classmethod
    def of(cls, seed: int, steps: int) -> Plan:
        """Return the plan of `seed`, a workload of `steps` steps."""
        choose = random.Random(seed)
        frame_bytes_max, fillers = choose.choice(
            [(4096, (0, 40, 700)), (28, (0, 3)), (1 << 20, (0,))]
        )
        options = ManualOptions(
            durability="os" if seed % 2 else "disk",
            segment_bytes=choose.choice([1, 200, 400, 4096]),
            frame_bytes_max=frame_bytes_max,
        )
        names = choose.choices(list(STEPS), list(STEPS.values()), k=steps)
        write_bytes_max = choose.choice([None, None, max(50, fillers[-1] // 2)])
        return cls(seed, options, write_bytes_max, fillers, tuple(names))

    def run(self, owner: Owner[Ledger]) -> None:
        """Run the workload, the same each time."""
        choose = random.Random(self.seed)
        owner.disk.write_bytes_max = self.write_bytes_max

        def record() -> list[Any]:
            value = choose.choice([0, 1, owner.last_lsn, None])
            return [choose.choice("abc"), value, "f" * choose.choice(self.fillers)]

        steps: dict[str, Callable[[], object]] = {
            "append": lambda: owner.append(record()),
            "batch": lambda: owner.append_batch([record() for _ in range(choose.randint(2, 3))]),
            "commit": lambda: owner.wait(owner.append(record())),
            "wait": owner.wait,
            "idle": owner.idle,
            "compact": owner.compact,
            "compact_beside": lambda: compact_beside(owner, record(), choose.randint(0, 6)),
            "reopen": owner.reopen,
            "kill": owner.kill,
            "power_cut": lambda: owner.power_cut(seeded(choose.getrandbits(30), damage=True)),
        }
        for name in self.steps:
            steps[name]()
            if name in ("kill", "power_cut"):
                owner.reopen()
        owner.close()


def compact_beside(owner: Owner[Ledger], record: list[Any], at: int) -> None:
    """Compact, and commit a record before the disk operation number `at` of the compaction."""
    thread, calls = threading.get_ident(), count()

    def before(operation: str, path: str) -> None:
        if threading.get_ident() == thread and next(calls) == at:
            owner.disk.before = None
            owner.append(record)
            owner.wait()

    owner.disk.before = before
    owner.compact()
    owner.disk.before = None


@dataclass(frozen=True, slots=True)
class Explored:
    """The result of a seed."""

    report: ExplorationReport
    failure: str | None = None


def explored(seed: int, steps: int, bounds: Bounds, *, is_mirrored: bool = False) -> Explored:
    plan = Plan.of(seed, steps)
    explore_plan = explore_mirrored if is_mirrored else explore
    try:
        return Explored(explore_plan(Ledger, plan.run, options=plan.options, bounds=bounds))
    except BrokenPromiseError as error:
        return Explored(ExplorationReport(), f"{plan}\n{error}")


def explored_by(
    processes: int, seeds: Iterable[int], explore_seed: Callable[[int], Explored]
) -> Generator[Explored]:
    """Yield the result of each seed when it is ready. Take a seed when a process is free."""
    if processes == 1:
        yield from map(explore_seed, seeds)
        return
    remaining = iter(seeds)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        running = {pool.submit(explore_seed, seed) for seed in islice(remaining, processes)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {
                    pool.submit(explore_seed, seed) for seed in islice(remaining, len(done))
                }
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass
class Totals:
    """The totals of the seeds that are done."""

    seeds: int = 0
    report: ExplorationReport = field(default_factory=ExplorationReport)
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def __str__(self) -> str:
        report, seconds = self.report, self.seconds
        return (
            f"{self.seeds} seeds, {report.moments:,} crash points, {report.states:,} states, "
            f"{report.images:,} different images, {seconds:.0f} s, "
            f"{report.states / seconds:,.0f} states/s"
        )

    def as_json(self, failure: str | None) -> str:
        figures = {"seeds": self.seeds, **asdict(self.report), "seconds": round(self.seconds, 1)}
        return json.dumps({"journal": __version__, **figures, "failure": failure})


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tools/proof crashsim",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="the first seed; default: 1")
    parser.add_argument("--steps", type=int, default=30, help="steps per workload; default: 30")
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument("--seconds", type=float, help="stop after this time; default: 60")
    ends.add_argument("--seeds", type=int, help="stop after this number of seeds")
    ends.add_argument("--states", type=int, help="stop after this number of states")
    bounds = parser.add_argument_group("bounds, as in journal.testing.Bounds")
    bounds.add_argument("--outcomes-max", type=int, default=256)
    bounds.add_argument("--deviations", type=int, default=2)
    bounds.add_argument("--sequels", type=int, default=100)
    bounds.add_argument("--rot", type=int, default=10)
    parser.add_argument("--mirror", action="store_true", help="judge what a mirror leaves, instead")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.seeds is None and options.states is None and options.seconds is None:
        options.seconds = 60.0
    return options


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    bounds = Bounds(
        outcomes_max=options.outcomes_max,
        deviations=options.deviations,
        sequels=options.sequels,
        rot=options.rot,
    )
    explore_seed = partial(explored, steps=options.steps, bounds=bounds, is_mirrored=options.mirror)
    seeds = islice(count(options.seed), options.seeds)
    totals, failure, reported_s = Totals(), None, 0.0
    with closing(explored_by(options.processes, seeds, explore_seed)) as results:
        for result in results:
            if totals.seeds and not options.json and totals.seconds - reported_s >= REPORT_EVERY_S:
                print(totals, flush=True)
                reported_s = totals.seconds
            totals.seeds += 1
            totals.report += result.report
            failure = result.failure
            is_late = options.seconds is not None and totals.seconds >= options.seconds
            has_enough = options.states is not None and totals.report.states >= options.states
            if failure or is_late or has_enough:
                break
    if options.json:
        print(totals.as_json(failure))
    else:
        print(totals if failure is None else f"{failure}\n\n{totals}")
    return 0 if failure is None else 1

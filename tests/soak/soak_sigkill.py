"""A soak of a real process, killed again and again while it works on a real directory.

    python -m tests.soak.soak_sigkill --kills 1000 --seed 7

A child process opens one state. Its threads and its event loop append, wait, compact and start
segments as fast as they can. Each acknowledgement is sent through a pipe, after its wait has
returned. SIGKILL strikes at a random moment. The remaining files are then opened by the next child,
which may be killed before it has recovered, or by this process. Both are compared with everything
that was ever acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from journal import CowTable, DurableState, JournalReader, Options

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60
THREADS = 4
LOOP = THREADS  # the number of the writer that waits in an event loop
WRITERS = THREADS + 1
BATCH = 3  # records in an update_batch
START_S = 0.4  # about the time that an open takes


class Counters:
    """A machine with each writer's last record number, and every record that came out of order."""

    application = "counters/1"

    def __init__(self) -> None:
        self.table: CowTable[int, Any] = CowTable()
        self.out_of_order: list[Any] = []

    def load(self, item: Any) -> None:
        self.table[item["writer"]] = item

    def apply(self, lsn: int, record: Any) -> None:
        writer, number, _ = record
        if number != self.last(writer) + 1:
            self.out_of_order.append([lsn, record])
        self.table[writer] = {"writer": writer, "number": number}

    def freeze(self) -> Iterable[Any]:
        return self.table.freeze()

    def last(self, writer: int) -> int:
        item = self.table.get(writer)
        return item["number"] if item else 0

    @property
    def last_numbers(self) -> dict[int, int]:
        return {writer: self.last(writer) for writer in range(WRITERS)}


def open_counters(path: Path, durability: Any) -> DurableState[Counters]:
    options = Options(
        durability=durability,
        segment_bytes=8192,  # several segments per cycle
        checkpoint_min_bytes=16384,  # and compactions by the compactor's thread
    )
    return DurableState.open(path, Counters(), options=options)


# --- the child ---


def work(path: Path, durability: str) -> None:
    """Append until killed. Print the recovered numbers, then a line for each acknowledgement."""
    state = open_counters(path, durability)
    assert not state.machine.out_of_order, state.machine.out_of_order
    print("open", *state.machine.last_numbers.values(), flush=True)
    threads = [
        *(threading.Thread(target=append, args=(state, writer)) for writer in range(THREADS)),
        threading.Thread(target=lambda: asyncio.run(append_in_loop(state))),
        threading.Thread(target=compact, args=(state,)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def acknowledge(writer: int, number: int) -> None:
    # The line is written at once and whole, since it is shorter than a pipe's atomic size.
    os.write(1, b"%d %d\n" % (writer, number))


def append(state: DurableState[Counters], writer: int) -> None:
    generator = random.Random()
    number = state.machine.last(writer)

    def records(count: int) -> list[Any]:
        return [[writer, number + i, "x" * generator.randrange(200)] for i in range(1, count + 1)]

    while True:
        if writer % 2:
            lsn = state.update_batch(lambda _: records(BATCH))
            number += BATCH
        else:
            lsn = state.update(lambda _: records(1)[0])
            number += 1
        if generator.random() < 0.5:
            state.wait_durable(lsn, timeout_s=generator.choice([None, 30]))
            acknowledge(writer, number)


async def append_in_loop(state: DurableState[Counters]) -> None:
    number = state.machine.last(LOOP)

    def record(number: int, _: Counters) -> list[Any]:
        return [LOOP, number, ""]

    async def wait(lsn: int | None, number: int) -> None:
        await state.durable(lsn)
        acknowledge(LOOP, number)

    while True:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                number += 1
                lsn = state.update(partial(record, number))
                group.create_task(wait(lsn, number))


def compact(state: DurableState[Counters]) -> None:
    while True:
        state.compact().close()


# --- the parent ---


@dataclass
class Report:
    """The results of a soak. `acknowledged` and `recovered` count records, and `checks` counts how
    often a recovered state was compared after a kill."""

    seed: int
    kills: int = 0
    in_recovery: int = 0
    checks: int = 0
    acknowledged: int = 0
    recovered: int = 0
    epochs: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills ({self.in_recovery} before the state was open), "
            f"{self.acknowledged} records acknowledged, {self.recovered} recovered, "
            f"{self.epochs} epochs, {self.checks} recovered states checked, "
            f"{self.seconds:.0f} s, seed {self.seed}"
        )


class Soak:
    """A series of children on one directory. A broken promise raises AssertionError."""

    def __init__(self, path: Path, seed: int) -> None:
        self.report = Report(seed)
        self._path = path
        self._generator = random.Random(seed)
        self._acknowledged: dict[int, int] = {}  # numbers received through the pipe
        self._minimum: dict[int, int] = {}  # acknowledged or once recovered, so they must stay
        self._opened = threading.Event()

    def run(self, kills: int) -> Report:
        began = time.monotonic()
        for number in range(1, kills + 1):
            durability = self._generator.choice(["disk", "os"])  # memory survives the process
            self._run_and_kill(durability)
            self.report.kills += 1
            if number == kills or self._generator.random() < 0.3:
                self._recover(durability)
            self.report.seconds = time.monotonic() - began
            if not number % 100:
                print(self.report, file=sys.stderr, flush=True)
        self._verify()
        return self.report

    def _run_and_kill(self, durability: str) -> None:
        """Run one child and kill it: in one of five cases during its start, with imports and
        recovery."""
        during_start = self._generator.random() < 0.2
        delay_s = self._generator.uniform(0, START_S if during_start else 0.1)
        self._opened.clear()
        command = [sys.executable, "-P", "-X", "faulthandler", "-m", "tests.soak.soak_sigkill"]
        with subprocess.Popen(
            [*command, "--child", str(self._path), durability],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ) as child:
            assert child.stdout is not None
            reader = threading.Thread(target=self._read, args=(child.stdout,))
            reader.start()
            try:
                if not during_start and not self._opened.wait(TIMEOUT_S):
                    # Faulthandler prints the stacks of all threads.
                    child.send_signal(signal.SIGABRT)
                    child.wait(TIMEOUT_S)
                time.sleep(delay_s)
            finally:
                child.kill()
            reader.join(TIMEOUT_S)
            assert not reader.is_alive()
        assert child.returncode == -signal.SIGKILL, "the child ended before it was killed"
        self.report.in_recovery += not self._opened.is_set()

    def _read(self, pipe: IO[bytes]) -> None:
        recovered: dict[int, int] = {}
        for line in pipe:
            words = line.split()
            if not line.endswith(b"\n"):
                break
            if words[0] == b"open":
                recovered = dict(enumerate(map(int, words[1:])))
                self._opened.set()
            else:
                writer, number = map(int, words)
                self._acknowledged[writer] = max(self._acknowledged.get(writer, 0), number)
        if recovered:
            self._check(recovered)
        self._minimum = {
            w: max(self._minimum.get(w, 0), n) for w, n in (recovered | self._acknowledged).items()
        }

    def _recover(self, durability: str) -> None:
        with open_counters(self._path, durability) as state:
            assert not state.machine.out_of_order, f"P1: {state.machine.out_of_order}"
            recovered, self.report.epochs = state.machine.last_numbers, state.journal.epoch
        self._check(recovered)
        self._minimum = recovered
        self.report.recovered = sum(recovered.values())
        self.report.acknowledged = sum(self._acknowledged.values())

    def _check(self, recovered: dict[int, int]) -> None:
        self.report.checks += 1
        lost = {w: (n, recovered[w]) for w, n in self._minimum.items() if recovered[w] < n}
        assert not lost, f"P2: expected at least, recovered: {lost}; {self.report}"
        in_batches = range(1, THREADS, 2)
        assert not any(recovered[w] % BATCH for w in in_batches), f"P3: {recovered}; {self.report}"

    def _verify(self) -> None:
        with JournalReader.open(self._path) as reader:
            assert {finding.kind for finding in reader.verify()} <= {"torn_tail"}
            checkpoints = reader.checkpoints()
        assert checkpoints, "no compaction was made"
        for checkpoint in checkpoints:
            checkpoint.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--path", type=Path, help="keep the journal at this path")
    parser.add_argument("--child", nargs=2, metavar=("PATH", "DURABILITY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        work(Path(arguments.child[0]), arguments.child[1])
    elif arguments.path:
        print(Soak(arguments.path, arguments.seed).run(arguments.kills))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            print(Soak(Path(scratch) / "journal", arguments.seed).run(arguments.kills))


if __name__ == "__main__":
    main()

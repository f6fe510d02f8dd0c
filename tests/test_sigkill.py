"""A real process, killed again and again in the midst of its work, on a real directory.

A child opens one state, and its threads append, wait, compact and roll as fast as they can. Each
acknowledgement goes through a pipe, after the wait that it tells of has returned. At a random
moment comes SIGKILL; then the state is opened here, and held against all that was acknowledged.

    JOURNAL_SIGKILL_CYCLES=1000 python -m pytest tests/test_sigkill.py  a soak
    JOURNAL_SIGKILL_SEED=…                                            the moments of an earlier run
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import pytest

from journal import CowTable, DurableState, JournalReader, Options

CYCLES = int(os.environ.get("JOURNAL_SIGKILL_CYCLES", "30"))
SEED = int(os.environ.get("JOURNAL_SIGKILL_SEED", "0")) or random.SystemRandom().getrandbits(32)
THREADS = 4
BATCH = 3  # the records of an update_batch


class Counters:
    """For each thread the number of its last record; and every record that came out of turn."""

    application = "counters/1"

    def __init__(self) -> None:
        self.table: CowTable[int, Any] = CowTable()
        self.misplaced: list[Any] = []

    def load(self, item: Any) -> None:
        self.table[item["thread"]] = item

    def apply(self, lsn: int, record: Any) -> None:
        thread, number, _ = record
        if number != self.last(thread) + 1:
            self.misplaced.append([lsn, record])
        self.table[thread] = {"thread": thread, "number": number}

    def freeze(self) -> Iterable[Any]:
        return self.table.freeze()

    def last(self, thread: int) -> int:
        item = self.table.get(thread)
        return item["number"] if item else 0


def open_counters(path: Path, durability: Any) -> DurableState[Counters]:
    options = Options(
        durability=durability,
        segment_bytes=8192,  # rolls a few times a cycle
        checkpoint_min_bytes=16384,  # and compacts by itself
    )
    return DurableState.open(path, Counters(), options=options)


# --- the child ---


def work(path: Path, durability: str) -> None:
    """Append until killed. A line for each acknowledgement: thread, number."""
    state = open_counters(path, durability)
    print("open", flush=True)
    threads = [
        *(threading.Thread(target=append, args=(state, thread)) for thread in range(THREADS)),
        threading.Thread(target=compact, args=(state,)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def append(state: DurableState[Counters], thread: int) -> None:
    generator = random.Random()
    number = state.machine.last(thread)

    def records(count: int) -> list[Any]:
        return [[thread, number + i, "x" * generator.randrange(200)] for i in range(1, count + 1)]

    while True:
        if thread % 2:
            lsn = state.update_batch(lambda _: records(BATCH))
            number += BATCH
        else:
            lsn = state.update(lambda _: records(1)[0])
            number += 1
        if generator.random() < 0.5:
            state.wait_durable(lsn, timeout_s=generator.choice([None, 30]))
            # Written at once and whole: a line is shorter than what a pipe takes in one piece.
            os.write(1, b"%d %d\n" % (thread, number))


def compact(state: DurableState[Counters]) -> None:
    while True:
        state.compact().close()


# --- the parent ---


def read_acknowledged(pipe: IO[bytes], acknowledged: dict[int, int]) -> None:
    for line in pipe:
        if line.endswith(b"\n") and line != b"open\n":
            thread, number = map(int, line.split())
            acknowledged[thread] = max(acknowledged.get(thread, 0), number)


def run_and_kill(path: Path, durability: str, delay_s: float, acknowledged: dict[int, int]) -> None:
    command = [sys.executable, "-P", "-m", "tests.test_sigkill", str(path), durability]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            if delay_s > 0:
                assert child.stdout.readline() == b"open\n", "the child could not open it"
            reader = threading.Thread(target=read_acknowledged, args=(child.stdout, acknowledged))
            reader.start()
            time.sleep(abs(delay_s))
        finally:
            child.kill()
        reader.join(30)
        assert not reader.is_alive()
    assert child.returncode == -9, "it was alive until then"


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_to_sigkill(tmp_path: Path) -> None:
    """P1, P2, P3, P5, P6: after each kill the state opens, has all that was acknowledged, of each
    thread the records in order, and of each batch all or nothing. In both durabilities: memory
    survives the process."""
    path, generator = tmp_path / "journal", random.Random(SEED)
    acknowledged: dict[int, int] = {}
    print(f"JOURNAL_SIGKILL_SEED={SEED}")
    for cycle in range(CYCLES):
        durability = generator.choice(["disk", "os"])
        # One in five while it starts: imports, recovery.
        delay_s = generator.uniform(0, 0.1) * (1 if generator.random() < 0.8 else -1)
        run_and_kill(path, durability, delay_s, acknowledged)
        with open_counters(path, durability) as state:
            found = {thread: state.machine.last(thread) for thread in range(THREADS)}
            assert not state.machine.misplaced, cycle
        lost = {t: (n, found[t]) for t, n in acknowledged.items() if found[t] < n}
        assert not lost, f"cycle {cycle}: acknowledged, found: {lost}"
        assert all(found[thread] % BATCH == 0 for thread in range(1, THREADS, 2)), (cycle, found)
        acknowledged |= found  # what was shown stays
    assert sum(acknowledged.values()) > CYCLES, "it did get to work"
    with JournalReader.open(path) as reader:
        assert {finding.kind for finding in reader.verify()} <= {"torn_tail"}
        checkpoints = reader.checkpoints()
    assert checkpoints, "it did compact"
    for checkpoint in checkpoints:
        checkpoint.close()


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2])

"""A journal's owner who is crashed at every step, and knows what must survive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

from journal import FailedError, JournalReader, Options
from journal.testing import SimulatedDisk
from tests.crash_support import (
    PATH,
    Durability,
    Record,
    append,
    discard,
    every_choice,
    manual_options,
    open_ledger,
    outcome_of,
    recover,
)

ONE_RECORD = 120  # bytes of a segment that the second commit would overflow


class Owner:
    """An open ledger, what was appended to it, and the LSN up to which no power cut may harm it."""

    def __init__(self, durability: Durability = "disk", options: Options | None = None) -> None:
        self.disk = SimulatedDisk()
        self.options = options or manual_options(durability)
        self.batches: list[list[Record]] = []
        self.safe = 0
        self.state = open_ledger(self.disk, self.options)

    @property
    def last_lsn(self) -> int:
        return sum(map(len, self.batches))

    def append(self, size: int = 1) -> None:
        begin = self.last_lsn + 1
        batch: list[Record] = [["abc"[lsn % 3], lsn, ""] for lsn in range(begin, begin + size)]
        append(self.state, *batch)
        self.batches.append(batch)

    def commit(self, times: int = 1) -> None:
        for _ in range(times):
            self.append()
            self.wait()

    def wait(self) -> None:
        self.state.wait_durable()
        if self.options.durability == "disk":
            self.safe = self.last_lsn

    def compact(self) -> None:
        self.state.compact().close()
        self.safe = self.last_lsn

    def close(self) -> None:
        self.state.close()
        self.safe = self.last_lsn

    def reopen(self) -> None:
        """P1, P2, P3, P5, P6. What is shown then, stays."""
        self.state = recover(self.disk, self.options, self.batches, at_least=self.safe)
        self.safe = self.last_lsn

    def crash(self, choose: Callable[[int], int] | None, *, whole: bool = False) -> None:
        """The power goes, with an outcome that is chosen; None: the process alone dies."""
        if choose:
            self.disk.power_cut(outcome_of(choose, whole=whole))
        else:
            self.disk.kill()
        discard(self.state)

    def alarms(self) -> set[str]:
        """What `verify` calls damage, of a journal that is not open."""
        if not self.disk.contents(PATH):
            return set()
        with JournalReader.open(PATH, disk=self.disk) as reader:
            return {str(finding.kind) for finding in reader.verify()} - {"torn_tail", "stray"}

    def end(self) -> None:
        self.disk.kill()
        discard(self.state)


def rolling(durability: Durability = "disk") -> Owner:
    """Each commit makes a segment."""
    return Owner(options=manual_options(durability, segment_bytes=ONE_RECORD))


Step = Callable[[Owner], None]


def crashes(
    make: Callable[[], Owner], prepare: Step, step: Step, *, whole: bool = False
) -> Iterator[Owner]:
    """The owner after each crash within `step`, before it is reopened."""
    for after in count():
        crashed = False
        for choose in every_choice():
            owner = make()
            prepare(owner)
            owner.disk.crash_after(after)
            try:
                step(owner)
            except (OSError, FailedError):
                assert owner.disk.crashed
            crashed = owner.disk.crashed
            owner.crash(choose, whole=whole)
            yield owner
        if not crashed:
            return


def survives(make: Callable[[], Owner], prepare: Step, step: Step, *, whole: bool = False) -> int:
    """Each crash within `step` is recovered, and the journal then goes on. How many there were."""
    states = 0
    for owner in crashes(make, prepare, step, whole=whole):
        states += 1
        assert owner.alarms() <= {"bad_checkpoint"}, "P4: a crash is no damage"
        owner.reopen()
        owner.commit()
        owner.crash(lambda width: 1)  # all that is not synced is lost
        owner.reopen()
        owner.end()
    return states


def nothing(owner: Owner) -> None:
    pass

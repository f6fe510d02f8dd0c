"""An owner of a journal, for tests that crash it at every step and know what must survive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

from proof.ledger import Ledger

from journal import FailedError, JournalReader, Options, testing
from journal.testing import ManualOptions
from tests.crash.crash_support import (
    PATH,
    Durability,
    Record,
    every_choice,
    outcome_of,
)

ONE_RECORD = 120  # segment size in bytes; a second commit would exceed it


class Owner(testing.Owner[Ledger]):
    """The owner of a ledger. It makes up the records that it appends."""

    def __init__(self, durability: Durability = "disk", options: Options | None = None) -> None:
        super().__init__(Ledger, options=options or ManualOptions(durability=durability))

    def append(self, size: int = 1) -> int:
        begin = self.last_lsn + 1
        batch: list[Record] = [["abc"[lsn % 3], lsn, ""] for lsn in range(begin, begin + size)]
        return self.append_batch(batch) if size > 1 else super().append(batch[0])

    def commit(self, times: int = 1) -> None:
        for _ in range(times):
            self.append()
            self.wait()

    def compact(self) -> None:
        """Compact as the compactor's thread does: no filler shifts the LSNs that a test counts."""
        self.state.journal._fill = None
        super().compact()

    def crash(self, choose: Callable[[int], int] | None, *, whole: bool = False) -> None:
        """Cut the power with an outcome that `choose` decides. With None, kill only the process."""
        if choose:
            self.power_cut(outcome_of(choose, whole=whole))
        else:
            self.kill()

    def alarms(self) -> set[str]:
        """Return the kinds of damage that `verify` reports. The journal must not be open."""
        if not self.disk.contents(PATH):
            return set()
        with JournalReader.open(PATH, disk=self.disk) as reader:
            return {str(finding.kind) for finding in reader.verify()} - {"torn_tail", "stray"}


def rolling(durability: Durability = "disk") -> Owner:
    """Return an owner whose every commit fills a segment."""
    return Owner(options=ManualOptions(durability=durability, segment_bytes=ONE_RECORD))


Step = Callable[[Owner], None]


def crashes(
    make: Callable[[], Owner], prepare: Step, step: Step, *, whole: bool = False
) -> Iterator[Owner]:
    """Yield the owner after each crash within `step`, before it is reopened."""
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
    """Check recovery after each crash within `step`. Return the number of crashes."""
    states = 0
    for owner in crashes(make, prepare, step, whole=whole):
        states += 1
        assert owner.alarms() <= {"bad_checkpoint"}, "P4: a crash is no damage"
        owner.reopen()
        owner.commit()
        owner.crash(lambda width: 1)  # everything unsynced is lost
        owner.reopen()
        owner.end()
    return states


def do_nothing(owner: Owner) -> None:
    pass

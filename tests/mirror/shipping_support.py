"""A journal and the shipper of its mirror, for tests of shipping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from journal import Journal, Options
from journal._disk.posix import PosixDisk
from journal._mirror.attaching import Attached
from journal._mirror.blobs import RollUpName, roll_up_names
from journal._mirror.holding import Holding
from journal._mirror.memory_store import MemoryStore
from journal._mirror.permit import Permit
from journal._mirror.place_note import Known
from journal._mirror.reading import read_log
from journal._mirror.shipper import Shipper
from journal._mirror.store import Store, StoreError, UnreachableError
from journal._mirror.upkeep import Upkeep
from tests.mirror.test_claiming import claimer
from tests.mirror.world import STATEMENT
from tests.support import until

TIMEOUT_S = 20.0
SMALL = Options(segment_bytes=4096)


class Outages(MemoryStore):
    """A store that can be made unreachable. `refused` is set once a request has failed."""

    def __init__(self) -> None:
        super().__init__()
        self.is_down = False
        self.error: type[StoreError] = UnreachableError
        self.refused = threading.Event()
        self.appends = 0

    def append(self, number: int, data: bytes) -> None:
        if self.is_down:
            self.refused.set()
            raise self.error("the store is down")
        super().append(number, data)
        self.appends += 1


class SettlingUpkeep(Upkeep):
    """An upkeep that counts the times when it has nothing more to do."""

    times_settled = 0

    def run(self, mirrored_lsn: int, *, wait_s: float = 0.0) -> None:
        super().run(mirrored_lsn, wait_s=wait_s)
        has_work = self._job or self._roll_ups.is_due or self._holding.is_compacted
        self.times_settled += not has_work


class Mirrored:
    """A journal and the shipper of its mirror. The shipper has its own handle of the directory."""

    def __init__(
        self,
        path: Path,
        store: Store,
        options: Options = SMALL,
        *,
        interval_s: float = 0.005,
        lag_bytes_max: int = 1 << 30,
        keep_s: float = 86_400,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self.journal = Journal.open(path, options=options)
        self.statement = STATEMENT._replace(journal_id=self.journal.journal_id)
        self.failures: list[BaseException] = []
        self._writer = self.journal._core.committer._writer
        directory = PosixDisk().open_directory(path, write=False)
        known = Known()
        for entry in read_log(store):
            known.add(entry)
        appender = claimer(store, self.statement, takeover=True).claim()
        known.pass_by(appender.claimed)
        self.has_ended = threading.Event()
        self.holding = Holding(lag_bytes_max)
        self.journal._core.compactor.hold_back(self.holding)
        now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)
        self.shipper = Shipper(
            lambda: Attached(store, appender, known),
            directory,
            partial(SettlingUpkeep, holding=self.holding, keep_s=keep_s, now_ms=now_ms),
            lambda: self._writer.synced_end,
            epoch=self.journal.epoch,
            mirrored_lsn=appender.claimed.last_lsn,
            recovered_lsn=self.journal.last_lsn,
            interval_s=interval_s,
            events=self,
            permit=Permit(),
        )
        self.shipper.start()

    def due_s(self) -> float:
        return 0

    def mirrored(self, lsn: int) -> None:
        pass

    def shipped(self, size: int, took_s: float) -> None:
        pass

    def looked(self) -> None:
        pass

    def stalled(self, error: StoreError) -> None:
        pass

    def gave_up(self, error: BaseException) -> None:
        pass

    def failed(self, error: BaseException) -> None:
        self.failures.append(error)

    def ended(self) -> None:
        self.has_ended.set()

    def commit(self, count: int = 1) -> int:
        for _ in range(count):
            lsn = self.journal.append("x" * 100)
            self.journal.wait_durable(lsn)
        return lsn

    def settle(self) -> None:
        """Wait until everything that was shipped is rolled up, and all checkpoints are put."""
        upkeep = self.shipper._linked.upkeep
        assert isinstance(upkeep, SettlingUpkeep)
        before = upkeep.times_settled
        # Two times, because the first may have begun before this call.
        until(lambda: upkeep.times_settled >= before + 2, "the end of the upkeep")

    def close(self, limit_s: float = TIMEOUT_S) -> None:
        """Close the log, and then the mirror."""
        self.journal.close()
        self.shipper.stop(limit_s)
        assert self.shipper.join(TIMEOUT_S)

    def crash(self) -> None:
        """End as after a kill: nothing more is written or shipped."""
        link = self.shipper._linked
        link.unshipped.read = lambda *_, **__: ([], True)  # type: ignore[method-assign]
        link.appender.release = lambda: None  # type: ignore[method-assign]
        self.shipper.stop(TIMEOUT_S)
        assert self.shipper.join(TIMEOUT_S)
        self._writer.close = self._writer.release  # type: ignore[method-assign]
        self.journal.close()


def segments_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.seg"))}


def needed_roll_ups(store: MemoryStore) -> list[RollUpName]:
    """Return the roll-ups without which entries are missing.

    The entries of others are still there, because a writer's last entry is never trimmed.
    """
    there = set(store.numbers(0))
    names = roll_up_names(store.blob_names())
    needed = [name for name in names if set(range(name.first, name.last)) - there]
    assert len(needed) >= 2
    return needed

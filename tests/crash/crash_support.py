"""What the crash tests share: a small state machine, its oracle, and every outcome of a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from journal import DurableState, FailedError, Options
from journal._format.segment import segment_names
from journal.testing import Change, Outcome, SimulatedDisk
from journal.testing.ledger import Ledger as StrictLedger
from journal.testing.ledger import digest

PATH = "/journal"
Record = list[Any]  # key, value (None: the key goes), filler
Durability = Literal["disk", "os"]


class Summary(NamedTuple):
    """A state in full: the digest is of every record in order, with its LSN."""

    lsn: int
    digest: int
    rows: dict[str, Any]


class Ledger(StrictLedger):
    """One that can be compared with `replayed`."""

    @property
    def summary(self) -> Summary:
        rows = {key: item["value"] for key, item in self.table.items()}
        return Summary(self.lsn, self.digest, rows)


def replayed(records: list[Record]) -> Summary:
    """The oracle: what all `records`, from LSN 1 on, amount to."""
    rows: dict[str, Any] = {}
    found = 0
    for lsn, record in enumerate(records, 1):
        key, value, _ = record
        rows[key] = value
        found = digest(found, lsn, record)
    rows = {key: value for key, value in rows.items() if value is not None}
    return Summary(len(records), found, rows)


def open_ledger(disk: SimulatedDisk, options: Options, *, path: str = PATH) -> DurableState[Ledger]:
    return DurableState.open(path, Ledger(), options=options, disk=disk)


def mark(state: DurableState[Ledger]) -> None:
    """What the flusher does when the log falls idle. Nothing else may be under way."""
    state.journal._core.committer.mark()


def append(state: DurableState[Ledger], *records: Record) -> int:
    """Append each, in one batch if there are several; the last LSN."""
    if len(records) == 1:
        lsn = state.update(lambda _: records[0])
    else:
        lsn = state.update_batch(lambda _: list(records))
    assert lsn is not None
    return lsn


def commit(state: DurableState[Ledger], *records: Record) -> int:
    lsn = append(state, *records)
    state.wait_durable()
    return lsn


def discard(state: DurableState[Ledger]) -> None:
    """End the threads of a process that is dead already."""
    with suppress(FailedError):
        state.close()


def files(disk: SimulatedDisk, path: str = PATH) -> dict[str, bytes]:
    """The journal's files, but for LOCK, which is for people."""
    return {name: data for name, data in disk.contents(path).items() if name != "LOCK"}


def image(contents: dict[str, bytes], path: str = PATH) -> SimulatedDisk:
    """A disk on which a directory holds just these files, all of it durable."""
    return SimulatedDisk.holding(path, contents)


def overwrite(disk: SimulatedDisk, name: str, offset: int, data: bytes) -> None:
    """Damage a file of which nothing is unsynced."""
    file = disk.open_directory(PATH, write=True).open(name, "update")
    file.write(data, offset)
    file.sync()


def first_lsns(disk: SimulatedDisk) -> list[int]:
    """Of the segments there are."""
    return [name.first_lsn for name in segment_names(list(disk.contents(PATH)))]


# --- recovery ---


def recover(
    disk: SimulatedDisk, options: Options, batches: list[list[Record]], *, at_least: int
) -> DurableState[Ledger]:
    """P5: open succeeds. It yields whole batches (P3) from the first on (P1), up to LSN `at_least`
    or more (P2), and the state that they amount to (P6). What it doesn't, leaves `batches`."""
    state = open_ledger(disk, options)
    try:
        _check(state, batches, at_least)
    except BaseException:
        discard(state)
        raise
    while sum(map(len, batches)) > state.journal.last_lsn:
        batches.pop()
    return state


def _check(state: DurableState[Ledger], batches: list[list[Record]], at_least: int) -> None:
    journal, lsn = state.journal, state.journal.last_lsn
    records = [record for batch in batches for record in batch]
    assert at_least <= lsn <= len(records), "P2"
    assert lsn in accumulate(map(len, batches), initial=0), "P3"
    assert state.machine.summary == replayed(records[:lsn]), "P1, P6"
    base_lsn = journal.checkpoint.lsn if journal.checkpoint else 0
    tail = [(entry.lsn, entry.record) for entry in journal.replay()]
    assert tail == list(enumerate(records[base_lsn:lsn], base_lsn + 1)), "P1"
    assert journal.durable_lsn == lsn


# --- every outcome of a crash ---


def outcome_of(choose: Callable[[int], int], *, whole: bool = False) -> Outcome:
    """`choose(n)` is an int below n. 0 keeps, 1 loses; a write may also be torn, zeros or garbage,
    unless `whole`. What stands in LOCK is for people, but its name counts."""

    def outcome(change: Change) -> bytes | None:
        size, is_write = len(change.data), change.operation == "write"
        if change.path.endswith("/LOCK") and change.operation != "create":
            return change.data
        match choose(5 if is_write and not whole else 2):
            case 0:
                return change.data
            case 1:
                return None
            case 2:
                return change.data[: size // 2]
            case 3:
                return bytes(size)
            case _:
                return bytes(byte ^ 0x5A for byte in change.data)

    return outcome


def every_choice() -> Iterator[Callable[[int], int]]:
    """A function for each way in which a deterministic run can choose. Use each to the end before
    the next is taken."""
    path: list[int] = []
    while True:
        widths: list[int] = []
        yield partial(_choose, path, widths)
        del path[len(widths) :]
        while path and path[-1] + 1 == widths[len(path) - 1]:
            path.pop()
        if not path:
            return
        path[-1] += 1


def _choose(path: list[int], widths: list[int], width: int) -> int:
    widths.append(width)
    if len(widths) > len(path):
        path.append(0)
    return path[len(widths) - 1]

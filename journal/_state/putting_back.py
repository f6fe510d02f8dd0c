"""Putting back: appends salvaged records to the journal that has lost them.

The records get new LSNs, after everything that the journal has. Each run of them follows a mark
that says which LSNs they had. The mark and its records are one batch, so a crash leaves both or
none, and a later call finds which records are there again.

A salvaged record may depend on a record that is lost for good. A state that can't apply a record
would never open again, so the owner's machine tries each record before any is appended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

from journal._disk.disk import Directory, Disk, StrPath
from journal._disk.posix import disk_or_default
from journal._engine.journal import Journal
from journal._engine.reappending import append_once
from journal._format.record import Record, pack
from journal._format.restored import RestoredMark, mark_of
from journal._log import shown
from journal._offline.reader import JournalReader
from journal._offline.salvaged import (
    Salvaged,
    SalvagedFrame,
    frames_of,
    read_origin,
    write_origin,
)
from journal._public import public
from journal._state.loading import load_checkpoint
from journal._state.state_machine import StateMachine
from journal.errors import CompactedError, CorruptionError, JournalError

_MARK_BYTES_MAX = 100
Frame = tuple[SalvagedFrame, list[Record]]


@public
@dataclass(frozen=True, slots=True)
class PutBackReport:
    """The records of a salvage, and what became of them."""

    path: str
    """The directory of the salvage."""

    origin: str
    """The directory of the journal from which they were salvaged."""

    journal_id: str
    """The identity of that journal, as 32 hexadecimal digits."""

    records: int
    """The number of salvaged records that were lost, without those that an open after a crash had
    cut off."""

    first_lsn: int
    """The lowest LSN that one of them had."""

    last_lsn: int
    """The highest LSN that one of them had."""

    appended: int
    """The number of records that this call has appended."""

    refused: tuple[tuple[int, int], ...]
    """The ranges of the LSNs, first and last, that the records had which the state can't apply any
    more. This call has found and left out these records."""

    appended_after_lsn: int | None
    """The LSN of the journal after which they were appended again. None if they were not."""

    appended_last_lsn: int | None
    """The LSN that the journal ended with when all were appended. None if they were not."""


@public
def put_back(
    path: StrPath,
    journal: Journal | None = None,
    *,
    machine: Callable[[], StateMachine] | None = None,
    disk: Disk | None = None,
) -> PutBackReport:
    """Append the records of `path`, which is `RepairReport.salvaged_to`, to `journal` again.

    They are durable when this returns, and a second call appends nothing. Nothing in `path` is
    removed. Records that an open after a crash has cut off are left out: they were never
    acknowledged.

    `journal`: the journal that has lost the records, open as a Journal with its application. None
    only reports. `machine`: makes a new state machine of the journal's owner, such as
    `Tables.machine`. It tries the records first, and those that it can't apply are left out. A
    record `["restored", journal id, epoch, first LSN, last LSN]` precedes each run of them; `apply`
    must ignore it, as `is_restored_mark` recognizes it. None: no record is tried, and no mark is
    added. Then a call after an interrupted one goes on only if nothing else was appended in
    between.

    Raises JournalError if `path` is not a complete salvage or `journal` is another one,
    CorruptionError if its records can't be read, and what `append_batch` and `wait_durable` raise.
    """
    disk = disk_or_default(disk)
    directory = disk.open_directory(path, write=journal is not None)
    try:
        salvaged = read_origin(directory)
        frames = [each for each in frames_of(directory, salvaged) if each[0].is_lost]
        batches, refused = [records for _, records in frames], list[int]()
        if journal is None or salvaged.appended_last is not None:
            return _report(salvaged, frames, 0, refused)
        _check_same(salvaged, journal)
        journal.wait_durable()
        before = journal.last_lsn
        if machine is None:
            salvaged = append_once(directory, salvaged, write_origin, journal, batches)
            return _report(salvaged, frames, journal.last_lsn - before, refused)
        salvaged = _begin(directory, salvaged, journal)
        batches, refused = _Trial(journal, machine, disk).batches(frames, salvaged)
        for batch in batches:
            journal.wait_room()
            journal.append_batch(batch)
        journal.wait_durable()
        salvaged = salvaged._replace(appended_last=journal.last_lsn)
        write_origin(directory, salvaged)
        return _report(salvaged, frames, journal.last_lsn - before - len(batches), refused)
    finally:
        directory.close(unlock=False)


def _begin(directory: Directory, salvaged: Salvaged, journal: Journal) -> Salvaged:
    """Note in `directory` after which LSN the records are appended, and return that.

    Raises JournalError if an earlier call has noted it, and the journal no longer has all marks
    after that LSN: then nothing says which records that call has appended.
    """
    if salvaged.appended_after is None:
        salvaged = salvaged._replace(appended_after=journal.last_lsn)
        write_origin(directory, salvaged)
    elif journal.first_lsn > salvaged.appended_after + 1:
        raise JournalError(
            f"{salvaged.path}: an earlier call was interrupted, and the journal was compacted "
            f"since, so it is unknown which of the records it has appended after LSN "
            f"{salvaged.appended_after}; compare both with journal-inspect; nothing was appended"
        )
    return salvaged


class _Numbered(NamedTuple):
    """A salvaged record, with what identifies it."""

    epoch: int
    lsn: int
    record: Record


class _Trial:
    """The owner's state as of the end of the log, to which records are applied without the log."""

    def __init__(self, journal: Journal, machine: Callable[[], StateMachine], disk: Disk) -> None:
        self._journal = journal
        self._make = machine
        self._disk = disk
        self._run_bytes_max = journal._core.frame_bytes_max - _MARK_BYTES_MAX

    def batches(
        self, frames: list[Frame], salvaged: Salvaged
    ) -> tuple[list[list[Record]], list[int]]:
        """Return the batches to append, each with its mark, and the LSNs of the records that the
        state can't apply."""
        journal_id = salvaged.journal_id
        present = set(_present(self._journal, salvaged, self._disk))
        machine, lsn = self._state(), self._journal.last_lsn
        batches: list[list[Record]] = []
        refused: list[int] = []
        for frame, records in frames:
            run: list[_Numbered] = []
            run_bytes = 0
            for each in _numbered(frame, records, journal_id):
                if (each.epoch, each.lsn) in present:
                    continue
                lsn += 1
                try:
                    machine.apply(lsn, each.record)
                except Exception:
                    refused.append(each.lsn)
                    continue
                present.add((each.epoch, each.lsn))
                size = pack(each.record).size_bytes
                follows = not run or (run[-1].epoch, run[-1].lsn + 1) == (each.epoch, each.lsn)
                if not follows or (run and run_bytes + size > self._run_bytes_max):
                    batches.append(_marked(run, journal_id))
                    run, run_bytes = [], 0
                run.append(each)
                run_bytes += size
            if run:
                batches.append(_marked(run, journal_id))
        self._rehearse(batches)
        return batches, refused

    def _rehearse(self, batches: list[list[Record]]) -> None:
        """Raise JournalError unless a new state takes all of the batches, with their marks.

        The first one saw the refused records, too, and may have kept a part of them.
        """
        machine, lsn = self._state(), self._journal.last_lsn
        for batch in batches:
            for record in batch:
                lsn += 1
                try:
                    machine.apply(lsn, record)
                except Exception as error:
                    raise JournalError(
                        f"{self._journal.path}: its state does not take the salvaged records: "
                        f"{shown(error)}; nothing was appended"
                    ) from error

    def _state(self) -> StateMachine:
        """Return a new state machine, as of the end of the log."""
        machine, lsn = self._make(), 0
        with JournalReader.open(self._journal.path, disk=self._disk) as reader:
            if base := reader.base():
                with closing(base):
                    lsn = base.lsn
                    load_checkpoint(machine, base)
            for entry in reader.entries(lsn):
                if not entry.is_filler:
                    machine.apply(entry.lsn, entry.record)
        return machine


def _present(journal: Journal, salvaged: Salvaged, disk: Disk) -> Iterator[tuple[int, int]]:
    """Yield the original epoch and LSN of each record that was appended again.

    Raises CorruptionError if a hole may hide the marks of an earlier call for the same records.
    """
    after, appended_after = 0, salvaged.appended_after or 0
    while True:
        try:
            for entry in journal.replay(after):
                after = entry.lsn
                mark = mark_of(entry.record)
                if mark is not None and mark.journal_id == salvaged.journal_id:
                    lsns = range(mark.first_lsn, mark.last_lsn + 1)
                    yield from ((mark.epoch, lsn) for lsn in lsns)
        except CompactedError as error:
            if error.first_lsn <= after + 1:
                raise
            after = error.first_lsn - 1
        except CorruptionError as error:  # a hole that the checkpoint covers
            last_lsn = error.last_lsn or _end_of_segment(journal, disk, after + 1)
            if not after < last_lsn <= appended_after:
                raise
            after = last_lsn
        else:
            return


def _end_of_segment(journal: Journal, disk: Disk, lsn: int) -> int:
    """Return the last LSN of the segment that holds `lsn`, or 0 if no other segment follows it."""
    with JournalReader.open(journal.path, disk=disk) as reader:
        return min((first - 1 for first in reader.first_lsns if first > lsn), default=0)


def _numbered(frame: SalvagedFrame, records: list[Record], journal_id: str) -> Iterator[_Numbered]:
    """Yield the records of a frame, without marks. A record after one keeps its first identity."""
    mark: RestoredMark | None = None
    begin = 0
    for at, record in enumerate(records):
        found = mark_of(record)
        if found is not None and found.journal_id == journal_id:
            mark, begin = found, at + 1
        elif mark is not None and mark.first_lsn + at - begin <= mark.last_lsn:
            yield _Numbered(mark.epoch, mark.first_lsn + at - begin, record)
        else:
            yield _Numbered(frame.epoch, frame.first_lsn + at, record)


def _marked(run: list[_Numbered], journal_id: str) -> list[Record]:
    mark = RestoredMark(journal_id, run[0].epoch, run[0].lsn, run[-1].lsn)
    return [mark.record, *(each.record for each in run)]


def _check_same(salvaged: Salvaged, journal: Journal) -> None:
    if salvaged.journal_id != journal.journal_id:
        raise JournalError(
            f"{salvaged.path}: these are records of journal {salvaged.journal_id}, and "
            f"{journal.path} is journal {journal.journal_id}; nothing was appended"
        )


def _report(
    salvaged: Salvaged, frames: list[Frame], appended: int, refused: list[int]
) -> PutBackReport:
    is_done = salvaged.appended_last is not None
    ranges: list[tuple[int, int]] = []
    for lsn in refused:
        if ranges and ranges[-1][1] + 1 == lsn:
            ranges[-1] = ranges[-1][0], lsn
        else:
            ranges.append((lsn, lsn))
    return PutBackReport(
        path=salvaged.path,
        origin=salvaged.origin,
        journal_id=salvaged.journal_id,
        records=sum(len(records) for _, records in frames),
        first_lsn=min((frame.first_lsn for frame, _ in frames), default=0),
        last_lsn=max((frame.last_lsn for frame, _ in frames), default=0),
        appended=appended,
        refused=tuple(ranges),
        appended_after_lsn=salvaged.appended_after if is_done else None,
        appended_last_lsn=salvaged.appended_last,
    )

"""Reappending: appends the records of a directory that was put aside to its journal again.

The records get new LSNs, after everything that the journal has. Readers of the fork knew them under
other LSNs, and later records may contradict them, so a person decides whether they are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from journal._disk.disk import Directory, Disk, StrPath, is_disk_error
from journal._disk.posix import disk_or_default
from journal._engine.journal import Journal
from journal._format.record import Record, pack
from journal._mirror.aside import Aside, own_frames, read_aside, write_aside
from journal._offline.salvaged import Salvaged
from journal._public import public
from journal._recovery.stray_segments import find_journal_id
from journal.errors import JournalError

S = TypeVar("S", Aside, Salvaged)


@public
@dataclass(frozen=True, slots=True)
class ReappendReport:
    """The records of a directory that was put aside, and what became of them."""

    path: str
    """The directory that was put aside."""

    origin: str
    """The journal's directory, from which it was put aside."""

    records: int
    """The number of records that are in no mirror."""

    first_lsn: int
    """The LSN that the first of them has in `path`, 0 if there is none."""

    last_lsn: int
    """The LSN that the last of them has in `path`, 0 if there is none."""

    appended_after_lsn: int | None
    """The LSN of the journal after which they were appended again. None if they were not."""

    appended_last_lsn: int | None
    """The LSN that the last of them has in the journal now. None if they were not appended."""


@public
def reappend(
    path: StrPath, journal: Journal | None = None, *, disk: Disk | None = None
) -> ReappendReport:
    """Append the records of `path`, a directory that an open has put aside, to `journal` again.

    Only the records that are in no mirror are appended, in their order, and the records of a batch
    stay together. They are durable when this returns. Nothing in `path` is removed. If a crash
    interrupts the call, the next one goes on where it was. If all were appended before, nothing is
    appended again.

    `journal`: the journal from which `path` was put aside, open as a Journal with its application.
    None only reports.

    Raises JournalError if `path` was not put aside or `journal` is another one, CorruptionError if
    not all of the records can be read, and what `append_batch` and `wait_durable` raise.
    """
    disk = disk_or_default(disk)
    directory = disk.open_directory(path, write=journal is not None)
    try:
        aside = read_aside(directory)
        with _existing(disk, journal.path if journal else aside.origin) as current:
            frames = list(own_frames(directory, aside, current))
        if journal is not None:
            _check_same(directory, journal)
            batches = [records for _, records in frames]
            aside = append_once(directory, aside, write_aside, journal, batches)
        return _report(aside, frames)
    finally:
        directory.close(unlock=False)


def append_once(
    directory: Directory,
    statement: S,
    write: Callable[[Directory, S], None],
    journal: Journal,
    batches: list[list[Record]],
) -> S:
    """Append the batches that are not in the journal yet. Return the new statement, which `write`
    has written to `directory`."""
    if statement.appended_last is not None:
        return statement
    if statement.appended_after is None:
        statement = statement._replace(appended_after=journal.last_lsn)
        write(directory, statement)
    assert statement.appended_after is not None
    journal.wait_durable()
    done = (each for each in journal.replay(statement.appended_after) if not each.is_filler)
    for batch in batches:
        earlier = [entry.record for entry in islice(done, len(batch))]
        if not earlier:
            journal.wait_room()
            journal.append_batch(batch)
        elif list(map(pack, earlier)) != list(map(pack, batch)):
            raise JournalError(
                f"{statement.path}: an earlier call was interrupted, and the journal has other "
                f"records after LSN {statement.appended_after} since then; compare both with "
                "journal-inspect"
            )
    journal.wait_durable()
    statement = statement._replace(appended_last=journal.last_lsn)
    write(directory, statement)
    return statement


def _check_same(directory: Directory, journal: Journal) -> None:
    journal_id = find_journal_id(directory)
    if journal_id != journal.journal_id:
        raise JournalError(
            f"{directory.path}: these are records of journal {journal_id}, and {journal.path} is "
            f"journal {journal.journal_id}; nothing was appended"
        )


def _report(aside: Aside, frames: list[tuple[int, list[Record]]]) -> ReappendReport:
    is_done = aside.appended_last is not None and aside.appended_after is not None
    first_lsn, _ = frames[0] if frames else (0, [])
    last_frame_lsn, last_records = frames[-1] if frames else (0, [0])
    return ReappendReport(
        path=aside.path,
        origin=aside.origin,
        records=sum(len(records) for _, records in frames),
        first_lsn=first_lsn,
        last_lsn=last_frame_lsn + len(last_records) - 1 if frames else 0,
        appended_after_lsn=aside.appended_after if is_done else None,
        appended_last_lsn=aside.appended_last,
    )


@contextmanager
def _existing(disk: Disk, path: str) -> Iterator[Directory | None]:
    """Open a directory to read it. Yield None if it does not exist."""
    try:
        directory = disk.open_directory(path, write=False)
    except FileNotFoundError as error:
        if not is_disk_error(error, disk):
            raise
        yield None
        return
    try:
        yield directory
    finally:
        directory.close(unlock=False)

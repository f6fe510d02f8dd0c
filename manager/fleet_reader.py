"""Fleet reader: rebuilds a fleet from its journal, whether or not a live writer has it open."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from typing import TypeVar

from journal import (
    Checkpoint,
    CompactedError,
    CorruptionError,
    DamageReason,
    Entry,
    FormatVersionError,
    JournalReader,
    NotAJournalError,
    load_checkpoint,
)
from manager import arguments, records
from manager.agent import Row, get, is_cut_off
from manager.bulk_replay import BulkReplay
from manager.fleet import Fleet
from manager.layouts import Record
from manager.workspace import StrPath

T = TypeVar("T")
Progress = Callable[[int], object]
_ATTEMPTS = 5
_COUNTED = 1024  # records between two calls of a progress function


def open_reader(path: StrPath) -> JournalReader:
    """Return a reader of the journal in the state directory `path`."""
    path = arguments.path("path", path)
    try:
        return JournalReader.open(path)
    except NotAJournalError as error:
        if os.path.isdir(state := os.path.join(path, ".subagents")):
            error.add_note(f"{path} is a manager's workspace: give {state}")
        raise


def current_fleet(reader: JournalReader, progress: Progress | None = None) -> tuple[Fleet, int]:
    """Return the fleet as its live writer has it, or as the next one will find it, and its LSN."""
    for _ in range(_ATTEMPTS):
        live = reader.live  # checked first: a writer that ends meanwhile counts as live
        try:
            fleet, lsn = fleet_as_of(reader, None, progress)
        except (CompactedError, FileNotFoundError):
            continue  # compaction removed the files; a newer checkpoint exists now
        if not (live or reader.live):
            end_session(fleet)
        else:
            _interrupt_prior(fleet)  # a live writer that has just begun may not have done so yet
        return fleet, lsn
    raise _overtaken(reader)


def retry(reader: JournalReader, at: int | None, attempt: Callable[[], T]) -> T:
    """Return the result of `attempt`, which is repeated if compaction removes what it reads.

    Raises CompactedError if the fleet as of LSN `at` is no longer retained.
    """
    for _ in range(_ATTEMPTS):
        try:
            return attempt()
        except (CompactedError, FileNotFoundError) as error:
            first_lsn = reader.first_state_lsn
            if at is not None and at < first_lsn:
                message = (
                    f"the fleet as of LSN {at} is no longer retained; "
                    f"the first that is retained is as of LSN {first_lsn}"
                )
                raise CompactedError(message, first_lsn, lsn=at) from error
    raise _overtaken(reader)


def _overtaken(reader: JournalReader) -> CorruptionError:
    """Return the corruption that makes the beginning of the log unreadable, if there is one, or an
    error that reports that compaction overtook each attempt to read it.
    """
    try:
        reader.check_beginning()
    except CorruptionError as error:
        return error
    what = f"{_ATTEMPTS} times in a row, compaction removed files before they were read; try again"
    return CorruptionError(reader.path, 0, 0, what, reason=DamageReason.OVERTAKEN)


def initial_fleet(reader: JournalReader, at: int | None, *, oldest: bool) -> tuple[Fleet, int]:
    """Return a fleet from which replay can reach `at`, and its LSN. It is the newest such fleet, or
    the oldest if `oldest` is true.
    """
    base = reader.base(at, oldest=oldest)
    with closing(base) if base else nullcontext():
        return _fleet_at(base)


def _fleet_at(base: Checkpoint | None) -> tuple[Fleet, int]:
    """Return the fleet that `base` holds, or an empty one, and its LSN."""
    fleet = Fleet(with_tables=False)
    if base is None:
        return fleet, 0
    try:
        load_checkpoint(fleet, base)
        fleet.check_loaded(base.lsn)
    except FormatVersionError as error:
        own = error.__cause__ if isinstance(error.__cause__, FormatVersionError) else error
        raise FormatVersionError(own.what, path=base.path, reason=own.reason) from error
    if not fleet.states_session:
        fleet.boot_id = _guessed_boot(fleet)
    return fleet, base.lsn


def apply_entry(fleet: Fleet, entry: Entry) -> None:
    """Apply one record. Raises FormatVersionError, with its place, if no manager wrote it."""
    try:
        fleet.apply(entry.lsn, entry.record)
    except Exception as error:
        raise refusal(fleet, entry, error) from error


def refusal(fleet: Fleet, entry: Entry, error: Exception) -> FormatVersionError:
    """Return the error for an entry that no manager wrote, with its place."""
    if isinstance(error, FormatVersionError):
        what = f"offset {entry.offset}: {error.what}"
        return FormatVersionError(what, path=entry.path, reason=error.reason)
    return FormatVersionError(
        f"offset {entry.offset}: LSN {entry.lsn} is not a record of {fleet.application}; "
        "open the journal with the version that wrote it",
        path=entry.path,
    )


def agents_of(entry: Entry) -> list[str]:
    """Return the id of the agent that a record is about, in a list; [] for a record of tables."""
    return [] if records.is_of_tables(entry.record) else [entry.record[records.AGENT_ID]]


def check_agents(
    reader: JournalReader, fleet: Fleet, agent_ids: Iterable[str] | None = None
) -> None:
    """Raise FormatVersionError if the progress of an agent has values that no manager accepts.

    `agent_ids`: the agents to check (None: all that a record has changed).
    """
    try:
        fleet.check_replayed(agent_ids)
    except FormatVersionError as error:
        raise FormatVersionError(error.what, path=reader.path, reason=error.reason) from error


def entries_up_to(
    reader: JournalReader, after: int, at: int | None, progress: Progress | None
) -> Iterator[Entry]:
    """Return the entries after the LSN `after`, up to `at`. No entry after `at` is read.

    `progress` is called with the number of records read since its last call.
    """
    entries = reader.entries(after)
    if progress is not None:
        entries = _counted(entries, progress)
    return entries if at is None else _up_to(entries, after, at)


def _counted(entries: Iterator[Entry], progress: Progress) -> Iterator[Entry]:
    for entry in entries:
        yield entry
        if not entry.lsn % _COUNTED:
            progress(_COUNTED)


def _up_to(entries: Iterator[Entry], after: int, at: int) -> Iterator[Entry]:
    if at <= after:
        return
    for entry in entries:
        if entry.lsn > at:
            return
        yield entry
        if entry.lsn == at:
            return


def fleet_as_of(
    reader: JournalReader, at: int | None = None, progress: Progress | None = None
) -> tuple[Fleet, int]:
    """Return the fleet as of the LSN `at` (None: the end of the log), and its LSN."""
    fleet, lsn = initial_fleet(reader, at, oldest=False)
    return fleet, _replay(reader, fleet, lsn, at, progress)


def fleets_as_of(
    reader: JournalReader, ats: Sequence[int], progress: Progress | None
) -> list[tuple[Fleet, int]]:
    """Return the fleet as of each LSN of `ats`, which ascend, and its LSN.

    Each fleet is made from the one before it, unless a checkpoint lies between the two. Then the
    later one is made from the checkpoint, so damage between the earlier one and the checkpoint does
    not matter.
    """
    fleets: list[tuple[Fleet, int]] = []
    for at in ats:
        base = reader.base(at)
        with closing(base) if base else nullcontext():
            if not fleets or (base is not None and base.lsn > fleets[-1][1]):
                fleet, lsn = _fleet_at(base)
            else:
                fleet, lsn = fleets.pop()
                fleets.append((fleet.copied(), lsn))
        fleets.append((fleet, _replay(reader, fleet, lsn, at, progress)))
    return fleets


def _replay(
    reader: JournalReader, fleet: Fleet, lsn: int, at: int | None, progress: Progress | None
) -> int:
    """Apply the records after `lsn`, the LSN of `fleet`, up to `at`. Return the LSN of the last."""

    def refuse(lsn: int, error: Exception) -> Exception:
        return refusal(fleet, next(reader.entries(lsn - 1)), error)

    replay = BulkReplay(fleet, refuse)
    for first_lsn, records_read in _records_up_to(reader, lsn, at):
        replay.apply(first_lsn, records_read)
        lsn = first_lsn + len(records_read) - 1
        if progress is not None:
            progress(len(records_read))
    replay.finish()
    check_agents(reader, fleet)  # only the last state of each: callers see no other
    return lsn


def _records_up_to(
    reader: JournalReader, after: int, at: int | None
) -> Iterator[tuple[int, Sequence[Record]]]:
    """Yield the records after the LSN `after`, up to `at`, as `JournalReader.records` does. Nothing
    after `at` is read, except in the same run of frames."""
    if at is None:
        yield from reader.records(after)
        return
    if at <= after:
        return
    for first_lsn, found in reader.records(after):
        yield first_lsn, found[: at + 1 - first_lsn]
        if first_lsn + len(found) > at:
            return


def _guessed_boot(fleet: Fleet) -> str:
    """Guess the latest session from the agents, for an older checkpoint that does not state it."""
    row = max(fleet.rows.values(), key=_is_running_and_begin_ms)
    return get.boot_id(row)


def _is_running_and_begin_ms(row: Row) -> tuple[bool, int]:
    return get.status(row) == "running", get.started_at_ms(row) or get.created_at_ms(row)


def end_session(fleet: Fleet) -> None:
    """Treat all agents as agents of a prior session, because the writer has ended, and interrupt
    those that were running.
    """
    fleet.end_session()
    _interrupt_prior(fleet)


def _interrupt_prior(fleet: Fleet) -> None:
    """Interrupt the agents that were running in a prior session, as the next session will."""
    rows = fleet.rows.freeze()
    for row in [r for r in rows if is_cut_off(r) and get.boot_id(r) != fleet.boot_id]:
        record = records.interrupt_by_restart(get.agent_id(row), get.updated_at_ms(row))
        fleet.presume(get.lsn(row), record)

"""Fleet reader: rebuilds a fleet from what a reader finds, beside a live writer or without one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import TypeVar

from journal import (
    Checkpoint,
    CompactedError,
    CorruptionError,
    DamageReason,
    Entry,
    FormatVersionError,
    JournalReader,
)
from manager import arguments, records
from manager.agent import Row, get
from manager.fleet import Fleet
from manager.workspace import StrPath

T = TypeVar("T")
_ATTEMPTS = 5


def open_reader(path: StrPath) -> JournalReader:
    """Return a reader of the journal in the state directory `path`."""
    return JournalReader.open(arguments.path("path", path))


def current_fleet(reader: JournalReader) -> tuple[Fleet, int]:
    """Return the fleet as its writer, or the next one, has it now, and the LSN that it is at."""
    for _ in range(_ATTEMPTS):
        live = reader.live  # asked first: who dies meanwhile is shown as it was
        try:
            fleet, lsn = fleet_as_of(reader)
        except (CompactedError, FileNotFoundError):
            continue  # compacted underneath: there is a newer checkpoint now
        if not (live or reader.live):
            end_session(fleet)
        else:
            _interrupt_prior(fleet)  # the writer has begun, and not yet come to them
        return fleet, lsn
    raise _overtaken(reader)


def retried(reader: JournalReader, at: int | None, attempt: Callable[[], T]) -> T:
    """Return what `attempt` returns, trying again when compaction overtakes it."""
    for _ in range(_ATTEMPTS):
        try:
            return attempt()
        except (CompactedError, FileNotFoundError) as error:
            first_lsn = reader.first_state_lsn
            if at is not None and at < first_lsn:
                message = f"the fleet as of LSN {at} is no longer kept; the first is of {first_lsn}"
                raise CompactedError(message, first_lsn, lsn=at) from error
    raise _overtaken(reader)


def _overtaken(reader: JournalReader) -> CorruptionError:
    """Return what keeps all that the fleet begins with away from a reader."""
    try:
        reader.check_beginning()
    except CorruptionError as error:
        return error
    what = f"{_ATTEMPTS} times in a row, compaction removed what was about to be read"
    return CorruptionError(reader.path, 0, 0, what, reason=DamageReason.OVERTAKEN)


def initial_fleet(reader: JournalReader, at: int | None, *, oldest: bool) -> tuple[Fleet, int]:
    """Return a fleet from which `at` can be reached, and its LSN: the newest, or the `oldest`."""
    fleet, lsn, is_told = Fleet(), 0, True
    if base := reader.base(at, oldest=oldest):
        with closing(base):
            lsn, is_told = base.lsn, _load(fleet, base)
    if not is_told:
        fleet.begin_session(_guessed_boot(fleet))
    return fleet, lsn


def _load(fleet: Fleet, checkpoint: Checkpoint) -> bool:
    """Return whether its items say which session they are of."""
    is_told = True
    try:
        for item in checkpoint.items():
            fleet.load(item)
            is_told = "from_prior_session" in item
        fleet.check_loaded(checkpoint.lsn)
    except FormatVersionError as error:
        path, reason = checkpoint.path, error.reason
        raise FormatVersionError(error.what, path=path, reason=reason) from error
    return is_told


def apply_entry(fleet: Fleet, entry: Entry) -> None:
    """Carry out one record. Raise FormatVersionError, with its place, if no manager wrote it."""
    try:
        fleet.apply(entry.lsn, entry.record)
    except FormatVersionError as error:
        what = f"offset {entry.offset}: {error.what}"
        raise FormatVersionError(what, path=entry.path, reason=error.reason) from error
    except Exception as error:
        raise FormatVersionError(
            f"offset {entry.offset}: LSN {entry.lsn} is no record of {fleet.application}; open it "
            "with the version that wrote it",
            path=entry.path,
        ) from error


def check_agents(reader: JournalReader, fleet: Fleet, agent_ids: Iterable[str]) -> None:
    """Raise FormatVersionError if one of the agents reports what no manager lets through."""
    try:
        fleet.check_replayed(agent_ids)
    except FormatVersionError as error:
        raise FormatVersionError(error.what, path=reader.path, reason=error.reason) from error


def entries_up_to(reader: JournalReader, after: int, at: int | None) -> Iterator[Entry]:
    """Yield the entries after `after`, up to `at`, and look at none that follows it."""
    if at is not None and at <= after:
        return
    for entry in reader.entries(after):
        if at is not None and entry.lsn > at:
            return
        yield entry
        if entry.lsn == at:
            return


def fleet_as_of(reader: JournalReader, at: int | None = None) -> tuple[Fleet, int]:
    """Return the fleet as of `at` (None: the end of the log), and the LSN that it is at."""
    fleet, lsn = initial_fleet(reader, at, oldest=False)
    changed: set[str] = set()
    for entry in entries_up_to(reader, lsn, at):
        lsn = entry.lsn
        apply_entry(fleet, entry)
        changed.add(entry.record[records.AGENT_ID])
    check_agents(reader, fleet, changed)  # as it is now: nobody sees what was in between
    return fleet, lsn


def _guessed_boot(fleet: Fleet) -> str:
    """Return the latest boot that an agent names: older checkpoints do not say which it was."""
    row = max(fleet.rows.values(), key=_begun)
    return get.boot_id(row)


def _begun(row: Row) -> tuple[bool, int]:
    return get.status(row) == "running", get.started_at_ms(row) or get.created_at_ms(row)


def end_session(fleet: Fleet) -> None:
    """Take all agents for those of a prior session, and interrupt them: the writer is gone."""
    fleet.end_session()
    _interrupt_prior(fleet)


def _interrupt_prior(fleet: Fleet) -> None:
    """Interrupt the agents that ran in a prior session, as the next session does."""
    rows = fleet.rows.values()
    for row in [r for r in rows if get.status(r) == "running" and get.boot_id(r) != fleet.boot_id]:
        record = records.interrupt_by_restart(get.agent_id(row), get.updated_at_ms(row))
        fleet.presume(get.lsn(row), record)

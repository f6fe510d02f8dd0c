"""View: a fleet seen from outside, by a process that takes no lock and writes nothing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
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
from manager._public import public
from manager.agent import (
    Agent,
    Row,
    Status,
    agent_from_row,
    agents_from_rows,
    get,
)
from manager.errors import AmbiguousNameError, UnknownAgentError
from manager.fleet import Fleet
from manager.workspace import StrPath

T = TypeVar("T")
_ATTEMPTS = 5
_POLL_S = 0.02


@public
class FleetView:
    """The agents of a state directory as of one LSN, which is `lsn`: later changes, and what the
    log did not yet tell to be durable, do not show in it."""

    def __init__(self, fleet: Fleet, lsn: int) -> None:
        self._fleet = fleet
        self.lsn = lsn

    def agents(
        self, *, status: Status | None = None, include_archived: bool = False
    ) -> list[Agent]:
        """As SubAgentManager.agents; the session is the writer's, if one lives."""
        rows = self._fleet.rows.values()
        boot_id = self._fleet.boot_id
        return agents_from_rows(rows, boot_id, status=status, include_archived=include_archived)

    def get(self, ref: str) -> Agent:
        """The agent with this id or unique name; raises as SubAgentManager.get does."""
        row = self._fleet.find(arguments.instance("ref", ref, str))
        return agent_from_row(row, self._fleet.boot_id)


@public
@dataclass(frozen=True, slots=True)
class AgentChange:
    """What the record `lsn`, committed at `written_at_ns` (Unix nanoseconds), made of an agent:
    `before` (None: it was not there yet) and `after` (None: it was removed).

    `kind` is the record's, `agent_id` of the agent that it was about: maybe one below this
    one, whose tokens count here too. The first change that is kept may be none: what a
    checkpoint tells, of kind "" and without a `before`.
    """

    lsn: int
    written_at_ns: int
    kind: str
    agent_id: str
    before: Agent | None
    after: Agent | None


@public
def read_fleet(path: StrPath, *, at: int | None = None) -> FleetView:
    """The fleet kept in the state directory `path`: a live writer's, or what the next open finds.

    Of a live writer what its log tells to be durable, which what comes next in the log says: so
    it trails by a commit, until the next one or the mark that a log idle for `Options.idle_s`
    gets. What `wait_durable` and `wait_ended` have told the writer may not show for that long.
    Until a writer that is opening the state has made its first commit, it is taken for the one
    before it: what ran then is shown to run, and that one's last commit may be missing again.

    Without a writer all that is left shows, and agents that ran when it ended are interrupted.
    `at`: as it was with the record of that LSN (the last one, if it lies ahead), when they ran.
    Raises FileNotFoundError, CorruptionError (not of damage behind `at`), FormatVersionError,
    CompactedError if that is no longer kept, and JournalError if there is no journal.
    """
    at = arguments.optional_lsn("at", at)
    with closing(_opened(path)) as reader:
        if at is None:
            return FleetView(*_read(reader))
        return FleetView(*_patiently(reader, at, lambda: _replayed(reader, at)))


@public
def read_history(path: StrPath, ref: str, *, at: int | None = None) -> list[AgentChange]:
    """Each change of the agent that is or was `ref`, as far back as they are kept, up to `at`.

    An id, or a name: of the live agent that has it, else of the only one that had. Raises what
    `read_fleet` raises, UnknownAgentError, AmbiguousNameError.
    """
    arguments.instance("ref", ref, str)
    at = arguments.optional_lsn("at", at)
    with closing(_opened(path)) as reader:
        return _patiently(reader, at, lambda: _history(reader, ref, at))


@public
def follow_fleet(path: StrPath) -> Iterator[Agent]:
    """The agents as `read_fleet` finds them, oldest first, then each again when it changes.

    For ever, across restarts of the writer, a few hundredths of a second behind it; if it falls
    behind compaction, an agent's states in between are skipped. When the writer ends, what ran is
    shown as interrupted, and once more when the next one has journaled that. Raises what
    `read_fleet` raises.
    """
    with closing(_opened(path)) as reader:
        shown: dict[str, tuple[int, str]] = {}
        while True:
            fleet, lsn = _read(reader)
            for row in sorted(fleet.rows.values(), key=get.created_at_ms):
                if shown.get(get.agent_id(row)) != (get.lsn(row), get.status(row)):
                    yield agent_from_row(row, fleet.boot_id)
            try:
                yield from _changed(reader, fleet, lsn)
            except (CompactedError, FileNotFoundError):
                rows = fleet.rows.values()
                shown = {get.agent_id(row): (get.lsn(row), get.status(row)) for row in rows}


def _opened(path: StrPath) -> JournalReader:
    return JournalReader.open(arguments.path("path", path))


def _changed(reader: JournalReader, fleet: Fleet, lsn: int) -> Iterator[Agent]:
    """The agents as they change after `lsn`, which `fleet` is at, until it is compacted away."""
    feed: deque[Row] = deque()
    fleet.feed_to(feed)
    while True:
        with suppress(_WriterGoneError):
            for entry in reader.entries(lsn, follow=True, wait=_until_gone(reader, fleet)):
                _apply(fleet, entry)
                _check(reader, fleet, [entry.record[records.AGENT_ID]])
                yield from _fed(feed, fleet)
                lsn = entry.lsn
        _end_session(fleet)
        yield from _fed(feed, fleet)


def _fed(feed: deque[Row], fleet: Fleet) -> Iterator[Agent]:
    while feed:
        if len(row := feed.popleft()) > 1:  # else it was removed
            yield agent_from_row(row, fleet.boot_id)


class _WriterGoneError(Exception):
    """It has left agents that run, and all that it has left of the log has been read."""


def _until_gone(reader: JournalReader, fleet: Fleet) -> Callable[[], None]:
    """What waits for more of the log; raises _WriterGoneError once there is nobody to write it."""
    gone = False

    def wait() -> None:
        nonlocal gone
        time.sleep(_POLL_S)
        before, gone = gone, fleet.counts["running"] > 0 and not reader.live
        if before and gone:  # what a writer had not shown to be durable was read in between
            raise _WriterGoneError

    return wait


def _read(reader: JournalReader) -> tuple[Fleet, int]:
    for _ in range(_ATTEMPTS):
        live = reader.live  # asked first: who dies meanwhile is shown as it was
        try:
            fleet, lsn = _replayed(reader)
        except (CompactedError, FileNotFoundError):
            continue  # compacted underneath: there is a newer checkpoint now
        if not (live or reader.live):
            _end_session(fleet)
        else:
            _interrupt_prior(fleet)  # the writer has begun, and not yet come to them
        return fleet, lsn
    raise _overtaken(reader)


def _patiently(reader: JournalReader, at: int | None, read: Callable[[], T]) -> T:
    """What `read` gives, once compaction does not overtake it."""
    for _ in range(_ATTEMPTS):
        try:
            return read()
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


def _begin(reader: JournalReader, at: int | None, *, oldest: bool) -> tuple[Fleet, int]:
    """A fleet to go on from up to `at`: of the newest checkpoint, or as far back as is kept."""
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


def _apply(fleet: Fleet, entry: Entry) -> None:
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


def _check(reader: JournalReader, fleet: Fleet, agent_ids: Iterable[str]) -> None:
    try:
        fleet.check_replayed(agent_ids)
    except FormatVersionError as error:
        raise FormatVersionError(error.what, path=reader.path, reason=error.reason) from error


def _entries(reader: JournalReader, after: int, at: int | None) -> Iterator[Entry]:
    """Of those after `after` the ones up to `at`: what follows it is not looked at."""
    if at is not None and at <= after:
        return
    for entry in reader.entries(after):
        if at is not None and entry.lsn > at:
            return
        yield entry
        if entry.lsn == at:
            return


def _history(reader: JournalReader, ref: str, at: int | None) -> list[AgentChange]:
    fleet, lsn = _begin(reader, at, oldest=True)
    found: dict[str, list[AgentChange]] = {}
    rows: dict[str, Row] = {}
    for agent_id, row in fleet.rows.items():
        if ref in (agent_id, get.name(row)):
            rows[agent_id] = row
            agent = agent_from_row(row, fleet.boot_id)
            at_ns = get.updated_at_ms(row) * 1_000_000
            found[agent_id] = [AgentChange(get.lsn(row), at_ns, "", agent_id, None, agent)]
    feed: deque[Row] = deque()
    fleet.feed_to(feed)
    for entry in _entries(reader, lsn, at):
        _apply(fleet, entry)
        _check(reader, fleet, [entry.record[records.AGENT_ID]])
        for row in feed:
            agent_id, is_there = get.agent_id(row), len(row) > 1
            if agent_id not in rows and (not is_there or ref not in (agent_id, get.name(row))):
                continue
            before = rows.pop(agent_id, None)
            if is_there:
                rows[agent_id] = row
            change = AgentChange(
                entry.lsn,
                entry.written_at_ns,
                entry.record[records.KIND],
                entry.record[records.AGENT_ID],
                agent_from_row(before, fleet.boot_id) if before else None,
                agent_from_row(row, fleet.boot_id) if is_there else None,
            )
            found.setdefault(agent_id, []).append(change)
        feed.clear()
    return found[_chosen(fleet, ref, list(found))]


def _chosen(fleet: Fleet, ref: str, ids: list[str]) -> str:
    """Of the agents that are or were `ref` the one that is meant."""
    if ref in ids:
        return ref
    try:
        return get.agent_id(fleet.find(ref))
    except UnknownAgentError:
        if len(ids) > 1:
            message = f"{len(ids)} agents named {ref!r} were removed: {', '.join(ids)}; use an id"
            raise AmbiguousNameError(message) from None
        if not ids:
            raise
        return ids[0]


def _replayed(reader: JournalReader, at: int | None = None) -> tuple[Fleet, int]:
    """The fleet, and the LSN that it is at."""
    fleet, lsn = _begin(reader, at, oldest=False)
    changed: set[str] = set()
    for entry in _entries(reader, lsn, at):
        lsn = entry.lsn
        _apply(fleet, entry)
        changed.add(entry.record[records.AGENT_ID])
    _check(reader, fleet, changed)  # as it is now: nobody sees what was in between
    return fleet, lsn


def _guessed_boot(fleet: Fleet) -> str:
    """The latest boot that an agent tells of: older checkpoints do not say which it was."""
    row = max(fleet.rows.values(), key=_begun)
    return get.boot_id(row)


def _begun(row: Row) -> tuple[bool, int]:
    return get.status(row) == "running", get.started_at_ms(row) or get.created_at_ms(row)


def _end_session(fleet: Fleet) -> None:
    """Its writer is gone: all belongs to a prior session."""
    fleet.end_session()
    _interrupt_prior(fleet)


def _interrupt_prior(fleet: Fleet) -> None:
    """Those that ran in a prior session, as the next one does."""
    rows = fleet.rows.values()
    for row in [r for r in rows if get.status(r) == "running" and get.boot_id(r) != fleet.boot_id]:
        record = records.interrupt_by_restart(get.agent_id(row), get.updated_at_ms(row))
        fleet.presume(get.lsn(row), record)

"""View: reads a fleet from any process, without taking a lock and without writing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress

from journal import CompactedError, JournalReader
from manager import arguments, clock
from manager._public import public
from manager.agent import (
    Agent,
    Progress,
    Row,
    Status,
    agent_from_row,
    agents_from_rows,
    events_from_row,
    get,
)
from manager.fleet import Fleet
from manager.fleet_reader import (
    agents_of,
    apply_entry,
    check_agents,
    current_fleet,
    end_session,
    fleet_as_of,
    fleets_as_of,
    open_reader,
    retry,
)
from manager.values import whole
from manager.workspace import StrPath

_POLL_S = 0.02


@public
class FleetView:
    """The agents of a state directory as of one LSN. It does not contain later changes, nor changes
    that the log did not yet prove to be durable."""

    lsn: int
    """The LSN of the last record that the view contains."""

    def __init__(self, fleet: Fleet, lsn: int) -> None:
        self._fleet = fleet
        self.lsn = lsn

    def agents(
        self, *, status: Status | None = None, include_archived: bool = False
    ) -> list[Agent]:
        """Return the agents, oldest first, as `SubAgentManager.agents` does.

        Archived agents are those that ended before the live writer's session, or all ended agents
        if there is no live writer.
        """
        rows = self._fleet.rows.freeze()
        boot_id = self._fleet.boot_id
        return agents_from_rows(rows, boot_id, status=status, include_archived=include_archived)

    def events(self, ref: str, *, after: int = 0) -> list[Progress]:
        """Return the kept events of an agent's progress, as `SubAgentManager.events` does.

        Raises UnknownAgentError.
        """
        row = self._fleet.find(arguments.instance("ref", ref, str))
        return events_from_row(row, whole("after", after))

    def get(self, ref: str) -> Agent:
        """Return the agent with this id, or the newest of this name, as `SubAgentManager.get` does.

        Raises UnknownAgentError.
        """
        row = self._fleet.find(arguments.instance("ref", ref, str))
        return agent_from_row(row, self._fleet.boot_id)

    def children(self, ref: str) -> list[Agent]:
        """Return the children of an agent, oldest first. Raises UnknownAgentError."""
        parent_id = get.agent_id(self._fleet.find(arguments.instance("ref", ref, str)))
        rows = [row for row in self._fleet.rows.freeze() if get.parent_id(row) == parent_id]
        return agents_from_rows(rows, self._fleet.boot_id, status=None, include_archived=True)

    def __repr__(self) -> str:
        return f"<FleetView lsn={self.lsn} agents={len(self._fleet.rows)}>"


@public
def read_fleet(
    path: StrPath, *, at: int | None = None, progress: Callable[[int], object] | None = None
) -> FleetView:
    """Return the fleet in the state directory `path`, without opening it for writing.

    While a writer lives, the view contains the changes that its log proves to be durable. The proof
    for a commit is the next commit, or the mark that is written after the log has been idle for
    `Options.idle_s`. So the view is one commit behind until then, and may lack changes for which
    `wait_durable` or `wait_ended` has already returned in the writer. While a writer is opening the
    state, and until its first commit, the view is as if the previous writer were still alive:
    agents that were running are shown as running, and the last commit may be missing again.

    Without a live writer, the view contains everything that is left, and agents that were running
    are shown as interrupted. With `at`, it is the fleet as of the record of that LSN (or as of the
    last record, if `at` is later), and agents that were running then are shown as running.

    `progress` is called now and then with the number of records that were read since its last call.

    Raises FileNotFoundError, CorruptionError (but not for damage after `at`), FormatVersionError,
    CompactedError if `at` is no longer retained, and NotAJournalError if there is no journal.
    """
    at = arguments.optional_lsn("at", at)
    with closing(open_reader(path)) as reader:
        if at is None:
            return FleetView(*current_fleet(reader, progress))
        return FleetView(*retry(reader, at, lambda: fleet_as_of(reader, at, progress)))


@public
def read_fleets(
    path: StrPath, ats: Iterable[int], *, progress: Callable[[int], object] | None = None
) -> list[FleetView]:
    """Return the fleet as of each of the LSNs `ats`, in their order, as `read_fleet` does for one.

    It takes one pass over the log, up to the highest of the LSNs. Raise the errors of `read_fleet`.
    """
    lsns = [arguments.lsn("ats", at) for at in ats]
    ascending = sorted(set(lsns))
    with closing(open_reader(path)) as reader:
        fleets = retry(
            reader, min(lsns, default=None), lambda: fleets_as_of(reader, ascending, progress)
        )
    views = {at: FleetView(*found) for at, found in zip(ascending, fleets, strict=True)}
    return [views[at] for at in lsns]


@public
def follow_fleet(path: StrPath) -> Iterator[Agent]:
    """Yield the agents that `read_fleet` returns, oldest first, and then each one when it changes.

    This goes on forever, across restarts of the writer, a few hundredths of a second behind it. If
    compaction removes records before they were read, an agent's states in between are skipped.
    When the writer ends, agents that were running are yielded as interrupted, and once more when
    the next writer has journaled that. Raise the errors of `read_fleet`.
    """
    with closing(open_reader(path)) as reader:
        yielded: dict[str, tuple[int, str]] = {}  # the LSN and the status of each agent
        while True:
            fleet, lsn = current_fleet(reader)
            for row in sorted(fleet.rows.values(), key=get.created_at_ms):
                if yielded.get(get.agent_id(row)) != (get.lsn(row), get.status(row)):
                    yield agent_from_row(row, fleet.boot_id)
            try:
                yield from _changed_agents(reader, fleet, lsn)
            except (CompactedError, FileNotFoundError):
                rows = fleet.rows.values()
                yielded = {get.agent_id(row): (get.lsn(row), get.status(row)) for row in rows}


def _changed_agents(reader: JournalReader, fleet: Fleet, lsn: int) -> Iterator[Agent]:
    """Yield agents as they change after `lsn`, the LSN of `fleet`. Raises CompactedError or
    FileNotFoundError when compaction removes records before they were read.
    """
    feed: deque[Row] = deque()
    fleet.feed_to(feed)
    while True:
        with suppress(_WriterGoneError):
            for entry in reader.entries(
                lsn, follow=True, wait=_wait_while_writer_lives(reader, fleet)
            ):
                lsn = entry.lsn
                if entry.is_filler:
                    continue
                apply_entry(fleet, entry)
                check_agents(reader, fleet, agents_of(entry))
                yield from _agents_in_feed(feed, fleet)
        end_session(fleet)
        yield from _agents_in_feed(feed, fleet)


def _agents_in_feed(feed: deque[Row], fleet: Fleet) -> Iterator[Agent]:
    while feed:
        if len(row := feed.popleft()) > 1:  # a row of one field means a removed agent
            yield agent_from_row(row, fleet.boot_id)


class _WriterGoneError(Exception):
    """The writer has ended and left running agents, and the rest of its log has been read."""


def _wait_while_writer_lives(reader: JournalReader, fleet: Fleet) -> Callable[[], None]:
    """Return a function that waits for more of the log. It raises _WriterGoneError if agents are
    running and no writer lives.
    """
    is_gone = False

    def wait() -> None:
        nonlocal is_gone
        clock.sleep(_POLL_S)
        was_gone, is_gone = is_gone, fleet.counts["running"] > 0 and not reader.live
        # Raised the second time only: in between, the reader has read the records that the writer
        # had not yet proved to be durable.
        if was_gone and is_gone:
            raise _WriterGoneError

    return wait

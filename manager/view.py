"""View: a fleet seen from outside, by a process that takes no lock and writes nothing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

from journal import CompactedError, JournalReader
from manager import arguments, records
from manager._public import public
from manager.agent import Agent, Row, Status, agent_from_row, agents_from_rows, get
from manager.fleet import Fleet
from manager.fleet_reader import (
    apply_entry,
    check_agents,
    current_fleet,
    end_session,
    fleet_as_of,
    open_reader,
    retried,
)
from manager.workspace import StrPath

_POLL_S = 0.02


@public
class FleetView:
    """The agents of a state directory as of one LSN. Later changes, and changes that the log did
    not yet show to be durable, do not appear in it."""

    lsn: int
    """The LSN of the last record that the view includes."""

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
    with closing(open_reader(path)) as reader:
        if at is None:
            return FleetView(*current_fleet(reader))
        return FleetView(*retried(reader, at, lambda: fleet_as_of(reader, at)))


@public
def follow_fleet(path: StrPath) -> Iterator[Agent]:
    """The agents as `read_fleet` finds them, oldest first, then each again when it changes.

    For ever, across restarts of the writer, a few hundredths of a second behind it; if it falls
    behind compaction, an agent's states in between are skipped. When the writer ends, what ran is
    shown as interrupted, and once more when the next one has journaled that. Raises what
    `read_fleet` raises.
    """
    with closing(open_reader(path)) as reader:
        short_repr: dict[str, tuple[int, str]] = {}
        while True:
            fleet, lsn = current_fleet(reader)
            for row in sorted(fleet.rows.values(), key=get.created_at_ms):
                if short_repr.get(get.agent_id(row)) != (get.lsn(row), get.status(row)):
                    yield agent_from_row(row, fleet.boot_id)
            try:
                yield from _changed(reader, fleet, lsn)
            except (CompactedError, FileNotFoundError):
                rows = fleet.rows.values()
                short_repr = {get.agent_id(row): (get.lsn(row), get.status(row)) for row in rows}


def _changed(reader: JournalReader, fleet: Fleet, lsn: int) -> Iterator[Agent]:
    """The agents as they change after `lsn`, which `fleet` is at, until it is compacted away."""
    feed: deque[Row] = deque()
    fleet.feed_to(feed)
    while True:
        with suppress(_WriterGoneError):
            for entry in reader.entries(
                lsn, follow=True, wait=_wait_while_writer_lives(reader, fleet)
            ):
                apply_entry(fleet, entry)
                check_agents(reader, fleet, [entry.record[records.AGENT_ID]])
                yield from _fed(feed, fleet)
                lsn = entry.lsn
        end_session(fleet)
        yield from _fed(feed, fleet)


def _fed(feed: deque[Row], fleet: Fleet) -> Iterator[Agent]:
    while feed:
        if len(row := feed.popleft()) > 1:  # else it was removed
            yield agent_from_row(row, fleet.boot_id)


class _WriterGoneError(Exception):
    """It has left agents that run, and all that it has left of the log has been read."""


def _wait_while_writer_lives(reader: JournalReader, fleet: Fleet) -> Callable[[], None]:
    """What waits for more of the log; raises _WriterGoneError once there is nobody to write it."""
    gone = False

    def wait() -> None:
        nonlocal gone
        time.sleep(_POLL_S)
        before, gone = gone, fleet.counts["running"] > 0 and not reader.live
        if before and gone:  # what a writer had not shown to be durable was read in between
            raise _WriterGoneError

    return wait

"""View: a fleet seen from outside, by a process that takes no lock and writes nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import closing
from operator import itemgetter

from journal import CompactedError, CorruptionError, JournalReader
from manager import records
from manager.agent import (
    AGENT_ID,
    BOOT_ID,
    CREATED_AT_MS,
    LSN,
    STARTED_AT_MS,
    STATUS,
    UPDATED_AT_MS,
    Agent,
    Row,
    Status,
    agent_from_row,
    agents_from_rows,
)
from manager.fleet import Fleet
from manager.workspace import StrPath

_ATTEMPTS = 5


class FleetView:
    """The agents of a state directory as of one LSN; later changes do not show in it."""

    def __init__(self, fleet: Fleet, lsn: int, boot_id: str) -> None:
        self._fleet = fleet
        self._boot_id = boot_id
        self.lsn = lsn

    def agents(
        self, *, status: Status | None = None, include_archived: bool = False
    ) -> list[Agent]:
        """As SubAgentManager.agents; the session is the writer's, if one lives."""
        rows = self._fleet.rows.values()
        return agents_from_rows(
            rows, self._boot_id, status=status, include_archived=include_archived
        )

    def get(self, ref: str) -> Agent:
        """The agent with this id or unique name; raises as SubAgentManager.get does."""
        return agent_from_row(self._fleet.find(ref), self._boot_id)


def read_fleet(path: StrPath) -> FleetView:
    """The fleet kept in the state directory `path`: live, or as the next open would find it.

    Agents that ran when their process ended are shown as interrupted. Raises FileNotFoundError,
    CorruptionError, FormatVersionError, and JournalError if there is no journal.
    """
    with closing(JournalReader.open(path)) as reader:
        return FleetView(*_read(reader))


def follow_fleet(path: StrPath) -> Iterator[Agent]:
    """The agents as `read_fleet` finds them, oldest first, then each again when it changes.

    For ever, across restarts of the writer, a few hundredths of a second behind it; if it falls
    behind compaction, an agent's states in between are skipped. What ran when a writer ended is
    shown to run until the next one opens. Raises what `read_fleet` raises.
    """
    with closing(JournalReader.open(path)) as reader:
        shown: dict[str, int] = {}
        while True:
            fleet, lsn, boot_id = _read(reader)
            for row in sorted(fleet.rows.values(), key=itemgetter(CREATED_AT_MS)):
                if shown.get(row[AGENT_ID]) != row[LSN]:
                    yield agent_from_row(row, boot_id)
            feed = fleet.feed = deque()
            try:
                for entry in reader.entries(after=lsn, follow=True):
                    if entry.record[0] == "boot":
                        boot_id = entry.record[2]
                    else:
                        fleet.apply(entry.lsn, entry.record)
                    while feed:
                        if len(row := feed.popleft()) > 1:  # else it was removed
                            yield agent_from_row(row, boot_id)
            except (CompactedError, FileNotFoundError):
                shown = {row[AGENT_ID]: row[LSN] for row in fleet.rows.values()}


def _read(reader: JournalReader) -> tuple[Fleet, int, str]:
    for _ in range(_ATTEMPTS):
        live = reader.live  # asked first: who dies meanwhile is shown as it was
        try:
            fleet, lsn, boot_id = _replayed(reader)
        except (CompactedError, FileNotFoundError):
            continue  # compacted underneath: there is a newer checkpoint now
        if not live:
            boot_id = ""
            _interrupt_all(fleet)
        return fleet, lsn, boot_id
    message = "no checkpoint reaches the segments that are there"
    raise CorruptionError(reader.path, 0, 0, message)


def _replayed(reader: JournalReader) -> tuple[Fleet, int, str]:
    """The fleet, the LSN that it is at, and the latest boot that can be told of."""
    fleet, lsn, boot_id = Fleet(), 0, ""
    checkpoints = reader.checkpoints()
    try:
        for checkpoint in checkpoints[:1]:
            lsn = checkpoint.lsn
            for item in checkpoint.items():
                fleet.load(item)
    finally:
        for checkpoint in checkpoints:
            checkpoint.close()
    for entry in reader.entries(after=lsn):
        lsn = entry.lsn
        fleet.apply(lsn, entry.record)
        if entry.record[0] == "boot":
            boot_id = entry.record[2]
    if not boot_id and fleet.rows:  # its record is older than the checkpoint
        boot_id = max(fleet.rows.values(), key=_begun_at_ms)[BOOT_ID]
    return fleet, lsn, boot_id


def _begun_at_ms(row: Row) -> int:
    return int(row[STARTED_AT_MS] or row[CREATED_AT_MS])


def _interrupt_all(fleet: Fleet) -> None:
    for row in [row for row in fleet.rows.values() if row[STATUS] == "running"]:
        at_ms, lsn = row[UPDATED_AT_MS], row[LSN]
        record = records.interrupt(row[AGENT_ID], at_ms, "process restarted", None, None)
        fleet.apply(lsn, record)

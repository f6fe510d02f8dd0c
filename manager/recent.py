"""Recent agents: all that are live, and those that have changed since the items of the checkpoint
were loaded. So a list of the agents with one status need not look at all that ended long ago."""

from __future__ import annotations

from manager.agent import STATUSES, Row

_COPIED_MAX = 4096  # rows; copying them holds the lock for 0.1 ms


class Recent(dict[str, dict[str, Row]]):
    """The rows of recent agents, by status and id."""

    def __init__(self) -> None:
        super().__init__({status: {} for status in STATUSES})

    def with_status(self, status: str, count: int, *, include_archived: bool) -> list[Row] | None:
        """Return the rows with this status, in any order, or None if only a search of all rows can
        tell. `count` rows have this status. Archived agents, which ended in a prior session, may be
        left out unless `include_archived` is true."""
        rows = self[status]
        is_whole = not include_archived or len(rows) == count
        return [*rows.values()] if is_whole and len(rows) <= _COPIED_MAX else None

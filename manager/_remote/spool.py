"""Spool: the results that a manager has not recorded yet, in a directory of the worker.

Each is kept for the journal of its lease: a manager of another one knows nothing of the agent.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from journal import DurableDict, JournalError
from manager._remote.messages import Body, Lease
from manager.errors import DispatchError
from manager.leasing import Token

_log = logging.getLogger("manager")
_CLOSE_S = 1.0


class Spool:
    """The results that wait to be recorded. They survive the worker's process.

    While the disk is full, results wait in memory only. They are written when it has room.
    """

    def __init__(self, kept: DurableDict) -> None:
        self._kept = kept

    @classmethod
    def open(cls, path: str) -> Spool:
        """Open the spool in the directory `path`. Raise what DurableDict.open raises, and
        DispatchError if something else is kept there."""
        spool = cls(DurableDict.open(path))
        try:
            for _ in spool:
                pass
        except (TypeError, ValueError) as error:
            spool.close()
            what = "it holds something else than the results of a worker; move it away"
            raise DispatchError(f"{path}: {what}") from error
        return spool

    def __iter__(self) -> Iterator[tuple[str, Lease, int, Body]]:
        """Yield the journal, the lease, the number of the report and the body of each result."""
        for key, (sequence, body) in self._kept.items():
            if type(key) is not tuple or type(body) is not dict:
                raise TypeError("not a result")
            journal_id, agent_id, epoch, lsn = key
            lease = Lease(str(agent_id), Token(int(epoch), int(lsn)))
            yield str(journal_id), lease, sequence, body

    def put(self, journal_id: str, lease: Lease, sequence: int, body: Body) -> None:
        """Keep a result and the number of its report, without waiting for the disk."""
        try:
            self._kept[_key(journal_id, lease)] = [sequence, body]
        except (JournalError, OSError) as error:
            _log.warning("a result of %s is kept in memory only: %s", lease.agent_id, error)

    def drop(self, journal_id: str, lease: Lease) -> None:
        """Forget a result, because the manager has recorded it or does not want it."""
        try:
            self._kept.pop(_key(journal_id, lease), None)
        except (JournalError, OSError) as error:  # it is reported again, and changes nothing
            _log.warning("a recorded result of %s is kept: %s", lease.agent_id, error)

    def close(self) -> None:
        """Close the directory. Wait only a moment for a disk that is full."""
        try:
            self._kept.close(timeout_s=_CLOSE_S)
        except TimeoutError as error:
            _log.warning("the last changes of results may be lost: %s", error)


def _key(journal_id: str, lease: Lease) -> tuple[str, str, int, int]:
    return journal_id, lease.agent_id, *lease.token

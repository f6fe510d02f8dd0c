"""Upkeep: roll-ups, checkpoints and bases of a writer's mirror, and what they let go.

Nothing here is needed for a commit to be in the mirror. It bounds the number of objects, and the
time of a restore.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack, closing

from journal._commit.writer import SyncedEnd
from journal._disk.disk import Directory
from journal._format.segment import segment_names
from journal._log import post
from journal._mirror.basing import find_base
from journal._mirror.checkpointing import Checkpoints
from journal._mirror.claiming import Appender
from journal._mirror.entry import MirrorEntry, segment_name
from journal._mirror.holding import Holding
from journal._mirror.rolling_up import RollUps
from journal._mirror.store import Store
from journal._mirror.unshipped import Cursor, Unshipped

Answered = Callable[[Callable[[], object], Callable[[], object]], None]
"""A function that makes a request, and then makes the second one until the outcome is known."""


class Upkeep:
    """The upkeep of one writer's mirror. The shipper's thread uses it."""

    def __init__(
        self,
        store: Store,
        appender: Appender,
        directory: Directory,
        unshipped: Unshipped,
        holding: Holding,
        *,
        keep_s: float,
        now_ms: Callable[[], int],
    ) -> None:
        """Begin where shipping goes on."""
        self._appender = appender
        self._directory = directory
        self._unshipped = unshipped
        self._holding = holding
        self._roll_ups = RollUps(appender, directory)
        cursor = unshipped.cursor
        self._checkpoints = Checkpoints(
            store, appender, directory, cursor, keep_s=keep_s, now_ms=now_ms
        )
        self._hold(cursor)

    def add(self, entry: MirrorEntry) -> None:
        """Note an entry that was appended. Its bytes are behind the cursor now."""
        self._roll_ups.add(entry)
        self._checkpoints.add(entry)
        self._hold(self._unshipped.cursor)

    def run(self, mirrored_lsn: int) -> None:
        """Do what is due, after something was shipped. Raises LostError, the store's other errors
        except UnreachableError and RefusedError, and those of the disk."""
        if self._roll_ups.is_due:
            self._roll_ups.run()
            self._hold(self._unshipped.cursor)
            self._holding.is_compacted = True  # a checkpoint may have waited for the next segment
        if self._holding.is_compacted:
            self._holding.is_compacted = False
            if not self._checkpoints.run(mirrored_lsn):
                self._holding.is_compacted = True

    def start_again(
        self,
        end: SyncedEnd | None,
        lsn: int,
        mirrored_lsn: int,
        answered: Answered,
        *,
        is_closed: bool,
    ) -> bool:
        """Continue after bytes at the cursor are gone. Return False if that can't be done.

        `end`: the end of what is synced, with LSN `lsn`. `mirrored_lsn`: the LSN up to which the
        mirror has every record. Raises what `answered` raises, and FileNotFoundError if files were
        removed meanwhile.
        """
        if self._skip(mirrored_lsn):
            return True
        epoch = self._unshipped.epoch
        base = find_base(self._directory, epoch, end, lsn, is_closed=is_closed)
        if base is None:
            return False
        with ExitStack() as opened:
            for checkpoint in base.checkpoints:
                opened.enter_context(closing(checkpoint))
            self._holding.first = base.ranges[0][0]
            entry = self._appender.next_base(base.lsn, lsn)
            made_ms = base.checkpoints[0].created_at_ms

            def put() -> None:
                self._appender.put_base(entry, made_ms, base.pieces(self._directory))

            answered(put, put)
        answered(lambda: self._appender.append_base(entry), self._appender.retry)
        text = "%s: the mirror starts again from a checkpoint: the records from LSN %d to %d %s"
        gone = mirrored_lsn + 1, base.lsn - 1, "were removed before they were shipped"
        if mirrored_lsn and base.lsn > mirrored_lsn + 1:
            post(logging.WARNING, text, self._directory.path, *gone)
        self._unshipped.cursor = base.cursor
        self._roll_ups.begin()
        self._checkpoints.begin(base.cursor)
        self._hold(base.cursor)
        return True

    def _skip(self, mirrored_lsn: int) -> bool:
        """Go on with the next segment if the mirror has every record before it."""
        at = self._unshipped.cursor.segment
        names = segment_names(self._directory.names())
        later = [name for name in names if at is not None and name > at]
        if at is None or at in names or not later or later[0].first_lsn > mirrored_lsn + 1:
            return False
        self._unshipped.cursor = Cursor(later[0], 0)
        self._hold(self._unshipped.cursor)
        return True

    def _hold(self, cursor: Cursor) -> None:
        first = self._roll_ups.first_file
        needed = [segment_name(first)] if first else []
        self._holding.first = min([*needed, cursor.segment]) if cursor.segment else None

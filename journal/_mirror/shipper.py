"""Shipper: the thread that brings a mirror up to date, and the waiters for that.

No request to the store runs in any other thread: while the store is silent, commits, waiters, a
close and a fork go on as without a mirror. The thread looks at the end of what is synced every
`interval_s`, or at once when it is woken, and appends what is new as one entry, or several if it is
large. A request that fails is repeated until it succeeds, so entries are in the order of the log.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from journal._commit.gate import Gate
from journal._commit.writer import SyncedEnd
from journal._disk.disk import Directory
from journal._log import post
from journal._mirror.claiming import Appender
from journal._mirror.entry import MirrorEntry, Piece, pack_pieces
from journal._mirror.store import RefusedError, StoreError, UnreachableError
from journal._mirror.unshipped import Unshipped, read_range
from journal._mutex import Alarm

_RETRY_S_MIN, _RETRY_S_MAX = 0.05, 5.0
_ROLL_UP_ENTRIES = 1000


class Shipper:
    """Ships what is synced. `mirrored_lsn` is the LSN up to which the mirror has every record.

    After a failure, nothing more is shipped, and `failure` is its cause: another writer has taken
    over, the mirror is damaged, or the journal's files can't be read.
    """

    def __init__(
        self,
        appender: Appender,
        directory: Directory,
        unshipped: Unshipped,
        synced_end: Callable[[], SyncedEnd | None],
        *,
        recovered_lsn: int,
        entry_bytes_max: int,
        interval_s: float,
        failed: Callable[[BaseException], None],
    ) -> None:
        """Prepare the thread. `synced_end` returns the end of what is synced, None if nothing was
        since the open; then the log ends at `recovered_lsn`. `failed` is called once, in this
        thread, with the cause of a failure."""
        self._appender = appender
        self._unshipped = unshipped
        self._synced_end = synced_end
        self._recovered_lsn = recovered_lsn
        self._entry_bytes_max = entry_bytes_max
        self._interval_s = interval_s
        self._path = directory.path
        self._failed = failed
        self._roll_ups = RollUps(appender, directory)
        self._alarm = Alarm()
        self._gate = Gate(wakes_all_at_once=True)
        self._thread = threading.Thread(target=self._run, name="journal-mirror", daemon=True)
        self._give_up_at: float | None = None  # set by `stop`
        self._is_closed = False
        self._shipped_end: SyncedEnd | None = None
        self.mirrored_lsn = appender.claimed.last_lsn
        self.failure: BaseException | None = None
        self.has_ended = False
        self.stalls = 0

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Make the thread look at once. Never waits."""
        self._alarm.wake()

    def wait(self, lsn: int, timeout_s: float | None = None) -> bool:
        """Wait until the mirror has every record up to `lsn`, which is synced, and make the thread
        look at once. Return whether it has; not if `timeout_s` seconds passed first, or if nothing
        more is shipped."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            gate = self._gate  # before the check: a later change opens it
            if lsn <= self.mirrored_lsn:
                return True
            if self.has_ended:
                return False
            self.wake()
            if not gate.wait(None if until_s is None else until_s - time.monotonic()):
                return lsn <= self.mirrored_lsn

    def stop(self, limit_s: float, *, is_closed: bool = True) -> None:
        """Ship the rest, release the mirror, and end. If the store stays unreachable for `limit_s`
        seconds, end without that. Never waits.

        `is_closed`: the log was closed, and all of it is synced. After a failure of the log, pass
        False: what was written and not synced may be lost, so it is not shipped.
        """
        self._is_closed = is_closed
        self._give_up_at = time.monotonic() + limit_s
        self.wake()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait at most `timeout_s` seconds for the thread to end. Return whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- in the thread ---

    def _run(self) -> None:
        try:
            while self._give_up_at is None:
                self._ship(self._synced_end())
                self._alarm.sleep(self._interval_s)
            self._ship(self._synced_end(), is_closed=self._is_closed)
            self._until_answered(self._appender.release)
        except _GivenUpError as error:
            text = "%s: the mirror can't be reached: %s; the next open ships what follows LSN %d"
            post(logging.ERROR, text, self._path, error.__cause__, self.mirrored_lsn)
        except BaseException as error:
            self.failure = error
            text = "%s: nothing more is mirrored after LSN %d: %s"
            post(logging.ERROR, text, self._path, self.mirrored_lsn, error)
            self._failed(error)
        finally:
            self.has_ended = True
            self._pass()

    def _ship(self, end: SyncedEnd | None, *, is_closed: bool = False) -> None:
        if end is not None and end == self._shipped_end and not is_closed:
            return
        lsn = end[2] if end else self._recovered_lsn
        is_complete = False
        while not is_complete:
            pieces, is_complete = self._unshipped.read(
                end, self._entry_bytes_max, is_closed=is_closed
            )
            groups = pack_pieces(pieces, self._entry_bytes_max)
            for number, group in enumerate(groups, 1):
                is_last = is_complete and number == len(groups)
                self._append(group, lsn if is_last else self.mirrored_lsn)
        self._shipped_end = end
        if self._roll_ups.is_due:
            self._roll_ups.run()

    def _append(self, pieces: list[Piece], lsn: int) -> None:
        self._until_answered(lambda: self._appender.append(pieces, lsn))
        self._unshipped.advance(pieces)
        self._roll_ups.add(self._appender.last)
        if lsn > self.mirrored_lsn:
            self.mirrored_lsn = lsn
            self._pass()

    def _until_answered(self, call: Callable[[], object]) -> None:
        """Make an append, and repeat it until its outcome is known."""
        delay_s = _RETRY_S_MIN
        while True:
            try:
                call()
            except (UnreachableError, RefusedError) as error:  # a right that was taken may return
                self._stall(error, delay_s)
                delay_s = min(2 * delay_s, _RETRY_S_MAX)
                call = self._appender.retry
            else:
                return

    def _stall(self, error: StoreError, delay_s: float) -> None:
        """Wait before a request is repeated. Raises _GivenUpError after the limit of a close."""
        if delay_s == _RETRY_S_MIN:
            self.stalls += 1
            text = "%s: the mirror is behind, because it can't be reached: %s"
            post(logging.WARNING, text, self._path, error)
        until_s = time.monotonic() + delay_s
        while (remaining_s := until_s - time.monotonic()) > 0:
            if self._give_up_at is not None:
                if time.monotonic() >= self._give_up_at:
                    raise _GivenUpError from error
                remaining_s = min(remaining_s, self._give_up_at - time.monotonic())
            self._alarm.sleep(max(remaining_s, 0))

    def _pass(self) -> None:
        """Wake all waiters, so that they look again."""
        gate, self._gate = self._gate, Gate(wakes_all_at_once=True)
        gate.open()


class RollUps:
    """Rolls entries up: puts their bytes into one blob, from the local files, and trims them."""

    def __init__(self, appender: Appender, directory: Directory) -> None:
        self._appender = appender
        self._directory = directory
        self._follows = appender.claimed.follows
        self._first = appender.claimed.number
        self._ranges: list[_Range] = []

    def add(self, entry: MirrorEntry) -> None:
        """Note an entry that was appended."""
        self._ranges += [
            _Range(entry.number, piece.name, piece.offset, piece.end) for piece in entry.pieces
        ]

    @property
    def is_due(self) -> bool:
        """True if a segment was sealed, or if there are many entries."""
        if not self._ranges:
            return False
        first, last = self._ranges[0], self._ranges[-1]
        return first.name != last.name or last.number - first.number >= _ROLL_UP_ENTRIES

    def run(self) -> None:
        """Roll up all entries so far. If the store can't be reached, the next call tries again."""
        try:
            pieces = [self._piece(*whole) for whole in self._merged()]
        except FileNotFoundError:
            # Compaction removed a segment first. The entries stay as they are.
            self._begin()
            return
        numbers = sorted({each.number for each in self._ranges})
        try:
            name = self._appender.roll_up(self._first, self._follows, pieces)
            self._appender.trim(name, numbers)
        except (UnreachableError, RefusedError):
            return
        self._begin()

    def _begin(self) -> None:
        last = self._appender.last
        self._first, self._follows, self._ranges = last.number + 1, last.nonce, []

    def _merged(self) -> list[tuple[str, int, int]]:
        """Return the name, the beginning and the end of each continuous range."""
        merged: list[tuple[str, int, int]] = []
        for _, name, begin, end in self._ranges:
            if merged and merged[-1][0] == name and begin <= merged[-1][2]:
                merged[-1] = name, merged[-1][1], max(end, merged[-1][2])
            else:
                merged.append((name, begin, end))
        return merged

    def _piece(self, name: str, begin: int, end: int) -> Piece:
        return Piece(name, begin, read_range(self._directory, name, begin, end - begin))


class _Range(NamedTuple):
    number: int
    name: str
    begin: int
    end: int


class _GivenUpError(Exception):
    """The store could not be reached before the limit of a close. The cause says why."""

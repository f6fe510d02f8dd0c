"""Shipper: the thread that brings a mirror up to date, and the waiters for that.

No thread that commits or waits makes a request to the store: while the store is silent, commits,
waiters, a close and a fork go on as without a mirror. (Blobs are put in a thread of their own; see
Upkeep.) The thread looks at the end of what is synced every `interval_s`, or at once when it is
woken, and appends what is new as one entry, or several if it is large. A request that fails is
repeated until it succeeds, so entries are in the order of the log.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol

from journal import _time as time
from journal._commit.gate import Gate
from journal._commit.writer import SyncedEnd
from journal._disk.disk import Directory
from journal._log import post
from journal._mirror.attaching import Attached
from journal._mirror.claiming import Appender
from journal._mirror.entry import MirrorDamageError, MirrorEntry, Piece, pack_pieces
from journal._mirror.permit import Permit
from journal._mirror.place_note import Known, write_note
from journal._mirror.store import RefusedError, Store, StoreError, UnreachableError
from journal._mirror.unshipped import Unshipped
from journal._mirror.upkeep import Upkeep
from journal._mutex import Alarm
from journal._waits import join
from journal.errors import InterruptedCallError

_NOTE_S = 30.0  # between two notes of the last place
_RETRY_S_MIN, _RETRY_S_MAX = 0.05, 1.0
_UPKEEP_S_MAX = 5.0  # at the end: what is not removed then, the next writer may remove


class Shipper:
    """Ships what is synced. `mirrored_lsn` is the LSN up to which the mirror has every record.

    After a failure, nothing more is shipped, and `failure` is its cause: another writer has taken
    over, the mirror is damaged, or the journal's files can't be read.
    """

    def __init__(
        self,
        attach: Callable[[], Attached],
        directory: Directory,
        make_upkeep: Callable[[Store, Appender, Directory, Unshipped], Upkeep],
        synced_end: Callable[[], SyncedEnd | None],
        *,
        epoch: int,
        mirrored_lsn: int,
        recovered_lsn: int,
        interval_s: float,
        events: ShipperEvents,
        permit: Permit,
    ) -> None:
        """Prepare the thread. It closes `directory` and the store when it ends.

        `attach` returns the mirror; it is repeated until the store answers, and `make_upkeep` then
        makes the mirror's upkeep. `synced_end` returns the end of what is synced, None if nothing
        was since the open; then the log ends at `recovered_lsn`. `epoch`: the writer's.
        `mirrored_lsn`: the LSN that the mirror is known to have. `permit`: to change the directory.
        """
        self._attach = attach
        self._permit = permit
        self._make_upkeep = make_upkeep
        self._directory = directory
        self._synced_end = synced_end
        self._epoch = epoch
        self._recovered_lsn = recovered_lsn
        self._interval_s = interval_s
        self._path = directory.path
        self._events = events
        self._link: _Link | None = None  # set by the thread, once the mirror is attached
        self._known: Known | None = None  # for the next open; None if it has to compare everything
        self._noted_at = time.monotonic()
        self._alarm = Alarm()
        self._gate = Gate(wakes_all_at_once=True)
        self._thread = threading.Thread(target=self._run, name="journal-mirror", daemon=True)
        self._is_stopping, self._is_closed = False, False  # set by `stop`
        self._give_up_at = float("inf")
        self._shipped_end: SyncedEnd | None = None
        self._complete_at = time.monotonic()  # everything that was synced then is shipped
        self.mirrored_lsn = mirrored_lsn
        self.backlog_bytes = self.shipped_bytes = 0  # of earlier epochs, and of all epochs
        self.failure: BaseException | None = None
        self.has_ended = False
        self.stalls = self.retries = 0
        self.stalled_by: StoreError | None = None  # while the mirror can't be reached
        self.append_s = 0.0  # how long the last upload took

    def start(self) -> None:
        self._thread.start()

    @property
    def has_begun(self) -> bool:
        return self._thread.ident is not None

    @property
    def is_attached(self) -> bool:
        """True if the mirror was reached. Before that, it may have more than `mirrored_lsn`."""
        return self._link is not None

    @property
    def is_here(self) -> bool:
        """True if the calling thread is the shipper's, as for a finalizer that runs there."""
        return threading.current_thread() is self._thread

    def lag_s(self, synced_lsn: int) -> float:
        """Return an upper bound of the seconds for which the oldest record up to `synced_lsn` has
        waited to be shipped."""
        is_complete = synced_lsn <= self.mirrored_lsn
        return 0.0 if is_complete else time.monotonic() - self._complete_at

    def wake(self) -> None:
        """Make the thread look at once. Never waits."""
        self._alarm.wake()

    def gate(self, lsn: int) -> Gate | None:
        """Return a gate that opens when the mirror has more records, and make the thread look at
        once. Return None if it has every record up to `lsn`, or if nothing more is shipped."""
        gate = self._gate  # before the check: a later change opens it
        if lsn <= self.mirrored_lsn or self.has_ended:
            return None
        if self.is_here:
            raise InterruptedCallError
        self.wake()
        return gate

    def wait(self, lsn: int, timeout_s: float | None = None) -> bool:
        """Wait until the mirror has every record up to `lsn`, which is synced, and make the thread
        look at once. Return whether it has; not if `timeout_s` seconds passed first, or if nothing
        more is shipped."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while gate := self.gate(lsn):
            if not gate.wait(None if until_s is None else until_s - time.monotonic()):
                break
        return lsn <= self.mirrored_lsn

    def stop(self, limit_s: float, *, is_closed: bool = True) -> None:
        """Ship the rest, release the mirror, and end. If that takes more than `limit_s` seconds,
        end without it. Never waits.

        `is_closed`: the log was closed, and all of it is synced. After a failure of the log, pass
        False: what was written and not synced may be lost, so it is not shipped.
        """
        self._is_closed = is_closed
        self._is_stopping = True
        self.give_up_within(limit_s)

    def give_up_within(self, limit_s: float) -> None:
        """End without shipping the rest if that takes more than `limit_s` seconds. Never waits."""
        self._give_up_at = time.monotonic() + limit_s
        self.wake()

    def abandon(self) -> None:
        """Close the directory in a forked child, where the thread does not exist."""
        self._directory.close(unlock=False)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait at most `timeout_s` seconds for the thread to end. Return whether it has ended."""
        return join(self._thread, timeout_s)

    # --- in the thread ---

    def _run(self) -> None:
        try:
            self._until_answered(self._connect)
            while not self._is_stopping:
                while not self._is_stopping and (due_s := self._events.due_s()) > 0:
                    self._alarm.sleep(due_s)
                self._ship()
                self._events.looked()
                if not self._is_stopping:  # the wake-up for that may be spent
                    self._alarm.sleep(self._interval_s)
            self._ship(is_closed=self._is_closed)
            _, appender, _, upkeep = self._linked
            # The rest of the limit is for the release.
            wait_s = (self._give_up_at - time.monotonic()) / 2
            upkeep.run(self.mirrored_lsn, wait_s=min(wait_s, _UPKEEP_S_MAX))
            appender.trims = False
            self._until_answered(appender.release, appender.retry)
            self._note(appender.last)
        except _GivenUpError as error:
            self._events.gave_up(error.__cause__ or error)
        except BaseException as error:
            self.failure = error
            text = "%s: nothing more is mirrored after LSN %d: %s"
            post(logging.ERROR, text, self._path, self.mirrored_lsn, error)
            self._events.failed(error)
        finally:
            self.has_ended = True
            self._pass()
            try:
                if self._link is not None:
                    with suppress(Exception):  # there was another failure, or a limit has passed
                        self._link.upkeep.finish(threading.TIMEOUT_MAX)
                    self._link.store.close()
                self._note_place(0.0)
                self._directory.close(unlock=False)
            finally:
                self._events.ended()

    @property
    def _linked(self) -> _Link:
        assert self._link is not None
        return self._link

    def _connect(self) -> None:
        store, appender, self._known = self._attach()
        unshipped = Unshipped(self._directory, self._epoch, self._known.cursor)
        upkeep = self._make_upkeep(store, appender, self._directory, unshipped)
        self._link = _Link(store, appender, unshipped, upkeep)
        self.backlog_bytes = unshipped.size()
        self._note_mirrored(appender.claimed.last_lsn)

    def _ship(self, *, is_closed: bool = False) -> None:
        looked_at = time.monotonic()
        end = self._synced_end()
        if end is not None and end == self._shipped_end and not is_closed:
            self._complete_at = looked_at
            self._linked.upkeep.run(self.mirrored_lsn)
            return
        _, _, unshipped, upkeep = self._linked
        if is_closed:
            unshipped.sync_closed()
        entry_bytes_max = self._linked.store.entry_bytes_max
        lsn = end[2] if end else self._recovered_lsn
        is_complete = False
        while not is_complete:
            try:
                pieces, is_complete = unshipped.read(end, entry_bytes_max, is_closed=is_closed)
            except FileNotFoundError:
                if self._start_again(end, lsn, is_closed=is_closed):
                    continue
                if self._synced_end() == end:
                    raise
                self._ship(is_closed=is_closed)  # all checkpoints may be newer than `end`
                return
            groups = pack_pieces(pieces, entry_bytes_max)
            for number, group in enumerate(groups, 1):
                is_last = is_complete and number == len(groups)
                self._append(group, lsn if is_last else self.mirrored_lsn)
        self._shipped_end, self._complete_at = end, looked_at
        # Not all of it was uploaded here: a base may have come instead.
        self.shipped_bytes = self.backlog_bytes + (end[3] if end else 0)
        self._note_mirrored(lsn)
        self._note_place(_NOTE_S)
        upkeep.run(self.mirrored_lsn)

    def _start_again(self, end: SyncedEnd | None, lsn: int, *, is_closed: bool) -> bool:
        """Continue where bytes that were not shipped are gone. Return False if that can't be."""
        _, appender, _, upkeep = self._linked
        self._known = None
        try:
            has_begun = upkeep.start_again(
                end, lsn, self.mirrored_lsn, self._until_answered, is_closed=is_closed
            )
        except FileNotFoundError:
            return True  # a compaction has removed another file: look again
        self._note_mirrored(appender.last.last_lsn)
        return has_begun

    def _append(self, pieces: list[Piece], lsn: int) -> None:
        if time.monotonic() >= self._give_up_at:
            raise _GivenUpError("the limit of the close has passed")
        _, appender, unshipped, upkeep = self._linked
        began = time.monotonic()
        self._until_answered(lambda: appender.append(pieces, lsn), appender.retry)
        self.append_s = time.monotonic() - began
        size = sum(len(piece.data) for piece in pieces)
        self.shipped_bytes += size
        self._note_mirrored(lsn)  # the waiters append more records during what follows
        unshipped.advance(pieces)
        self._note(appender.last)
        upkeep.add(appender.last)
        self._events.shipped(size, self.append_s)

    def _note_mirrored(self, lsn: int) -> None:
        if lsn > self.mirrored_lsn:
            self.mirrored_lsn = lsn
            self._pass()
            self._events.mirrored(lsn)

    def _note(self, entry: MirrorEntry) -> None:
        if self._known is None:
            return
        try:
            self._known.add(entry)
        except MirrorDamageError:
            self._known = None  # a note only saves time

    def _note_place(self, pause_s: float) -> None:
        """Write the note of the last place, if the last one is older than `pause_s` seconds."""
        if self._known is not None and time.monotonic() >= self._noted_at + pause_s:
            with suppress(UnreachableError), self._permit.used():
                write_note(self._directory, self._known)
            self._noted_at = time.monotonic()

    def _until_answered(
        self, call: Callable[[], object], again: Callable[[], object] | None = None
    ) -> None:
        """Call, and call `again` (None: the same) until the outcome is known."""
        delay_s = _RETRY_S_MIN
        while True:
            try:
                call()
            except (UnreachableError, RefusedError) as error:  # a right that was taken may return
                self.stalled_by = error
                self._stall(error, delay_s)
                delay_s = min(2 * delay_s, _RETRY_S_MAX)
                call = again or call
                self.retries += 1
            else:
                self.stalled_by = None
                if delay_s > _RETRY_S_MIN:
                    self.wake()  # the waits between requests may have spent a wake-up
                return

    def _stall(self, error: StoreError, delay_s: float) -> None:
        """Wait before a request is repeated. Raises _GivenUpError after the limit of a close."""
        if delay_s == _RETRY_S_MIN:
            self.stalls += 1
            text = "%s: the mirror is behind, because it can't be reached: %s"
            post(logging.WARNING, text, self._path, error)
            self._events.stalled(error)
        until_s = time.monotonic() + delay_s
        while (remaining_s := until_s - time.monotonic()) > 0:
            to_limit_s = self._give_up_at - time.monotonic()
            if to_limit_s <= 0:
                raise _GivenUpError from error
            self._alarm.sleep(min(remaining_s, to_limit_s))

    def _pass(self) -> None:
        """Wake all waiters, so that they look again."""
        gate, self._gate = self._gate, Gate(wakes_all_at_once=True)
        gate.open()


class ShipperEvents(Protocol):
    """The receiver of a shipper's events. All calls come from the shipper's thread."""

    def due_s(self) -> float:
        """Return the seconds after which to look for synced bytes: 0 or less for at once."""

    def mirrored(self, lsn: int) -> None:
        """Note that the mirror has every record up to `lsn`."""

    def shipped(self, size: int, took_s: float) -> None:
        """Note an upload of `size` bytes, which took `took_s` seconds."""

    def looked(self) -> None:
        """Note that everything is shipped that was synced when the thread looked last."""

    def stalled(self, error: StoreError) -> None:
        """Receive the error of the first of several requests that failed."""

    def gave_up(self, error: BaseException) -> None:
        """Receive the error because of which not everything is shipped at the end."""

    def failed(self, error: BaseException) -> None:
        """Receive the error after which nothing more is shipped."""

    def ended(self) -> None:
        """Note that the thread ends, and no longer uses the directory."""


class _Link(NamedTuple):
    """An attached mirror."""

    store: Store
    appender: Appender
    unshipped: Unshipped
    upkeep: Upkeep


class _GivenUpError(Exception):
    """The store could not be reached before the limit of a close. The cause says why."""

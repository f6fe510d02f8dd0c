"""Following: a thread that keeps a directory up to date with a mirror, without claiming it.

It asks for the next number every `poll_s` seconds, or more often where that costs less. While there
is no such entry, nothing is new: a request for what is absent costs a tenth of a list. But an entry
that was rolled up and trimmed is absent, too. So it also lists, and goes on from a roll-up if there
is one: after it was away for a few seconds, when a burst of entries ends, and from time to time
while nothing comes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing, suppress

from journal import _time as time
from journal._commit.gate import Gate
from journal._disk.disk import Directory
from journal._format.checkpoint import checkpoint_lsns
from journal._log import post
from journal._mirror.blobs import checkpoint_names, read_blob
from journal._mirror.entry import BYTES, CLAIM, RELEASE, MirrorEntry
from journal._mirror.live_copy import LiveCopy
from journal._mirror.marker import note_followed
from journal._mirror.place_note import Known, write_note
from journal._mirror.reading import has_lost, read_entry, read_log
from journal._mirror.store import AbsentError, LostError, RefusedError, Store, UnreachableError
from journal._mutex import Alarm
from journal._waits import join

# A pause of more than _AWAY_S needs a list. So asking more often than `poll_s` costs less, until
# `poll_s` is long enough for one list to cost less than the requests in between.
_ASK_S_MAX, _LIST_EACH_S = 1.5, 25.0
_AWAY_S = 2.0  # no writer rolls up and trims an entry sooner than that after it was appended
_LIST_S_MIN, _LIST_S_MAX = 2.0, 60.0
_RETRY_S_MAX = 1.0
_UPKEEP_S = 60.0  # between two looks for a newer checkpoint
_NOTE_S = 5.0  # between two notes of the last place
_PLAIN = (CLAIM, BYTES, RELEASE)


class Following:
    """Follows a mirror into a directory that the caller has locked and compared."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        known: Known,
        *,
        poll_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the thread. `known`: what the mirror and the directory both have; all that the
        mirror had when this is called."""
        self._store = store
        self._directory = directory
        self._copy = LiveCopy(directory, known)
        self.pause_s = poll_s if poll_s >= _LIST_EACH_S else min(poll_s, _ASK_S_MAX)
        self._clock_s = clock_s
        self._current_s = self._noted_s = clock_s()
        self._upkeep_at_s = self._current_s + _UPKEEP_S
        self._list_pause_s, self._list_at_s = _LIST_S_MIN, self._current_s + _LIST_S_MIN
        self._epoch = 0  # the highest one that is in the marker
        self._burst = 0  # the number of entries that the last poll has found
        self._alarm = Alarm()
        self._gate = Gate(wakes_all_at_once=True)
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="journal-follower", daemon=True)
        self.failure: BaseException | None = None
        self.has_ended = False

    @property
    def lsn(self) -> int:
        """The LSN up to which readers of the directory find every record."""
        return self._copy.last_lsn

    @property
    def lag_s(self) -> float:
        """The time, in seconds, since the directory had everything that the mirror had."""
        return self._clock_s() - self._current_s

    def start(self) -> None:
        self._thread.start()

    def gate(self, lsn: int) -> Gate | None:
        """Return a gate that opens at the next change, or None if `lsn` is there already, or if
        nothing more comes."""
        gate = self._gate  # before the check: a later change opens it
        return None if lsn <= self.lsn or self.has_ended else gate

    def stop(self) -> None:
        """Make the thread end after the request under way. Never waits."""
        self._is_stopping = True
        self._alarm.wake()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait at most `timeout_s` seconds for the thread to end. Return whether it has ended."""
        return join(self._thread, timeout_s)

    def abandon(self) -> None:
        """Note in a forked child that the thread does not exist."""
        self._is_stopping = self.has_ended = True

    # --- in the thread ---

    def _run(self) -> None:
        delay_s = self.pause_s
        try:
            while not self._stops():
                try:
                    self.poll()
                    delay_s = self.pause_s
                except (UnreachableError, RefusedError) as error:
                    if delay_s == self.pause_s:
                        text = "%s: the mirror can't be followed, because it can't be reached: %s"
                        post(logging.WARNING, text, self._directory.path, error)
                    delay_s = min(2 * delay_s, max(_RETRY_S_MAX, self.pause_s))
                self._note(_NOTE_S)
                self._alarm.sleep(delay_s)
        except BaseException as error:
            self.failure = error
            text = "%s: nothing more is followed after LSN %d: %s"
            post(logging.ERROR, text, self._directory.path, self.lsn, error)
        finally:
            self.has_ended = True
            self._pass()
            self._note(0.0)
            self._copy.close()

    def poll(self) -> None:
        """Take what is new. Raises what the store and the disk raise, and MirrorDamageError."""
        try:
            self._poll()
        except BaseException:
            self._copy.forget_parts()
            raise

    def _poll(self) -> None:
        burst, self._burst = self._burst, 0
        while not self._stops():
            asked_s = self._clock_s()
            try:
                place = self._copy.known.place
                entry = read_entry(self._store, place.number + 1)
            except AbsentError:
                # Entries that come fast are rolled up soon, perhaps the next one already.
                has_ended = burst > 1 and not self._burst
                is_away = has_ended or asked_s - self._current_s > _AWAY_S
                if is_away or asked_s >= self._list_at_s:
                    self._read_log(asked_s)
                    self._list_pause_s = min(2 * self._list_pause_s, _LIST_S_MAX)
                self._current_s = asked_s
                if asked_s >= self._upkeep_at_s:
                    self._upkeep_at_s = asked_s + _UPKEEP_S
                    self._take_checkpoint()
                return
            if self._stops():
                return
            if entry.follows != place.nonce or entry.kind not in _PLAIN:
                self._read_log(asked_s)
                return
            self._apply(entry)
            self._burst += 1
            self._list_pause_s = _LIST_S_MIN
            self._list_at_s = asked_s + _LIST_S_MIN
            self._pass()

    def _read_log(self, asked_s: float) -> None:
        """List, and read all that is new. Raises LostError if the mirror was emptied."""
        known = self._copy.known
        begin = known.place
        with closing(read_log(self._store, begin)) as log:
            for entry in log:
                if self._stops():
                    return
                self._apply(entry)
                self._list_pause_s = _LIST_S_MIN
                self._pass()
        if known.place == begin and has_lost(self._store, begin):
            raise LostError(
                f"{self._store.url}: entry {begin.number} is gone: the mirror was emptied or made "
                "anew. Find out why; the follower's directory keeps what it has"
            )
        self._current_s = asked_s
        self._list_at_s = asked_s + self._list_pause_s

    def _apply(self, entry: MirrorEntry) -> None:
        if entry.epoch > self._epoch:
            note_followed(self._directory, entry.epoch)  # before the first bytes of that claim
            self._epoch = entry.epoch
        self._copy.apply(entry)

    def _take_checkpoint(self) -> None:
        """Get the newest checkpoint, so that the directory is compacted like the writer's."""
        if self._copy.is_catching_up:
            return
        own_lsn = max(checkpoint_lsns(self._directory.names()), default=-1)
        names = checkpoint_names(self._store.blob_names())
        number = self._copy.known.place.number
        newer = [each for each in names if each.number <= number and not each.nonce]
        if newer and newer[-1].lsn > own_lsn:
            with suppress(AbsentError):  # a newer one has replaced it
                self._copy.add_checkpoint(read_blob(self._store, newer[-1]))

    def _stops(self) -> bool:
        return self._is_stopping

    def _note(self, pause_s: float) -> None:
        now_s = self._clock_s()
        if now_s >= self._noted_s + pause_s and self._copy.is_complete:
            write_note(self._directory, self._copy.known)
            self._noted_s = now_s

    def _pass(self) -> None:
        """Wake all waiters, so that they look again."""
        gate, self._gate = self._gate, Gate(wakes_all_at_once=True)
        gate.open()

"""Log buffer: records packed and numbered, not yet on disk.

A record's LSN is its place here (the batch's first LSN + index), so adding it to the list is
the one step that numbers it: whatever interrupts `append` leaves no gap. What must be true once
the record is in (the flusher is awake, the bytes are counted) is made true before it goes in.

At most two batches exist: one that fills, one that is being committed. Whoever commits holds
the end of the log, alone: the flusher, or a waiter who found nobody there and commits in its
own thread. What a holder is interrupted in, the flusher finishes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from journal.batch import Batch
from journal.crowd import Crowd
from journal.errors import BufferFullError, ClosedError, FailedError, JournalError, RecordError
from journal.gate import Gate, open_gates
from journal.options import Options
from journal.record import CANT_PACK, PackedRecord, Record, RecordPacker, refusal

_closed = partial(ClosedError, "the journal is closed; open it again")
_forked = partial(ClosedError, "the journal belongs to the parent process; open it after the fork")


class LogBuffer:
    """Numbers records, bounds them, and hands them to the flusher in batches."""

    def __init__(self, last_lsn: int, options: Options) -> None:
        names = ("record_bytes_max", "frame_bytes_max")  # a record has to fit in a frame, too
        self._packer = RecordPacker(**{name: getattr(options, name) for name in names})
        self._pack, self._surely_fits = self._packer.pack_unchecked, self._packer.surely_fits
        self._options = options
        self.bound, self._flush_bytes = options.buffer_bytes, options.flush_bytes
        self._idle_s, self._hasty = options.idle_s, options.flush_interval_s < options.idle_s
        # Guards every field below; never held across a write or a sync. Lock order: the
        # owner's lock, then this one.
        self._lock = threading.Lock()
        self._filling = Batch(last_lsn + 1)
        self._committing: Batch | None = None
        self._committing_bytes = 0  # as long as they are not durable
        # A record that leaves fewer bytes in `_filling` needs nothing to be made ready for it.
        self._unheeded_bytes = 0
        self.durable_lsn = last_lsn
        # Where the log stood at the last commit, and from where on there is no room.
        self._log_bytes, self._hold_bytes = 0, float("inf")
        self._room_bytes: float = options.buffer_bytes / 2
        self._room: Gate | None = None
        self._refusal: Callable[[], JournalError] | None = None
        self.failure: BaseException | None = None
        self.closing = self._ended = False
        self.stalls = 0
        # The flusher sleeps on `_alarm`, a lock that is free when there is something to do.
        # While it sleeps deep, even a record that nobody waits for must wake it.
        self._alarm = threading.Lock()
        self._alarm.acquire()
        self._deep = True
        self._quiet: Batch | None = None  # the batch in which the log was marked idle
        # Who holds the end of the log for `_committing`, if not the flusher.
        self._holder: int | None = None
        self._orphan = False  # whether that one was interrupted
        self.crowd = Crowd()

    # --- what owners call ---

    @property
    def last_lsn(self) -> int:
        return self._filling.last_lsn

    @property
    def used_bytes(self) -> int:
        """Appended and not yet committed."""
        return self._filling.bytes + self._committing_bytes

    @property
    def has_room(self) -> bool:
        """Whether less is used than half of the bound, and than the log may still grow."""
        return self._filling.bytes + self._committing_bytes < self._room_bytes

    @property
    def is_ready(self) -> bool:
        """Whether there is room, and records are taken."""
        used, bound = self._filling.bytes + self._committing_bytes, self._room_bytes
        return used < bound and self._refusal is None

    def check(self) -> None:
        """Raise what an append would raise for the journal's state. Takes no lock."""
        if self._refusal is not None:
            raise self._refusal()

    def append(self, record: Record, urgent: bool = False) -> int:
        with self._lock:
            # What RecordPacker.pack and _make_ready do, without the calls: they would take as
            # long as all else together.
            try:
                packed = record[1] if type(record) is PackedRecord else self._pack(record)
            except CANT_PACK as error:
                raise refusal(record, error) from error
            size = len(packed)
            if size >= self._surely_fits:
                self._packer.check(record, packed)
            filling = self._filling
            if (used := filling.bytes + size) < self._unheeded_bytes:
                filling.bytes = used
            else:  # somebody is to be woken, or refused
                self._make_ready(size, urgent)
            records = filling.records
            records.append(packed)
            return filling.first_lsn + len(records) - 1

    def append_batch(self, records: list[Record], urgent: bool = False) -> int:
        self.check()
        if not records:
            raise ValueError("a batch needs at least one record")
        with self._lock:
            packed = [self._packer.pack(record) for record in records]
            size = sum(map(len, packed))
            if size > self._options.frame_bytes_max:
                raise RecordError(
                    f"a batch of {size} bytes is over frame_bytes_max="
                    f"{self._options.frame_bytes_max}; split it, or raise the option"
                )
            filling = self._make_ready(size, urgent)
            begin = len(filling.records)
            if filling.groups and filling.groups[-1][1] > begin:
                filling.groups.pop()  # an interrupt came before its records
            filling.groups.append((begin, begin + len(packed)))
            filling.records += packed
            return filling.last_lsn

    def _make_ready(self, size: int, urgent: bool) -> Batch:
        """All that must be so before a record of `size` bytes goes in."""
        self.check()
        filling = self._filling
        if not filling.records:
            filling.bytes = 0  # an append that was interrupted may have left some
            filling.since = time.monotonic()
            if self._deep:
                self._wake()
        used = filling.bytes + self._committing_bytes + size
        if used > self.bound and not (urgent and used <= self.bound * 5 // 4):
            self.stalls += 1
            raise BufferFullError(
                f"{used} bytes would wait to be written, over buffer_bytes={self.bound}; "
                "nothing was appended: wait_room() first"
            )
        if filling.bytes < self._flush_bytes <= filling.bytes + size:
            self._wake()
        filling.bytes += size
        if filling.records:
            room = self.bound - self._committing_bytes + 1
            is_woken = filling.bytes >= self._flush_bytes
            self._unheeded_bytes = room if is_woken else min(room, self._flush_bytes)
        return filling

    def gate(self, lsn: int) -> Gate | None:
        """The gate that opens when `lsn` is durable; None if it is."""
        if self._refusal is not None and not self.closing and lsn > self.durable_lsn:
            raise self._refusal()
        with self._lock:
            filling, committing = self._filling, self._committing
            if lsn <= self.durable_lsn:
                return None
            if lsn >= filling.first_lsn + len(filling.records):
                raise ValueError(f"LSN {lsn} was never appended, the last one is {self.last_lsn}")
            if self.failure or self._ended:
                raise self._stopped()
            if committing and lsn < filling.first_lsn:
                return self._gate_of(committing)
            filling.waiters += 1
            if filling.waiters == 1 or self.crowd.is_last(filling.waiters):
                self._wake()
            return filling.gate or self._gate_of(filling)

    def sync_gate(self) -> Gate:
        """The gate that opens once all appended so far is on stable storage, in "os" mode too."""
        self.check()
        with self._lock:
            self.check()
            self._filling.sync = True
            self._wake()
            return self._gate_of(self._filling)

    def room_gate(self) -> Gate | None:
        """The gate that opens when there is room; None if there is."""
        self.check()
        with self._lock:
            self.check()
            if not self._filling.records:
                self._filling.bytes = 0  # what was interrupted left some
            if self.has_room:
                return None
            if self._filling.records:
                self._filling.waiters += 1
                self._wake()
            if self._room is None or self._room.opened:
                self._room = Gate()
            return self._room

    def close(self) -> None:
        """Take no more records; the flusher commits what there is and ends."""
        with self._lock:
            self.close_soon()

    def close_soon(self) -> None:
        """`close`, taking no lock: a collector may call it in any thread, the flusher's too."""
        self.closing = True
        if self._refusal is None:
            self._refusal, self._unheeded_bytes = _closed, 0
        self._wake()

    @property
    def abandoned(self) -> bool:
        return self._refusal is _forked

    def abandon(self) -> None:
        """In a forked child: refuse everything, without touching a lock that others have."""
        self._lock = threading.Lock()
        self.closing = False
        self.failure = None
        self._refusal, self._unheeded_bytes = _forked, 0

    # --- what a holder of the log's end calls ---

    def take(self) -> Batch | None:
        """For the flusher: block until there is a batch to commit. One of nothing says that
        the log went idle, None that it is closed and all is committed."""
        with self._lock:
            if self._holder is None:
                self._leave()
        while True:
            with self._lock:
                # First of all: what wakes us from here on, we have not seen yet.
                self._alarm.acquire(blocking=False)
                filling = self._filling
                timeout_s = self._idle_s
                if self.failure is not None:
                    return None
                if self._orphan:
                    self._orphan, self._holder = False, None
                    return self._committing
                if self._committing is None:
                    if filling.has_work:
                        timeout_s = self._due_s(filling)
                        if timeout_s <= 0:
                            return self._enter(filling)
                    elif self.closing:
                        return None
                    elif filling is self._quiet:
                        timeout_s = -1
                self._deep = not filling.has_work and (timeout_s < 0 or self._hasty)
            if not self.sleep(timeout_s):
                with self._lock:
                    still = self._committing is None and self._filling is filling
                    if still and not filling.has_work:
                        self._quiet = filling
                        self._committing = Batch(filling.first_lsn)
                        return self._committing

    def take_here(self, lsn: int) -> Batch | None:
        """For a waiter: the batch that holds `lsn`, if nobody is at the log's end and nobody
        else waits. Where several wait, gathering them is worth more than the time saved."""
        if self.crowd.size > 1 or self._committing is not None or self._refusal is not None:
            return None  # a look without the lock, and again with it
        with self._lock:
            filling = self._filling
            alone = self._committing is None and self.crowd.size <= 1 and not filling.waiters
            inside = filling.first_lsn <= lsn <= filling.last_lsn
            if not (alone and inside) or filling.sync or self._refusal is not None:
                return None
            self._holder = threading.get_ident()
            filling.waiters = 1
            return self._enter(filling)

    def leave_here(self) -> None:
        """The batch of `take_here` is committed."""
        with self._lock:
            self._leave()
            if self._filling.has_work or self.closing:
                self._wake()

    def hand_over(self) -> None:
        """Let the flusher finish what `take_here` gave, as far as it did."""
        with self._lock:
            if self._holder == threading.get_ident():
                if self._committing is self._filling:  # interrupted before it was taken
                    self._committing, self._committing_bytes = None, 0
                self._orphan = self._committing is not None
                self._holder = self._holder if self._orphan else None
            self._wake()

    def _enter(self, filling: Batch) -> Batch:
        self.crowd.begins()
        # In this order: what fills and is being committed at once has not been taken.
        self._unheeded_bytes = 0
        self._committing, self._committing_bytes = filling, filling.bytes
        self._filling = Batch(filling.last_lsn + 1)
        return filling

    def _leave(self) -> None:
        if self._committing is not None and self._committing.records:
            self.crowd.let_go(self._committing.waiters, self._filling.waiters)
        self._committing = self._holder = None

    def _due_s(self, filling: Batch) -> float:
        """Seconds until `filling` must be committed."""
        if filling.sync or self.closing or filling.bytes >= self._flush_bytes:
            return 0
        if filling.waiters:
            return self.crowd.due_s(filling.waiters)
        return filling.since + self._options.flush_interval_s - time.monotonic()

    def sleep(self, timeout_s: float = -1) -> bool:
        """Sleep until woken, or False if `timeout_s` seconds passed first."""
        return self._alarm.acquire(timeout=timeout_s)

    def hold_from(self, log_bytes: float) -> None:
        """The log may grow to so many bytes: let those pass who waited for that room."""
        with self._lock:
            room = self._limit_room(self._log_bytes, log_bytes)
        open_gates(room)

    def committed(self, batch: Batch, sync_s: float, log_bytes: int) -> None:
        """`batch` is durable, the log has `log_bytes`: let those pass who wait for it, or for room.
        May be repeated."""
        with self._lock:
            self.crowd.synced(sync_s)
            self.durable_lsn, self._committing_bytes = batch.last_lsn, 0
            room = self._limit_room(log_bytes, self._hold_bytes)
        open_gates(batch.gate, room)

    def fail(self, error: BaseException) -> None:
        """Fail-stop: everybody is told, nothing more is taken."""
        with self._lock:
            self.failure = error
            self._refusal, self._unheeded_bytes = self._stopped, 0
            self._wake()
        self._open_all()

    def closed(self) -> None:
        """The flusher has ended."""
        with self._lock:
            self._ended = True
        self._open_all()

    # --- inside ---

    def _limit_room(self, log_bytes: int, hold_bytes: float) -> Gate | None:
        """The gate to open, if there is room. Under the lock, with the latest of both numbers: who
        waits for room commits nothing that would set it right."""
        self._log_bytes, self._hold_bytes = log_bytes, hold_bytes
        if hold_bytes <= log_bytes and self._room_bytes > 0:
            self.stalls += 1
        self._room_bytes = min(self.bound / 2, hold_bytes - log_bytes)
        return self._room if self.has_room else None

    def _open_all(self) -> None:
        with self._lock:
            gates = [batch.gate for batch in (self._committing, self._filling) if batch]
        open_gates(*gates, self._room)

    def _gate_of(self, batch: Batch) -> Gate:
        if batch.gate is None:
            batch.gate = Gate(goes_at_once=self.crowd.goes_at_once)
        return batch.gate

    def _wake(self) -> None:
        # Free already: the flusher is awake. Only the flusher takes the alarm.
        try:  # noqa: SIM105 - on every waiter's way, where `suppress` costs as much as a lock
            self._alarm.release()
        except RuntimeError:
            pass

    def _stopped(self) -> JournalError:
        if self.failure is None:
            return _closed()
        error = FailedError(
            f"the journal stopped: {self.failure}; what was not acknowledged may or may not "
            "survive: close it, mend the disk, open it again"
        )
        error.__cause__ = self.failure.__cause__ or self.failure
        return error

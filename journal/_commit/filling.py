"""Filling: records packed and numbered, that nobody has begun to commit.

A record's LSN is its place here (the batch's first LSN + index), so adding it to the list is
the one step that numbers it: whatever interrupts `append` leaves no gap. What must be true once
the record is in (the flusher is awake, the bytes are counted) is made true before it goes in.
"""

from __future__ import annotations

import time

from journal._commit.batch import Batch
from journal._commit.room import Room
from journal._commit.standing import Standing
from journal._format.record import CANT_PACK, PackedRecord, Record, RecordPacker, refuse
from journal._mutex import Alarm, HandlerSafeLock
from journal.errors import InterruptedCallError, RecordError
from journal.options import Options


def record_packer(options: Options) -> RecordPacker:
    """Return a packer whose records are within the options' bound and fit in a frame."""
    return RecordPacker(
        record_bytes_max=options.record_bytes_max, frame_bytes_max=options.frame_bytes_max
    )


class Filling:
    """Numbers records, and bounds them."""

    def __init__(self, last_lsn: int, options: Options) -> None:
        self._packer = record_packer(options)
        self._pack, self._surely_fits = self._packer.pack_unchecked, self._packer.surely_fits
        self._options = options
        self._flush_bytes = options.flush_bytes
        # Guards every field below; never held across a write or a sync. Lock order: the
        # owner's lock, then this one.
        self._lock = HandlerSafeLock()
        self._is_held_here = self._lock._is_owned
        self._filling = Batch(last_lsn + 1)
        self._committing_bytes = 0  # as long as they are not durable
        # A record that leaves fewer bytes in `_filling` needs nothing to be made ready for it.
        self._unheeded_bytes = 0
        self.room = Room(options.buffer_bytes)
        self.standing = Standing()
        # What the flusher sleeps on. While it sleeps deep, even a record that nobody waits for
        # must wake it.
        self.alarm = Alarm()
        self._deep = True
        self._is_admitted = False  # an owner is applying what it appends next

    @property
    def last_lsn(self) -> int:
        return self._filling.last_lsn

    @property
    def used_bytes(self) -> int:
        """Return the bytes appended and not yet committed."""
        return self._filling.bytes + self._committing_bytes

    @property
    def has_room(self) -> bool:
        """Return whether less is used than half of the bound, and than the log may grow by."""
        return self._filling.bytes + self._committing_bytes < self.room.limit_bytes

    @property
    def is_ready(self) -> bool:
        """Return whether there is room and records are taken."""
        used = self._filling.bytes + self._committing_bytes
        return used < self.room.limit_bytes and self.standing.refusal is None

    def append(self, record: Record, urgent: bool = False) -> int:
        if self._is_held_here():  # `checked`, without its frame: 25 ns instead of 65
            raise InterruptedCallError
        with self._lock:
            # What RecordPacker.pack and _make_ready do, without the calls: they would take as
            # long as all else together.
            try:
                packed = record._packed if type(record) is PackedRecord else self._pack(record)
            except CANT_PACK as error:
                refuse(record, error)
            size = len(packed)
            if size >= self._surely_fits:
                self._packer.check(record, packed)
            filling = self._filling
            if (used := filling.bytes + size) < self._unheeded_bytes:
                filling.bytes = used
            else:  # somebody is to be woken, or refused
                self._check_room(size, urgent)
                self._make_ready(size)
            records = filling.records
            lsn = filling.first_lsn + len(records)
            records.append(packed)
            return lsn

    def append_batch(self, records: list[Record], urgent: bool = False) -> int:
        self.standing.check()
        if not records:
            raise ValueError("a batch needs at least one record")
        with self._lock.checked():
            packed = [self._packer.pack(record) for record in records]
            size = sum(map(len, packed))
            self._check_batch(size)
            self._check_room(size, urgent)
            return self._add_group(packed, size)

    def admit(self, size: int, urgent: bool = False) -> int:
        """Return the LSN that the next record gets. Raise what an append of `size` bytes would.

        For an owner who alone appends, and does so next: then there is room in any case.
        """
        if self._is_held_here():
            raise InterruptedCallError
        self._is_admitted = True  # first: a close that comes from here on waits for the append
        filling = self._filling
        if filling.bytes + size >= self._unheeded_bytes:
            try:
                with self._lock.checked():
                    self._check_room(size, urgent)
                    filling = self._filling
            except BaseException:
                self.withdraw()
                raise
        return filling.first_lsn + len(filling.records)

    def admit_batch(self, size: int, urgent: bool = False) -> int:
        """Return the LSN that the first record of the next batch gets, as `admit` does."""
        self._check_batch(size)
        return self.admit(size, urgent)

    def append_admitted(self, packed: bytes) -> None:
        """Append the packed record that was admitted. Raises FailedError only."""
        with self._lock:
            filling = self._filling
            if (used := filling.bytes + len(packed)) < self._unheeded_bytes:
                filling.bytes = used
            else:
                self._check_going_on()
                self._make_ready(len(packed))
            filling.records.append(packed)
            self._is_admitted = False

    def append_batch_admitted(self, packed: list[bytes]) -> None:
        """Append the packed records that were admitted, as one batch."""
        with self._lock:
            self._check_going_on()
            self._add_group(packed, sum(map(len, packed)))
            self._is_admitted = False

    def withdraw(self) -> None:
        """Note that what was admitted is not under way any more."""
        self._is_admitted = False
        self.alarm.wake()

    def _check_going_on(self) -> None:
        """Raise FailedError if nothing more is committed. A close waits for what is admitted."""
        if self.standing.closing:
            self.alarm.wake()
        if self.standing.failure is not None or self.standing.ended:
            raise self.standing.error()

    def _add_group(self, packed: list[bytes], size: int) -> int:
        filling = self._make_ready(size)
        begin = len(filling.records)
        if filling.groups and filling.groups[-1][1] > begin:
            filling.groups.pop()  # an interrupt came before its records
        filling.groups.append((begin, begin + len(packed)))
        filling.records += packed
        return filling.last_lsn

    def _check_batch(self, size: int) -> None:
        if size > self._options.frame_bytes_max:
            raise RecordError(
                f"a batch of {size} bytes is over frame_bytes_max="
                f"{self._options.frame_bytes_max}; split it, or raise the option"
            )

    def _check_room(self, size: int, urgent: bool) -> None:
        self.standing.check()
        filling = self._filling
        used = (filling.bytes if filling.records else 0) + self._committing_bytes
        self.room.check(used + size, urgent)

    def _make_ready(self, size: int) -> Batch:
        """Prepare for a record of `size` bytes, for which there is room."""
        filling = self._filling
        if not filling.records:
            filling.bytes = 0  # an append that was interrupted may have left some
            filling.since = time.monotonic()
            if self._deep:
                self.alarm.wake()
        if filling.bytes < self._flush_bytes <= filling.bytes + size:
            self.alarm.wake()
        filling.bytes += size
        if filling.records:
            room = self.room.bound_bytes - self._committing_bytes + 1
            is_woken = filling.bytes >= self._flush_bytes
            self._unheeded_bytes = room if is_woken else min(room, self._flush_bytes)
        return filling

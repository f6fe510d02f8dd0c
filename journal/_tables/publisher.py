"""Publisher: makes every change of tables, large or small.

A record that is too large is made to fit first: its largest values are written as pieces, one
record each, before the lock is taken. So the lock is held no longer for 256 MiB than for a byte.
It also removes expired rows, a few at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any

from journal import _time as time
from journal._disk.disk import clock_ns
from journal._format.record import PackedRecord, pack_flat
from journal._mutex import is_raised_by_call
from journal._state.durable_state import DurableState
from journal._state.state_part import Companion, StatePart, whole_of
from journal._tables.chunked_map import Stored
from journal._tables.expiry import Moment
from journal._tables.machine import (
    KEY_BYTES_MAX,
    NAME_BYTES_MAX,
    ROWS,
    Place,
    TablesMachine,
    Write,
    check_keys,
    record_of,
)
from journal._tables.pieces import DROP, ID_BYTES, PIECE, PIECE_BYTES_MAX, bounds
from journal.errors import JournalError, RecordError

Verify = Callable[[], None]  # raises if nothing may be written
TablesState = DurableState[TablesMachine] | StatePart[TablesMachine]
Check = Callable[["Stored | None"], None]  # raises if a row must not replace this one

_WRITE_BYTES = 16  # of a write in a record, besides its three parts
_NAMED_WRITE_BYTES = _WRITE_BYTES + NAME_BYTES_MAX
_REFERENCE_BYTES = 24
_LIMIT_BYTES_MIN = 128  # a piece's record has up to 40 bytes besides half of the limit
_ROWS_AFTER_WRITE = 4
# Removing a row takes 20 us under the lock, measured on 140,000 removals of 200,000 rows.
_ROWS_A_SLICE = 8
_PAUSE_S = 0.0002  # as between the items of a checkpoint


class Publisher:
    """Writes records to the journal of tables."""

    def __init__(self, state: TablesState) -> None:
        self._state = state
        self._whole = whole_of(state)
        self._machine = state.machine
        self._pack = state.pack if isinstance(state, StatePart) else pack_flat
        self._disk = self._whole.journal._core.disk
        self._bytes_max = state._bytes_max
        self._row_bytes_max = min(self._bytes_max, KEY_BYTES_MAX)  # of a row that needs no check
        # Ids of uploads that could not be dropped yet, because there was no room for the record.
        self._undropped: deque[list[bytes]] = deque()

    def now_ms(self) -> int:
        """Return the disk's time in Unix milliseconds."""
        return clock_ns(self._disk) // 1_000_000

    def fits(self, writes: list[Write]) -> bool:
        """Return whether the writes certainly fit in one record.

        Raises RecordError for a key that no checkpoint could hold.
        """
        # This bound, with the longest of names, takes a third of the time of the one below.
        parts_bytes = sum(map(len, filter(None, chain.from_iterable(writes))))
        if parts_bytes + len(writes) * _NAMED_WRITE_BYTES <= self._row_bytes_max:
            return True
        size = sum(map(_size, writes))
        if size > KEY_BYTES_MAX:
            check_keys(writes)
        return size <= self._bytes_max

    def write_row(self, place: Place, value: bytes | None, check: Check | None) -> int | None:
        """Write one row, unless `check` raises for its visible value, under the lock.

        This does the same as `publish`, in less time.
        """
        name, key = place
        if value is not None and len(value) > self._row_bytes_max:
            return self.publish([(name, key, value)], self._verifying(place, check), [])
        record = self._pack([ROWS, [name, key, value]])
        if len(record._packed) > self._row_bytes_max:
            return self.publish([(name, key, value)], self._verifying(place, check), [])
        if check is None:
            lsn = self._state.update(lambda _: record)
        else:
            lsn = self._state.update(partial(_verified, self._verifying(place, check), record))
        self.tidy()
        return lsn

    def _verifying(self, place: Place, check: Check | None) -> Verify:
        def verify() -> None:
            if check is not None:
                now = self._machine.get(*place)
                check(now if now is None else Moment(self.now_ms).visible(now))

        return verify

    def record_of(self, writes: list[Write]) -> PackedRecord | None:
        """Return the record of these writes, or None if there are none."""
        return record_of(writes, self._pack) if writes else None

    def publish(
        self, writes: list[Write], verify: Verify, companions: list[Companion]
    ) -> int | None:
        """Call `verify` under the lock, and write. Return the last LSN, or None without writes.

        The records of `companions` are in the same batch. If `verify` or a companion raises, its
        exception propagates, and nothing is written.
        """
        if self.fits(writes):
            return self._write_record(self.record_of(writes), verify, companions)
        large = LargeRecord(writes, self._bytes_max, self._disk.new_id, self._pack)
        try:
            for piece in large.pieces():
                self._write_piece(piece)
            return self._write_record(large.record, verify, companions)
        except BaseException:
            self._give_up(large.ids)
            raise

    async def publish_in_loop(
        self, writes: list[Write], verify: Verify, companions: list[Companion]
    ) -> int | None:
        """Publish as `publish` does, but without blocking the event loop while there is no room."""
        if self.fits(writes):
            return self._write_record(self.record_of(writes), verify, companions)
        large = LargeRecord(writes, self._bytes_max, self._disk.new_id, self._pack)
        try:
            for piece in large.pieces():
                await self._whole.room()
                self._write_piece(piece)
            return self._write_record(large.record, verify, companions)
        except BaseException:  # a cancelled task's, too
            self._give_up(large.ids)
            raise

    def tidy(self) -> None:
        """Free replaced large values, remove a few expired rows, and drop pieces that could not be
        dropped before.

        Called after each write. The write has taken effect, so no JournalError propagates.
        """
        machine = self._machine
        if not (machine.replaced or machine.expiries.count or self._undropped):
            return  # nearly always
        machine.replaced.clear()
        with suppress(JournalError):
            self.remove_expired(_ROWS_AFTER_WRITE)
            for ids in list(self._undropped):
                self.drop(ids)
                self._forget(ids)

    def remove_expired(self, rows_max: int = _ROWS_A_SLICE) -> bool:
        """Remove a few expired rows. Return whether there were any."""
        if not self._machine.expiries.count:
            return False
        now_ms = self.now_ms()
        return self._machine.expiries.has_due(now_ms) and self._remove(now_ms, rows_max)

    def remove_all_expired(self) -> None:
        """Remove the rows that have expired by now, some at a time, with pauses."""
        if self._machine.expiries.count:
            now_ms = self.now_ms()
            for _ in range(self._machine.expiries.count):  # at most: each removes one or more
                if not self._machine.expiries.has_due(now_ms):
                    break
                self._remove(now_ms, _ROWS_A_SLICE)
                time.sleep(_PAUSE_S)

    def _remove(self, now_ms: int, rows_max: int) -> bool:
        bytes_max = self._bytes_max - _WRITE_BYTES

        def decide(machine: TablesMachine) -> PackedRecord | None:
            places = machine.expiries.due(now_ms, rows_max, bytes_max)
            return self.record_of([(name, key, None) for name, key in places])

        return self._update(decide, urgent=True) is not None

    def _write_record(
        self, record: PackedRecord | None, verify: Verify, companions: list[Companion]
    ) -> int | None:
        return self.change(partial(_verified, verify, record), companions or None)

    def change(
        self,
        decide: Callable[[TablesMachine], PackedRecord | None],
        companions: list[Companion] | None = None,
    ) -> int | None:
        """Write the record that `decide` returns, and those of `companions`, in one batch.

        `decide` may add to `companions`, unless it is None.
        """
        if companions is not None and isinstance(self._state, StatePart):
            lsn = self._state.update_with(decide, companions)
        else:
            lsn = self._state.update(decide)
        if lsn is not None:
            self.tidy()
        return lsn

    def _update(
        self, decide: Callable[[TablesMachine], PackedRecord | None], *, urgent: bool
    ) -> int | None:
        lsn = self._state.update(decide, urgent=urgent)
        self._machine.replaced.clear()
        return lsn

    def _write_piece(self, piece: PackedRecord) -> None:
        self._state.update(lambda _: piece)

    def _give_up(self, ids: list[bytes]) -> None:
        """Drop unpublished uploads, now or after a later write."""
        self._undropped.append(ids)  # first: another interrupt may strike here
        with suppress(JournalError):
            self.drop(ids)
            self._forget(ids)

    def _forget(self, ids: list[bytes]) -> None:
        try:
            self._undropped.remove(ids)
        except ValueError as error:  # another thread has removed them
            if not is_raised_by_call(error):
                raise

    def drop(self, ids: list[bytes]) -> None:
        """Journal the removal of those of these uploads that have unpublished pieces."""
        ids_a_record = max(1, (self._bytes_max - _WRITE_BYTES) // (ID_BYTES + 2))
        for at in range(0, len(ids), ids_a_record):
            self._update(partial(self._removal, ids[at : at + ids_a_record]), urgent=True)

    def _removal(self, ids: list[bytes], machine: TablesMachine) -> PackedRecord | None:
        present = [upload_id for upload_id in ids if upload_id in machine.uploads]
        return self._pack([DROP, present]) if present else None


def _verified(verify: Verify, record: PackedRecord | None, _: TablesMachine) -> PackedRecord | None:
    """Return `record`, unless `verify` raises."""
    verify()
    return record


class LargeRecord:
    """A record that fits, because its largest values are written as pieces before it."""

    record: PackedRecord
    """The record that publishes the pieces."""

    ids: list[bytes]
    """The ids of the values that are in pieces."""

    def __init__(
        self,
        writes: list[Write],
        bytes_max: int,
        new_id: Callable[[], bytes],
        pack: Callable[[list[Any]], PackedRecord],
    ) -> None:
        self.ids = []
        self._pack = pack
        # A piece is cut when it is written: the value may be large, and is in memory twice already.
        self._values: list[tuple[bytes, list[slice]]] = []
        piece_bytes = min(PIECE_BYTES_MAX, bytes_max // 2)
        size = sum(map(_size, writes))
        rest = list(writes)
        by_size = sorted(range(len(writes)), key=lambda at: -_size(writes[at]))
        for at in by_size if bytes_max >= _LIMIT_BYTES_MIN else ():
            name, key, value = writes[at]
            if size <= bytes_max:
                break
            if type(value) is not bytes or len(value) <= _REFERENCE_BYTES:
                continue
            parts = bounds(value, piece_bytes)
            self._values.append((value, parts))
            self.ids.append(upload_id := new_id())
            rest[at] = name, key, [upload_id, len(parts)]
            size -= len(value) - _REFERENCE_BYTES
        self.record = record_of(rest, pack)
        if (packed_bytes := len(self.record._packed)) > bytes_max:
            raise RecordError(
                f"a transaction of {len(writes)} rows takes {packed_bytes} bytes without its large "
                f"values, over the {bytes_max} of a record; split it, or raise record_bytes_max "
                "and frame_bytes_max"
            )

    def pieces(self) -> Iterator[PackedRecord]:
        for upload_id, (value, parts) in zip(self.ids, self._values, strict=True):
            for number, part in enumerate(parts):
                yield self._pack([PIECE, upload_id, number, value[part]])


def _size(write: Write) -> int:
    """Return an upper bound of the bytes that a write takes in a record."""
    name, key, value = write
    name_bytes = len(name) if name.isascii() else 4 * len(name)
    return name_bytes + len(key) + (len(value) if value else 0) + _WRITE_BYTES


def remove_expired_before_freeze(state: TablesState) -> None:
    """Remove the expired rows before a checkpoint, as the `prepare` of `_before_freeze`."""
    with suppress(JournalError):  # a checkpoint may hold them, too
        Publisher(state).remove_all_expired()

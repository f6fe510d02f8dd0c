"""TableChanges: the durable changes of tables, read back from their own log.

A record that is durable and in the log is a change to deliver. So writers know nothing of a
consumer, and a slow one costs one batch of records and one open segment, however far it is behind.
If compaction has removed records that a consumer has not read, the consumer gets CompactedError.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

from journal import _time as time
from journal._disk.disk import Directory
from journal._format.record import Record
from journal._handle import OpenHandle
from journal._mutex import is_raised_by_call
from journal._offline.cursor import LogCursor
from journal._public import public
from journal._state.durable_state import DurableState
from journal._state.state_part import StatePart, whole_of
from journal._tables.expiry import expiry_of
from journal._tables.keys import Key, decode_key
from journal._tables.logged_pieces import LoggedPieces
from journal._tables.machine import ROWS, Write
from journal._tables.publisher import TablesState
from journal._tables.values import unpack_value
from journal.errors import ClosedError, JournalError

_POLL_S = 0.02
_ENDED: Any = object()
_A_TURN = 128  # changes that are read before the event loop may run other tasks


@public
@dataclass(frozen=True, slots=True)
class TableChange:
    """A durable change of one row."""

    lsn: int
    """The LSN of its transaction."""

    table: str
    """The name of the table."""

    key: Key
    """The key of the row."""

    value: Any
    """The new value of the row; None if the row was removed."""

    expires_at: float | None
    """The time at which the row expires, in Unix seconds; None: never. The removal of an expired
    row is a change of its own."""

    removed: bool
    """True if the row was removed. A transaction may remove a row that was not there."""

    last: bool
    """True for the last change of its transaction, after which a consumer may store its LSN."""


class _Place:
    """The place of a consumer in the log. An interrupt ends its steps, and new ones begin here."""

    __slots__ = ("after", "change", "count", "is_over", "state")

    def __init__(self, state: TablesState, after: int) -> None:
        self.state = state
        self.is_over = False
        # All changes up to an LSN were read, and `count` of the next transaction.
        self.after, self.count = after, 0
        self.change: TableChange | None = None  # the last one of these, until it is returned

    def is_ready(self) -> bool:
        """Return whether there is a change to return, or the end."""
        return self.change is not None or self.is_over

    def put(self, change: TableChange) -> None:
        """Store a change that was read."""
        after, count = (change.lsn, 0) if change.last else (self.after, self.count + 1)
        self.after, self.count, self.change = after, count, change


@public
class TableChanges(OpenHandle):
    """An iterator of durable changes, ordered by LSN, as `Tables.changes` returns it. It is also an
    async iterator, and a context manager.

    Several tasks of one event loop may read it; each change goes to one of them. Otherwise one
    thread at a time may read it, which then reads the log and decodes the values. It ends when
    `close` or `aclose` is called, in any thread, or the last reference to it is dropped.
    """

    def __init__(self, state: TablesState, after: int | None) -> None:
        whole = whole_of(state)
        whole.check()
        last_lsn = whole.journal.last_lsn
        if after is None:
            after = last_lsn
        if type(after) is not int or not 0 <= after <= last_lsn:
            raise ValueError(
                f"after must be an LSN up to the last one, which is {last_lsn}, not {after!r:.80}"
            )
        self._turns = 0
        self._place = _Place(state, after)
        self._steps = _steps(self._place)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TableChange:
        place = self._place
        while self._must_wait():
            time.sleep(_POLL_S)
        # No call follows, so an interrupt can't strike after this and lose the change.
        change, place.change = place.change, None
        if change is None:
            raise StopIteration
        return change

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TableChange:
        import asyncio

        place = self._place
        self._turns += 1
        if not self._turns % _A_TURN:  # as long as there are changes, the loop below never waits
            await asyncio.sleep(0)
        while self._must_wait():
            await asyncio.sleep(_POLL_S)
        change, place.change = place.change, None
        if change is None:
            raise StopAsyncIteration
        return change

    def close(self) -> None:
        """End the iterator. Waiting threads and tasks get its end. A second call does nothing."""
        self._place.is_over = True
        try:
            self._steps.close()
        except ValueError as error:  # a call is reading, and ends by `is_over`
            if not is_raised_by_call(error):
                raise

    async def aclose(self) -> None:
        """End the iterator, as `close` does."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _must_wait(self) -> bool:
        """Read on. Return False if there is a change, or the end, and True if there is neither."""
        place = self._place
        if place.is_ready():
            return False
        whole_of(place.state).journal.check_process()
        try:
            if next(self._steps, _ENDED) is _ENDED and not place.is_over:
                self._steps = _steps(place)  # an exception has ended the last ones
                next(self._steps, None)
        except ValueError as error:
            if not is_raised_by_call(error):
                raise
            raise JournalError(
                "another call is reading these changes; call changes() once for each reader"
            ) from error
        if place.is_over:
            self._steps.close()
        return not place.is_ready()


def _steps(place: _Place) -> Generator[None, None, None]:
    """Yield after each change that was put into `place`, and whenever there is none yet."""
    state = place.state
    whole = whole_of(state)
    journal = whole.journal
    part = state if isinstance(state, StatePart) else None
    directory = journal._core.disk.open_directory(journal.path, write=False)
    try:
        uploads = LoggedPieces(directory, part)
        for entry in _durable_records(whole, directory, place.after):
            if entry is None:
                yield
                continue
            lsn, record = entry
            if part is not None and (record := part.own_record(record)) is None:
                continue
            if record[0] != ROWS:
                uploads.note(lsn, record)
                continue
            for change in _changes_of(lsn, record, uploads, place.count):
                place.put(change)
                del change  # the consumer may free its value before it reads on
                yield
        place.is_over = True
    finally:
        directory.close(unlock=False)


def _durable_records(
    state: DurableState[Any], directory: Directory, after: int
) -> Iterator[tuple[int, Record] | None]:
    """Yield the records after LSN `after` once they are durable, and None while there is none.

    End when the state is closed and all were yielded. Raises FailedError if it has stopped.
    """
    journal = state.journal
    cursor, seen_lsn = LogCursor(directory, after, proven=False), after
    while True:
        was_closed = journal.closed  # before the read, which then sees all that was committed
        for batch in cursor.advance():
            for lsn, record in batch.numbered():
                # A frame can be read before it is durable. After a close, the log may have the
                # records of another writer.
                while lsn > journal.durable_lsn:
                    if _has_ended(state, was_closed):
                        return
                    was_closed = journal.closed
                    yield None
                yield lsn, record
            seen_lsn = batch.last_lsn
            record = None  # before the next batch: each may be one large frame
            del batch
        if not cursor.at_end:
            continue
        if _has_ended(state, was_closed):
            return
        yield None
        while journal.durable_lsn <= seen_lsn and not journal.closed:
            _has_ended(state, False)
            yield None


def _has_ended(state: DurableState[Any], was_closed: bool) -> bool:
    """Return whether no record becomes durable any more. `was_closed`: the journal was closed
    before its durable LSN was read. Raises FailedError."""
    try:
        state.check()
    except ClosedError:  # it may still be committing
        return was_closed
    return False


def _changes_of(
    lsn: int, record: Record, uploads: LoggedPieces, skip: int
) -> Iterator[TableChange]:
    """Yield the changes of a transaction, without the first `skip` of them."""
    last = len(record) - 1
    for number, write in enumerate(islice(record, 1 + skip, None), 1 + skip):
        yield _change(lsn, write, uploads, number == last)


def _change(lsn: int, write: Write, uploads: LoggedPieces, last: bool) -> TableChange:
    name, key, written = write
    if written is None:
        return TableChange(lsn, name, decode_key(key), None, None, True, last)
    stored = uploads.take(written, lsn) if isinstance(written, list) else written
    expires_at_ms = expiry_of(stored)
    expires_at = None if expires_at_ms is None else expires_at_ms / 1000
    return TableChange(lsn, name, decode_key(key), unpack_value(stored), expires_at, False, last)

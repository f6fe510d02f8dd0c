"""Tables: named, ordered maps in one journal, with transactions over all of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from journal._disk.disk import Disk, StrPath
from journal._engine.async_handle import AsyncHandle
from journal._engine.journal import Journal
from journal._format.checkpoint import Checkpoint
from journal._format.record import PackedRecord
from journal._format.wrong_place import short_repr
from journal._public import public
from journal._state.durable_state import DurableState
from journal._state.state_machine import StateMachine
from journal._state.state_part import Companion, HasParts, StatePart, whole_of
from journal._tables import bodies
from journal._tables.chunked_map import Stored
from journal._tables.expiry import expiry_of, with_expiry
from journal._tables.keys import Key, encode_key
from journal._tables.machine import Place, TablesMachine, check_name
from journal._tables.publisher import (
    Check,
    Publisher,
    TablesState,
    remove_expired_before_freeze,
)
from journal._tables.row_writer import RowWriter
from journal._tables.table_changes import TableChanges
from journal._tables.table_view import LiveRows, TableView
from journal._tables.tables_part import TablesPart
from journal._tables.tables_view import TablesView, read_tables
from journal._tables.transaction import ChunksOf, ReadWriteSet, Transaction, result_of
from journal._tables.transaction_context import TransactionContext
from journal._tables.values import pack_value, unpack_value
from journal._waits import check_callable
from journal.errors import ConflictError
from journal.options import Options

if TYPE_CHECKING:
    from journal._mirror.mirror import Mirror
    from journal.metrics import LockStats, Stats

T = TypeVar("T")
P = TypeVar("P", bound=HasParts)
_ANY: Any = object()
# Errors that a function may raise because it has read rows of different moments. Any other type
# propagates: a signal handler may have raised it.
_OF_STALE_READS = (LookupError, ValueError, TypeError, ArithmeticError, AssertionError)
_UPDATE_ATTEMPTS = 16  # of an update whose function or writes run without the lock


@public
class Tables(AsyncHandle):
    """Tables in one journal, recovered, open for writing. A context manager.

    Keys are 64-bit ints, strs, bytes, and flat tuples of these. Values are None, bool, int,
    float, str, bytes, list, dict, and msgpack's extension types, of up to 256 MiB. A write changes
    memory only: `sync` or `durable` wait until it survives a crash. Thread-safe.
    """

    def __init__(self, state: TablesState, transaction_keys_max: int) -> None:
        self._state = state
        self._whole = whole_of(state)
        self._parts = state.parts if isinstance(state, StatePart) else None
        self._machine = state.machine
        self._publisher = Publisher(state)
        self._rows = LiveRows(state, self._publisher.now_ms)
        self._keys_max = transaction_keys_max

    @classmethod
    def open(
        cls,
        path: StrPath,
        *,
        options: Options = Options(),
        transaction_keys_max: int = 1000,
        room_timeout_s: float = 30.0,
        lock_timeout_s: float | None = 0.0,
        mirror: str | Mirror | Literal[False] | None = None,
        takeover: bool = False,
        disk: Disk | None = None,
    ) -> Self:
        """Open the tables at `path`, or begin new ones there.

        `transaction_keys_max` bounds the keys that a transaction reads and writes, and so the time
        for which it holds the lock. Raises what `DurableState.open` raises.
        """
        _check_positive("transaction_keys_max", transaction_keys_max)
        state = DurableState.open(
            path,
            TablesMachine(),
            options=options,
            room_timeout_s=room_timeout_s,
            lock_timeout_s=lock_timeout_s,
            mirror=mirror,
            takeover=takeover,
            disk=disk,
        )
        try:
            return cls._opened(state, transaction_keys_max)
        except BaseException:
            state.close()
            raise

    @staticmethod
    def machine() -> StateMachine:
        """Return a new state machine of tables, to be a part of a Composite.

        Its records are made by the Tables that `in_state` returns. Another one stops the state,
        and is not journaled, if Tables would not have made it.
        """
        return TablesMachine()

    @classmethod
    def in_state(
        cls, state: DurableState[P], part: str, *, transaction_keys_max: int = 1000
    ) -> Self:
        """Return the tables in part `part` of a state of a Composite. `machine` makes such a part.

        `Transaction.also` changes other parts in the same batch. Closing these tables closes the
        whole state. Transactions use tables of one object only, so call this once, right after
        the open: the first call drops the pieces that a crash left. Raises ValueError if there is
        no such part, or if it has no tables, and TypeError for another state than a DurableState.
        """
        _check_positive("transaction_keys_max", transaction_keys_max)
        return cls._opened(TablesPart.of(state, part), transaction_keys_max)

    @classmethod
    def _opened(cls, state: TablesState, transaction_keys_max: int) -> Self:
        """Return the tables of a recovered state, without the pieces that a crash left."""
        unfinished = state.read(TablesMachine.finish_open)
        tables = cls(state, transaction_keys_max)
        tables._publisher.drop(unfinished)
        state._before_freeze(remove_expired_before_freeze)
        return tables

    @staticmethod
    def read(
        path: StrPath, *, at: int | None = None, part: str | None = None, disk: Disk | None = None
    ) -> TablesView:
        """Read the tables at `path` without a lock, as of LSN `at` or with all durable changes.

        If `at` is later than the last record, the view is as of that record; see its `lsn`.
        `part` names the part of a Composite that has the tables. The view may lack the last commit
        of a live writer until its log goes idle. Raises CompactedError for an LSN that is no longer
        retained, FormatVersionError for another application's journal, and what
        `JournalReader.open` raises.
        """
        return read_tables(path, at, part, disk)

    def table(self, name: str) -> Table:
        """Return the table `name`. It exists once it has a row."""
        check_name(name)
        return Table(self, name)

    def names(self) -> list[str]:
        """Return the names of the tables that have rows, sorted."""
        return sorted(name for name, rows in list(self._machine.tables.items()) if rows)

    def transaction(self) -> TransactionContext:
        """Begin a transaction, in a `with` or `async with` statement. At the end of its body, all
        of its writes take effect, or none.

        The body holds no lock. Raises ConflictError at its end if another thread or task has
        changed something that it read, and TransactionTooLargeError where it reads or writes more
        than `transaction_keys_max` keys. If the body raises, nothing is written.
        """
        collected = self._new_set(self._rows.chunks_between)
        transaction = Transaction(self._rows, collected, self._parts)
        return TransactionContext(transaction, collected, self._publisher)

    def transact(self, function: Callable[[Transaction], T], *, attempts: int = 10) -> T:
        """Call `function` with a transaction, without the lock, and return its result.

        After a conflict, `function` is called again with a new transaction, up to `attempts` times
        in all; then the ConflictError propagates. It may read rows of different moments. So a
        LookupError, ValueError, TypeError, ArithmeticError or AssertionError that it raises counts
        as a conflict, too, if something that it read has changed.
        """
        _check_positive("attempts", attempts)
        while True:
            attempts -= 1
            try:
                return self._transact_once(function)[0]
            except ConflictError:
                if not attempts:
                    raise

    def _transact_once(self, function: Callable[[Transaction], T]) -> tuple[T, int | None]:
        """Make one attempt of `transact`. Return the result of `function`, and the LSN."""
        result, t, collected = self._call_as_body(function)
        publish = self._publisher.publish
        t.lsn = publish(collected.writes(), collected.check, collected.companions)
        return result, t.lsn

    async def _transact_once_in_loop(
        self, function: Callable[[Transaction], T]
    ) -> tuple[T, int | None]:
        """Do what `_transact_once` does, and await room in the log buffer."""
        result, t, collected = self._call_as_body(function)
        publish = self._publisher.publish_in_loop
        t.lsn = await publish(collected.writes(), collected.check, collected.companions)
        return result, t.lsn

    def _call_as_body(
        self, function: Callable[[Transaction], T]
    ) -> tuple[T, Transaction, ReadWriteSet]:
        """Call `function` as the body of a transaction. Return its result, with the transaction.

        Raises ConflictError for an error that stale reads may have caused.
        """
        self._refuse_in_body("begin a transaction")
        collected = self._new_set(self._rows.chunks_between)
        t = Transaction(self._rows, collected, self._parts)
        body = bodies.Body()
        try:
            bodies.enter(body, id(self._publisher))
            return result_of(function, t), t, collected
        except _OF_STALE_READS as error:
            try:
                self._state.read(lambda _: collected.check())
            except ConflictError as conflict:
                raise conflict from error
            raise
        finally:
            body.runner = None
            collected.end()

    def update(self, function: Callable[[Transaction], T]) -> T:
        """Call `function` with a transaction, under the lock, and return its result.

        `function` must be short and must not wait. Nothing can conflict, unless its writes are too
        large for one record. Then they are written after the lock was released, and `function` is
        called again if something that it read has changed meanwhile; after 16 such conflicts,
        ConflictError propagates.
        """
        self._refuse_in_body("update")
        for attempts_left in range(_UPDATE_ATTEMPTS - 1, -1, -1):
            result, large = self._run_update(function)
            if large is None:
                return result
            try:
                self._publisher.publish(large.writes(), large.check, large.companions)
            except ConflictError:
                if not attempts_left:
                    raise
                continue
            return result
        raise AssertionError("the last attempt returns or raises")

    def _run_update(self, function: Callable[[Transaction], T]) -> tuple[T, ReadWriteSet | None]:
        """Call `function` under the lock, and write its writes. If they are too large for one
        record, return them with its result, and write nothing."""
        results: list[tuple[T, ReadWriteSet | None]] = []
        companions: list[Companion] = []

        def decide(machine: TablesMachine) -> PackedRecord | None:
            collected = self._new_set(machine.chunks_between)
            try:
                result = result_of(function, Transaction(self._rows, collected, self._parts))
            finally:
                collected.end()
            writes = collected.writes()
            is_large = not self._publisher.fits(writes)
            results.append((result, collected if is_large else None))
            if is_large:
                return None
            companions.extend(collected.companions)
            return self._publisher.record_of(writes)

        self._publisher.change(decide, companions)
        return results[0]

    def changes(self, after: int | None = None) -> TableChanges:
        """Return an iterator of the durable changes of all rows, in order, until `close`.

        With `after`, it begins with the first change after that LSN; 0 means the beginning of the
        log. In an event loop, use `async for`. A slow consumer never delays a writer. If compaction
        removes what it has not read, the iterator raises CompactedError: the changes from its `lsn`
        to before its `first_lsn` were missed. Then get all rows from `Tables.read`, and call
        `changes` again with the view's `lsn`.

        Raises ClosedError, FailedError, and ValueError if `after` was never appended. Reading the
        iterator may also raise CorruptionError, and OSError of the disk.
        """
        return TableChanges(self._state, after)

    def sync(self, *, timeout_s: float | None = None) -> None:
        """Block until every change made before this call, by any thread, survives a crash.

        Raises TimeoutError after `timeout_s` seconds (None: no limit), and FailedError.
        """
        self._whole.wait_durable(timeout_s=timeout_s)

    async def durable(self) -> None:
        """Wait as `sync` does, in an event loop."""
        await self._whole.durable()

    def wait_mirrored(self, *, timeout_s: float | None = None) -> None:
        """Block until the mirror has every change made before this call, by any thread; see
        Journal.wait_mirrored."""
        self._whole.wait_mirrored(timeout_s=timeout_s)

    async def mirrored(self) -> None:
        """Wait as `wait_mirrored` does, in an event loop."""
        await self._whole.mirrored()

    async def room(self) -> None:
        """Wait for room in the log buffer: await it before many writes in an event loop."""
        await self._whole.room()

    def compact(self) -> Checkpoint:
        """Write a checkpoint now; see Journal.compact."""
        return self._whole.compact()

    def close(self, *, timeout_s: float | None = None) -> None:
        """Make all changes durable, and close the journal; see Journal.close."""
        self._whole.close(timeout_s=timeout_s)

    @property
    def journal(self) -> Journal:
        """The journal, for backups and for waiting for an LSN. It refuses to append."""
        return self._whole.journal

    def stats(self) -> Stats:
        """Return the figures since open; see Journal.stats."""
        return self._whole.stats()

    def lock_stats(self) -> LockStats:
        """Return how long the lock was held and waited for; see DurableState.lock_stats."""
        return self._whole.lock_stats()

    @property
    def closed(self) -> bool:
        """True once `close` has finished; see Journal.closed."""
        return self._whole.closed

    def _condition(self) -> str:
        return self.journal._condition()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._whole.__exit__(kind, error, traceback)

    def _new_set(self, chunks_of: ChunksOf) -> ReadWriteSet:
        """Return the empty set of a new transaction."""
        return ReadWriteSet(self._machine, chunks_of, self._keys_max, self._publisher.now_ms)

    def _write(self, place: Place, value: bytes | None, check: Check | None = None) -> int | None:
        """Write one row outside of transactions, unless `check` raises under the lock."""
        self._refuse_in_body("write")
        return self._publisher.write_row(place, value, check)

    def _refuse_in_body(self, what: str) -> None:
        bodies.refuse_in_body(id(self._publisher), what)


@public
class Table(TableView):
    """One table. Reads show the newest state in memory; each returns a fresh value."""

    def __init__(self, tables: Tables, name: str) -> None:
        super().__init__(tables._rows, name)
        self._tables = tables
        self._set_row = RowWriter(tables._publisher, name).set

    def __setitem__(self, key: Key, value: Any) -> None:
        # As `set` does, without its calls for a transaction's body and a time.
        if bodies.running.get():
            self._tables._refuse_in_body("write")
        set_row = self._set_row  # a call as an attribute takes 20 ns more in CPython 3.11
        set_row(encode_key(key), pack_value(value))

    def __delitem__(self, key: Key) -> None:
        def check(now: Stored | None) -> None:
            if now is None:
                raise KeyError(key)

        self._tables._write(self._place(key), None, check)

    def set(self, key: Key, value: Any, *, expires_at: float | None = None) -> int:
        """Set a key, and return the LSN.

        From `expires_at` on, in Unix seconds, reads hide the row, and it is removed some time
        later. Until then, a clock that is set back shows it again. To make the row stay, set the
        key again without a time.
        """
        self._tables._refuse_in_body("write")
        return self._set_row(encode_key(key), pack_value(value, expires_at)) or 0

    def insert(self, key: Key, value: Any, *, expires_at: float | None = None) -> int:
        """Set a key that must be new, and return the LSN. Raises ConflictError if it exists."""

        def check(now: Stored | None) -> None:
            if now is not None:
                raise ConflictError(self.name, key, "is there already")

        return self._tables._write(self._place(key), pack_value(value, expires_at), check) or 0

    def replace(
        self, key: Key, value: Any, *, expected: Any = _ANY, expires_at: float | None = None
    ) -> int:
        """Set a key that must be there, with the value `expected` if given. Return the LSN.

        Raises ConflictError.
        """
        place, stored = self._place(key), pack_value(value, expires_at)
        while True:  # again only after another thread has changed the value
            seen = self._stored(key)
            if seen is None:
                raise ConflictError(self.name, key, "is not there")
            if expected is not _ANY and unpack_value(seen) != expected:
                raise ConflictError(self.name, key, "has another value than the expected one")

            def check(now: Stored | None, seen: Stored | None = seen) -> None:
                if now is None:
                    raise ConflictError(self.name, key, "is not there")
                if expected is not _ANY and now is not seen:
                    raise _ChangedError(self.name, key, "was changed")

            with suppress(_ChangedError):
                return self._tables._write(place, stored, check) or 0

    def delete(self, key: Key) -> int:
        """Remove a key that must be there, and return the LSN. Raises ConflictError."""

        def check(now: Stored | None) -> None:
            if now is None:
                raise ConflictError(self.name, key, "is not there")

        return self._tables._write(self._place(key), None, check) or 0

    def discard(self, key: Key) -> int | None:
        """Remove a key, and return the LSN, or None if it is not there."""
        with suppress(ConflictError):
            return self.delete(key)
        return None

    def update(self, key: Key, function: Callable[[Any], Any], *, default: Any = None) -> Any:
        """Set `key` to `function(value)`, and return the new value.

        `value` is `default` if the key is new. A row that expires keeps its time. `function` runs
        without the lock, and again if the value was changed meanwhile; after 16 attempts it runs
        under the lock. So it must be short and have no effects of its own.
        """
        check_callable(function, "function")
        place = self._place(key)
        for _ in range(_UPDATE_ATTEMPTS):
            seen = self._stored(key)
            new = function(default if seen is None else unpack_value(seen))
            stored = with_expiry(pack_value(new), expiry_of(seen))
            with suppress(_ChangedError):
                self._tables._write(place, stored, partial(self._check_same, key, seen))
                return new
        return self._tables.update(lambda t: t[self]._update(key, function, default))

    def _check_same(self, key: Key, seen: Stored | None, now: Stored | None) -> None:
        if now is not seen:
            raise _ChangedError(self.name, key, "was changed")


class _ChangedError(ConflictError):
    """The value was changed between a read and the write that depends on it."""


def _check_positive(name: str, number: Any) -> None:
    if type(number) is not int or number < 1:
        raise ValueError(f"{name} is {short_repr(number)}, not 1 or more")

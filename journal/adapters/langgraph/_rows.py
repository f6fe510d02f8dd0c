"""The tables of a saver, and the rows that they have.

    checkpoints  (thread, namespace, checkpoint)             a CheckpointRow
    values       (thread, namespace, channel, reference)     [type, bytes]
    writes       (thread, namespace, checkpoint, task, idx)  [channel, type, task path, bytes]
    parts        (thread, namespace, *owner, number)         bytes: see `_parts.py`
    heads        (thread, namespace)                         numbers: [checkpoints, ancestors]
    children     (thread, checkpoint, namespace)             None
    doomed       (thread,) or (thread, namespace)            the LSN before it was doomed
    deadlines    thread                                      Unix seconds
    expiring     (Unix milliseconds, thread)                 None

The ancestors in a head are those of its checkpoints that are kept only because delta channels of
newer ones need them.

Every change of the checkpoints of a namespace writes its head, too. So a transaction that has read
the head may read everything else of the namespace without the transaction: if any of it changes,
the head does, and the transaction conflicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import methodcaller
from typing import Any, NamedTuple, TypeAlias, cast
from weakref import WeakKeyDictionary

from langgraph.checkpoint.serde.base import SerializerProtocol

from journal import InterruptedCallError, JournalError, Key, Tables, Transaction
from journal.adapters._commits import acommit, commit, durable
from journal.adapters._strings import plain
from journal.adapters._tables import checked
from journal.adapters.langgraph._recent import RecentKeys

Place: TypeAlias = tuple[str, str]
"""A thread and a namespace."""
Typed: TypeAlias = tuple[str, bytes]
"""A serialized value: its type, and its bytes."""

KEYS_A_SLICE = 200  # of a removal or copy that takes several transactions
_PREFIX = "langgraph."
_shared: WeakKeyDictionary[Tables, tuple[RecentKeys, RecentKeys]] = WeakKeyDictionary()


class CheckpointRow(NamedTuple):
    """A checkpoint without the values of its channels."""

    parent: str | None
    run: str | None
    refs: dict[str, str]  # of each channel that has a value, to the table of values
    deltas: list[str]  # channels whose values are rebuilt from the writes of ancestors
    kind: str
    data: bytes
    metadata_kind: str
    metadata: bytes


class SaverTables:
    """The tables of a saver in a journal."""

    def __init__(self, tables: Tables) -> None:
        self.tables = checked(tables)
        self.checkpoints = tables.table(_PREFIX + "checkpoints")
        self.values = tables.table(_PREFIX + "values")
        self.writes = tables.table(_PREFIX + "writes")
        self.parts = tables.table(_PREFIX + "parts")
        self.heads = tables.table(_PREFIX + "heads")
        self.children = tables.table(_PREFIX + "children")
        self.doomed = tables.table(_PREFIX + "doomed")
        self.deadlines = tables.table(_PREFIX + "deadlines")
        self.expiring = tables.table(_PREFIX + "expiring")
        # The keys of checkpoints that were not there when their writes or subgraphs were removed,
        # with the tables and keys of the rows. They may still come, but not after the end of the
        # process. The removals of threads and namespaces that have added such keys. All savers
        # share both.
        both = _shared.setdefault(tables, (RecentKeys(), RecentKeys()))
        self.removed_early, self.removals = both

    def row(self, place: Place, checkpoint_id: str) -> CheckpointRow | None:
        """Return a checkpoint, or None."""
        found = self.checkpoints.get((*place, checkpoint_id))
        return None if found is None else CheckpointRow(*found)

    def is_removed_early(self, place: Place, checkpoint_id: str) -> bool:
        """Return whether writes or subgraphs of a checkpoint that is not there were removed.

        A removal notes them before it commits. If an interrupt ends it in between, all of them are
        still there.
        """
        notes = self.removed_early.notes((*place, checkpoint_id))
        return not all(key in getattr(self, table) for table, key in notes)

    def rows(self, place: Place, t: Transaction | None = None) -> dict[str, CheckpointRow]:
        """Return the checkpoints of a namespace by id, the oldest first. `t`: the transaction, if
        there is one."""
        table = self.checkpoints
        read = methodcaller("prefix", place)
        found = read(table) if t is None else beside(t, table, read)
        return {key[2]: CheckpointRow(*row) for key, row in found}

    def newest(self, place: Place) -> str | None:
        """Return the id of the newest checkpoint of a namespace, or None."""
        for key, _ in pairs(self.checkpoints.prefix(place, reverse=True, limit=1)):
            return str(key[2])
        return None

    def namespaces(self, thread: str) -> list[Place]:
        """Return the namespaces of a thread that have checkpoints."""
        return [(thread, key[1]) for key, _ in pairs(self.heads.prefix((thread,)))]

    def commit(self, write: Callable[[Transaction], None]) -> int | None:
        """Call `write` with a transaction, as `_commits.commit` does. Return the LSN."""
        return commit(self.tables, write)[1]

    async def acommit(self, write: Callable[[Transaction], None]) -> int | None:
        """Do what `commit` does, in an event loop."""
        return (await acommit(self.tables, write))[1]

    def wait(self, lsn: int | None) -> None:
        """Block until `lsn`, or all so far, survives a crash."""
        self.tables.journal.wait_durable(lsn)

    async def durable(self, lsn: int | None) -> None:
        """Wait as `wait` does, in an event loop."""
        await durable(self.tables, lsn)


def typed_of(serde: SerializerProtocol, value: object) -> Typed:
    """Serialize a value. What a serializer returns may be of subclasses, which tables refuse."""
    kind, data = serde.dumps_typed(value)
    return plain(kind), data if type(data) is bytes else bytes(memoryview(data))


def place_of(config: Mapping[str, Any]) -> Place:
    """Return the thread and the namespace of a config."""
    configurable = config["configurable"]
    return str(configurable["thread_id"]), plain(configurable.get("checkpoint_ns") or "")


def checkpoint_of(config: Mapping[str, Any]) -> str | None:
    """Return the id of the checkpoint that a config names, or None for the newest."""
    found = config["configurable"].get("checkpoint_id")
    return plain(found) if found else None


def beside(
    t: Transaction, table: Any, read: Callable[[Any], Iterator[tuple[Key, Any]]]
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Return the range that `read(table)` returns, without the transaction. Under the owner's lock,
    where a range can only be read within it, nothing else can change the rows."""
    try:
        return pairs(read(table))
    except InterruptedCallError:
        return pairs(read(t[table]))


def pairs(rows: Iterator[tuple[Key, Any]]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Return rows whose keys are tuples."""
    return cast("Iterator[tuple[tuple[Any, ...], Any]]", rows)


def vanished(place: Place, checkpoint_id: str) -> JournalError:
    """Return the error for a checkpoint without one of its values, which no crash leaves."""
    return JournalError(
        f"checkpoint {checkpoint_id} of thread {place[0]!r:.80} lacks the value of a channel; "
        "check that only JournalSaver writes to the tables `langgraph.*`"
    )

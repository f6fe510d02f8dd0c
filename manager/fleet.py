"""Fleet: all agents in memory, as the state machine that the journal replays. It does no I/O and
uses no clock and no randomness; the records contain all times and ids. The tables beside the agents
are a machine of their own, to which the fleet passes the records and items of their kinds.

Everything here except `load` and the iterator that `freeze` returns runs under the manager's lock,
so the time that it takes does not depend on the number of agents: a change does look-ups, updates
counters and makes one new row, or one for each ancestor too if it counts tokens. A list of one
status copies a few thousand rows at most. Each checkpoint item is one agent, a JSON object with the
fields of Agent. The counters, the index of names, the family and the session are rebuilt from the
items.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from journal import CowTable, FormatVersionError, PackedRecord, is_restored_mark
from manager import records
from manager.admission import Admission
from manager.agent import ENDED, STATUSES, Row, get
from manager.bulk_checks import are_valid
from manager.columns import AGENT_ID, BOOT_ID, NAME, PARENT_ID, STATUS, TOKENS_USED
from manager.errors import UnknownAgentError
from manager.family import Family
from manager.items import SESSION, item_of, row_of
from manager.layouts import Boot, Record
from manager.names import Names
from manager.queue import NoQueue, Queue
from manager.recent import Recent
from manager.replay import Replay, is_boot
from manager.sources import Sources
from manager.steps import STEPS, Step, advance, count_tokens
from manager.typed_items import Agents, decoded
from manager.values import NAME_BYTES_MAX

if TYPE_CHECKING:
    from journal import StateMachine


class Fleet(Admission):
    """The agents by id, in the order in which they were spawned."""

    application = records.APPLICATION
    accepts: tuple[str, ...] = ()
    heads_of_part = records.HEADS_OF_TABLES
    names = ("fleet", "tables")  # the parts; see `journal.Tables.in_state`

    def __init__(self, *, with_tables: bool = True) -> None:
        self._with_tables = with_tables  # False: a reader of agents leaves tables out
        self.tables: StateMachine | None = None  # None: no record and no manager has used them yet
        self._approved: PackedRecord | None = None
        self.rows: CowTable[str, Row] = CowTable()
        self.counts: dict[str, int] = dict.fromkeys(STATUSES, 0)
        self._recent = Recent()
        self.family = Family(self.rows)
        self.by_name = Names(self.rows)
        # Nothing is started before the end of replay, which then fills a queue in less time.
        self.queue: Queue = NoQueue()
        self.sources = Sources()
        # The latest session, or "" if it is unknown. In a checkpoint, the agents of the latest
        # session are marked.
        self.boot_id = ""
        self.states_session = True  # whether the last item of an agent does
        # Receives each new row while somebody watches; otherwise None.
        self.feed: deque[Row] | None = None
        # None after replay: this process checks its own changes before it appends them, so its
        # steps check nothing under the lock.
        steps = self._with_effects()
        self._replay: Replay | None = Replay(self.rows, self.family, self.by_name, steps)
        self._steps = self._replay.steps

    def load(self, item: Mapping[str, Any]) -> None:
        """Add an agent from a checkpoint. Raises FormatVersionError if no manager wrote it."""
        try:
            row = row_of(item)
        except (KeyError, TypeError) as error:
            if records.is_item_of_tables(item):
                if self._with_tables:
                    self.begin_tables().load(item)
                return
            if records.is_item_of_sources(item):
                self.sources.load(item, self.rows)
                return
            raise FormatVersionError(
                f"a checkpoint item is not an agent of {self.application}; "
                "open the journal with the version that wrote it"
            ) from error
        assert self._replay is not None
        self._replay.check_item(row)
        self._put(None, row)
        self._note_session([row], [item.get(SESSION)])

    def load_items(self, items: list[Any]) -> None:
        """Do what `load` does for each of the items, one after the other, in half the time."""
        try:
            rows = [*map(row_of, items)]
        except (KeyError, TypeError):
            rows = []  # an item is not an agent, or is wrong
        columns = [*zip(*rows, strict=True)]
        if rows and are_valid(rows, columns):
            self._load_agents(Agents(rows, columns, [item.get(SESSION) for item in items]))
        else:
            for item in items:
                self.load(item)

    def load_text(self, text: str, count: int) -> bool:
        """Do what `load_items` does for a JSON array of `count` items. Return False, and load none,
        if they must be decoded for it."""
        agents = decoded(text, count)
        if agents is not None:
            self._load_agents(agents)
        return agents is not None

    def _load_agents(self, agents: Agents) -> None:
        """Load agents whose fields are valid."""
        replay = self._replay
        assert replay is not None
        is_accepted = replay.accept_together(agents.columns)
        if is_accepted and agents.are_ended and self.feed is None:
            self.rows.update(zip(agents.columns[AGENT_ID], agents.rows, strict=True))
            for status in agents.columns[STATUS]:
                self.counts[status] += 1
        else:
            for row in agents.rows:
                if not is_accepted:
                    replay.check_item(row, has_valid_fields=True)
                self._put(None, row)
        self._note_session(agents.rows, agents.are_prior)

    def _note_session(self, rows: list[Row], are_prior: Sequence[Any]) -> None:
        """Note the latest session, as the items of these agents state it."""
        self.states_session = are_prior[-1] is not None
        for row, is_prior in zip(rows, are_prior, strict=True):
            if is_prior is False:
                self.boot_id = row[BOOT_ID]

    def load_lines_of_part(self, lines: list[bytes]) -> list[bytes]:
        """Load the lines of tables at the end of `lines`. Return the others, which are agents'."""
        agents = [line for line in lines if not line.startswith(self.heads_of_part)]
        if lines[: len(agents)] != agents:  # no manager writes agents after rows
            return lines
        if self._with_tables:
            tables: Any = self.begin_tables()
            tables.load_lines(b"".join(lines[len(agents) :]))
        return agents

    def freeze(self) -> Iterator[Any]:
        """Return an iterator of the checkpoint's items as of now. This takes constant time: an item
        is built when the iterator reaches it. The items of tables come last.
        """
        agents = map(partial(item_of, self.boot_id), self.rows.freeze())
        fleet = chain(agents, self.sources.freeze())
        return fleet if self.tables is None else chain(fleet, self.tables.freeze())

    def apply(self, lsn: int, record: Record) -> None:
        """Apply one record, both live and in replay.

        In replay, raise FormatVersionError for a record that no manager would have written.
        """
        try:
            step, old = self._steps[record[records.KIND]], self.rows.get(record[records.AGENT_ID])
        except (LookupError, TypeError):
            # A log of tables alone begins with such a record, and that of a fleet with a boot.
            if records.is_of_tables(record) and lsn > 1:
                if self._replay is not None:
                    self._replay.begin(lsn)
                if self._with_tables:
                    self.begin_tables().apply(lsn, record)
                return
            if is_boot(record):
                if self._replay is not None:
                    self._replay.begin(lsn)
                self.boot_id = record[Boot._fields.index("boot_id")]
                return
            if is_restored_mark(record):
                if self._replay is not None:
                    self._replay.begin(lsn)
                return
            raise FormatVersionError(
                f"LSN {lsn}: not a record of {self.application}; "
                "open the journal with the version that wrote it"
            ) from None
        new = step(old, lsn, record)
        if new is None:
            self._remove(record[records.AGENT_ID])
            return
        self._put(old, new)
        if old is None:
            if record[records.KIND] == "spawn":
                self.boot_id = new[BOOT_ID]
        elif (parent_id := new[PARENT_ID]) is not None:
            tokens = new[TOKENS_USED] - old[TOKENS_USED]
            if tokens:
                self._add_tokens(lsn, parent_id, tokens)

    def _with_effects(self) -> dict[str, Step]:
        """Return the steps of all kinds, with the effects that some have beside the row."""
        take, use = STEPS["take"], STEPS["usage_once"]

        def used(old: Row | None, lsn: int, record: Record) -> Row | None:
            self.sources.add(record[records.AGENT_ID], record[records.SOURCE_ID])
            return use(old, lsn, record)

        def taken(old: Row | None, lsn: int, record: Record) -> Row | None:
            new = take(old, lsn, record)
            if new is not None and (parent_id := new[PARENT_ID]) is not None:
                self.family.taken(new[AGENT_ID], parent_id)
            return new

        return {**STEPS, "take": taken, "usage_once": used}

    def begin_tables(self) -> StateMachine:
        """Return the machine of the tables, which is made first if there is none yet."""
        if self.tables is None:
            from journal import Tables  # takes 10 ms, and most fleets have no tables

            self.tables = Tables.machine()
        return self.tables

    def approved(self, record: PackedRecord | None) -> PackedRecord | None:
        """Return `record`, which `part` then accepts. Called under the lock, after its checks."""
        self._approved = record
        return record

    def part(self, name: str, record: Any) -> Any:
        """Return `record` as it is: agents and tables have no kind of record in common.

        Raises ValueError for a record that changes agents, unless it is the one just approved.
        """
        if name == "fleet":
            if type(record) is not PackedRecord or record is not self._approved:
                raise ValueError(
                    "a record that changes agents was not checked; use a transaction of the manager"
                )
            self._approved = None
        return record

    def own_record(self, name: str, record: Any) -> Any | None:
        """Return `record` if it is one of tables, else None; see `part`."""
        return record if records.is_of_tables(record) else None

    def own_item(self, name: str, item: Any) -> Any | None:
        """Do for an item what `own_record` does for a record."""
        return item if records.is_item_of_tables(item) else None

    def __getitem__(self, name: str) -> Any:
        return self if name == "fleet" else self.tables

    def feed_to(self, feed: deque[Row]) -> None:
        """Append each new row to `feed` from now on. A removed agent's row is only its id."""
        self.feed = feed

    def stop_feeding(self) -> None:
        """Stop appending rows to the feed."""
        self.feed = None

    def end_session(self) -> None:
        """Treat all agents as agents of a prior session, because the latest writer has ended."""
        self.boot_id = ""

    def replace(self, new: Row) -> None:
        """Store a row whose agent has the same status as before."""
        self._put(self.rows[new[AGENT_ID]], new)

    def presume(self, lsn: int, record: Record) -> None:
        """Apply an interruption that is not in the log. A later record may state it too."""
        agent_id = record[records.AGENT_ID]
        old = self.rows[agent_id]
        self._put(old, advance(old, lsn, record))
        if self._replay is not None:
            self._replay.presume(agent_id)

    def check_loaded(self, lsn: int) -> None:
        """Raise FormatVersionError unless the loaded items form a complete fleet as of `lsn`."""
        if self._replay is not None:
            self._replay.check_loaded(lsn)

    def check_replayed(self, agent_ids: Iterable[str] | None = None) -> None:
        """Raise FormatVersionError if an agent's progress has values that no manager accepts.

        `agent_ids` are the agents to check; None checks all.
        """
        if self._replay is None:
            return
        rows = self.rows.freeze() if agent_ids is None else map(self.rows.get, agent_ids)
        self._replay.check_progress(row for row in rows if row is not None)

    def end_replay(self) -> None:
        """Stop checking records, because from now on this process checks each before appending it.

        Raises FormatVersionError as `check_replayed` does. A second call does nothing.
        """
        if self._replay is None:
            return
        self.check_replayed()
        self.queue = Queue()
        if self.counts["queued"]:
            self.queue.fill(row for row in self.rows.freeze() if row[STATUS] == "queued")
        self._replay, self._steps = None, self._with_effects()

    def find(self, ref: str) -> Row:
        """Return the row of the agent with the id `ref`, or else of the newest agent of that name.

        Raises UnknownAgentError.
        """
        row = self.found(ref)
        if row is None:
            counts = ", ".join(f"{n} {status}" for status, n in self.counts.items() if n)
            raise UnknownAgentError(
                f"no agent {ref[:NAME_BYTES_MAX]!r}; agents: {counts or 'none'}"
            )
        return row

    def found(self, ref: str) -> Row | None:
        """Return the row that `find` returns, or None if there is no such agent."""
        row = self.rows.get(ref)
        if row is None and (agent_id := self.by_name.newest(ref)) is not None:
            row = self.rows.get(agent_id)
        return row

    def prefetch(self, ref: str) -> Row | None:
        """Return the row that `find` will probably return, and read it into the processor's cache.

        Called before the lock is taken, so the row may be missing, and may change before the lock
        is taken. With 60,000 agents, an update of a random one then holds the lock for 2.1 us
        instead of 2.6.
        """
        row = self.rows.get(ref) or self.found(ref)
        if row is not None:
            _ = [*row]  # reads each value
        return row

    def next_attempt(self, name: str) -> int:
        """Return the attempt of a new agent of this name."""
        attempt = 0
        for agent_id in self.by_name.last(name):
            # It may be None, because this is also called without the lock.
            row = self.rows.get(agent_id)
            if row is not None and get.attempt(row) > attempt:
                attempt = get.attempt(row)
        return attempt + 1

    def attempt_fields(self, name: str | None) -> list[int]:
        """Return the fields of a record that state the attempt of a new agent of this name.

        A first attempt is not stated, so that older versions of the manager can read the record.
        """
        attempt = 1 if name is None else self.next_attempt(name)
        return [attempt] if attempt > 1 else []

    def rows_with(self, status: str | None, *, include_archived: bool) -> Iterable[Row]:
        """Return a snapshot of rows, among them all with `status`, but archived ones perhaps only
        if `include_archived` is true. A list is in any order."""
        if status in STATUSES:
            count = self.counts[status]
            found = self._recent.with_status(status, count, include_archived=include_archived)
            if found is not None:
                return found
        return self.rows.freeze()

    def copied(self) -> Fleet:
        """Return a copy of the agents for a reader. Its rows are shared, because rows are never
        mutated, and it has neither tables nor sources."""
        copy = Fleet(with_tables=False)
        for row in self.rows.values():
            copy._put(None, row)
        copy.boot_id = self.boot_id
        return copy

    def _put(self, old: Row | None, new: Row) -> None:
        """Store a row, and update the counters, the family and the index of names."""
        agent_id, status = new[AGENT_ID], new[STATUS]
        self.rows[agent_id] = new
        if (feed := self.feed) is not None:  # read once: the watch may set it to None at any time
            feed.append(new)
        if old is None:
            if self._replay is None or status not in ENDED:  # most items of a checkpoint have ended
                self._recent[status][agent_id] = new
            self.family.added(agent_id, new)
        elif (before := old[STATUS]) == status:
            self._recent[status][agent_id] = new
            return
        else:
            self._recent[before].pop(agent_id, None)
            self._recent[status][agent_id] = new
            self.counts[before] -= 1
            if status == "running":
                self.boot_id = new[BOOT_ID]
            elif status in ENDED:
                self.family.ended(agent_id, new[PARENT_ID])
        self.counts[status] += 1
        if status == "queued":
            self.queue.add(new)
        elif old is not None and before == "queued":
            self.queue.remove(new)
        if new[NAME] != agent_id:
            self.by_name.put(new)

    def _remove(self, agent_id: str) -> None:
        """Remove an agent that has ended and has no children."""
        row = self.rows[agent_id]
        del self.rows[agent_id]
        if (feed := self.feed) is not None:
            feed.append((agent_id,))
        self._recent[row[STATUS]].pop(agent_id, None)
        self.counts[row[STATUS]] -= 1
        name, parent_id = row[NAME], row[PARENT_ID]
        self.sources.removed(agent_id)
        if parent_id is not None:
            self.family.removed(agent_id, parent_id)
        if name != agent_id:
            self.by_name.removed(agent_id, name)

    def _add_tokens(self, lsn: int, agent_id: str | None, tokens: int) -> None:
        while agent_id is not None:
            self.rows[agent_id] = row = count_tokens(self.rows[agent_id], lsn, tokens)
            self._recent[row[STATUS]][agent_id] = row
            if (feed := self.feed) is not None:
                feed.append(row)
            agent_id = row[PARENT_ID]

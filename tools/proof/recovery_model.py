"""A model of the journal, which `proof.model` searches.

It has the recovery rule of journal/docs/FORMAT.md, and every step of the programs whose crashes the
rule has to survive. It models:

- The writer. A commit is one frame or several, and one sync. With durability "disk", the next
  commits may be written while that sync is in flight. Each sync has an open file description of its
  own. Syncs end in any order, and commits are acknowledged in theirs. An idle mark is provisional:
  the next frame is written over it. A segment gets its name by a rename, and the name is synced
  before the first frame is written. The first commit after an open begins the segment of a new
  epoch. Segments fill up. The journal is closed. Durability is "disk" or "os".
- The compactor. It publishes a checkpoint and removes what that covers, step by step, while commits
  continue.
- Open, with its syncs, the page cache, the decision, and the removal of covered files. In a journal
  without records, it states the application in an empty checkpoint, whose name it does not sync. An
  open need not be followed by a commit.
- Any number of crashes, between any two steps, including those of an open. A kill keeps the page
  cache. A power cut leaves any subset of the unsynced names. At each unsynced place it leaves the
  whole frame, its header only, bytes that do not parse, or the old content.
- A failed sync, even during an open. The pages are marked clean, and any subset of them is on disk.
  Each sync in flight whose pages these are fails, too. A later one may succeed before the writer
  learns of the failure. The journal may be reopened before the machine restarts.
- Damage to a checkpoint, or to up to three neighboring frames and marks that are durable. If an
  open passes over such damage, the journal continues to be used.

It does not model bytes (a CRC always detects damage, and the search after a damaged header finds
every valid header); buffered records, which leave no trace; space allocated ahead; a full disk;
failed syncs of a directory or of a `*.tmp` file; a page cache that can't be dropped; damaged
segment headers and lost segments; the lock, readers and threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate, chain
from typing import Literal, NamedTuple, get_args

from proof.model_disk import (
    Cell,
    Disk,
    Entry,
    Segment,
    Slots,
    after_failed_sync,
    covered,
    drop_pages,
    sync,
    with_next,
)
from proof.search import BrokenPromiseError

Durability = Literal["disk", "os"]
Mode = Literal["crash", "damage"]


class Weakening(Enum):
    """A clause that can be removed from the model.

    Its value is the durability and the mode in which that breaks a promise, and the behavior of the
    weakened program.
    """

    NO_SYNC_BEFORE_TRUST = "disk", "crash", "open trusts what it reads without syncing it first"
    NO_PAGE_DROP = "disk", "crash", "open reads pages that a failed sync left clean"
    NEWEST_CHECKPOINT_ONLY = "disk", "damage", "open refuses if a checkpoint does not verify"
    ROTTEN_IS_NO_EVIDENCE = "disk", "damage", "a checkpoint that does not verify is no evidence"
    LEFTOVER_STRICTLY_BELOW = "disk", "crash", "a segment that ends at the older checkpoint is read"
    DENSE_FROM_OLDER_CHECKPOINT = "disk", "damage", "LSNs must be dense from the older checkpoint"
    TORN_TAIL_ANYWHERE = "disk", "damage", "the log may end in a segment that is not the last"
    NO_TORN_TAIL = "disk", "crash", "a bad frame is always corruption"
    NO_EVIDENCE = "disk", "damage", "a bad frame in the last segment is always a torn tail"
    NO_EVIDENCE_AFTER_DAMAGE = "disk", "damage", "only headers before the bad frame are evidence"
    FRAMES_AFTER_MARK = "disk", "crash", "recovery reads the frames that follow a mark"
    NO_NEW_EPOCH = "disk", "crash", "after an open, the log continues in its last segment"
    NO_DIRECTORY_SYNC = "disk", "crash", "the directory is never synced"
    FRAME_BEFORE_NAME_SYNC = "disk", "crash", "a segment is written before its name is synced"
    ROLL_WITHOUT_SYNC = "os", "crash", "a segment is begun before the previous one is synced"
    ACKNOWLEDGE_BEFORE_SYNC = "disk", "crash", "a commit is acknowledged when it is written"
    PROMISE_AFTER_FAILED_SYNC = "os", "crash", "commits are promised although their sync failed"
    ACKNOWLEDGE_OUT_OF_ORDER = (
        "disk",
        "crash",
        "a commit is acknowledged when its own sync succeeds, while an earlier one is in flight",
    )
    ACKNOWLEDGE_AFTER_FAILED_SYNC = "disk", "crash", "commits after a failed sync are acknowledged"
    ONE_FILE_DESCRIPTION = "disk", "crash", "of the syncs in flight, only one reports an error"
    STATE_WRITTEN_AS_DURABLE = "disk", "crash", "a frame states that all before it is durable"
    STATE_NOTHING_DURABLE = "disk", "damage", "a frame states the durable LSN 0"
    SEAL_IN_FLIGHT = "disk", "crash", "a segment is sealed by one sync while others are in flight"
    MARK_STAYS = "disk", "crash", "frames follow a mark, and a sync covers the new frames only"
    SPLIT_BATCH = "disk", "crash", "a batch is spread over the frames of its commit"
    CHECKPOINT_BEFORE_LOG_SYNC = "os", "crash", "a checkpoint is published before the log is synced"
    DROP_BEFORE_PUBLISHED = (
        "disk",
        "damage",
        "segments are removed before the checkpoint is durable",
    )
    DROP_BELOW_NEWEST = "disk", "crash", "segments that the newer of two checkpoints covers go"
    ONE_CHECKPOINT_IS_ENOUGH = "disk", "crash", "segments that the only checkpoint covers go"
    APPLICATION_AFTER_SEGMENT = (
        "disk",
        "crash",
        "the application is stated after the first segment's name is synced",
    )

    RESUME_AT_BAD_PAYLOAD = "disk", "damage", "reading resumes at a frame whose payload is bad"
    BELIEVE_DAMAGED_COUNT = "disk", "damage", "the count in a damaged frame's header is believed"
    CHECKPOINT_ENDS_LOG = "disk", "damage", "damage up to the checkpoint ends the log there"
    PASS_STRADDLING_FRAME = (
        "disk",
        "damage",
        "a damaged frame is passed over, although the checkpoint covers only a part of it",
    )
    RESUME_ANYWHERE = "disk", "damage", "reading resumes at any later frame"

    def __init__(self, durability: Durability, mode: Mode, behavior: str) -> None:
        self.durability: Durability = durability
        self.mode: Mode = mode
        self.behavior = behavior


@dataclass(frozen=True)
class Model:
    """The parameters of a search: the durability, the mode, a weakening if any, and the bounds."""

    durability: Durability = "disk"
    mode: Mode = "crash"
    weakening: Weakening | None = None
    records: int = 3  # records appended, including those that a crash loses
    epochs: int = 2  # epochs in which segments are written
    checkpoints: int = 2  # checkpoints of compactions that exist at a time
    frames: int = 2  # frames of one commit
    syncs: int = 2  # syncs in flight at a time, with durability "disk"
    neighbors: int = 3  # neighboring frames and marks damaged at a time


OpeningPhase = Literal[
    "opening", "names synced", "log synced", "leftovers removed", "application unstated"
]
WritingPhase = Literal["idle", "rolling", "segment named", "written", "closing"]
Phase = OpeningPhase | WritingPhase | Literal["dead"]
Outcome = Literal["success", "failure"]
OPENING = get_args(OpeningPhase)
STATE_APPLICATION = "state the application"
LOST = -1  # stands for a record that a weakened rule passes over


class Compaction(NamedTuple):
    """A compaction in progress: the checkpoint's LSN, and the remaining steps."""

    lsn: int
    steps: tuple[str, ...]


class Sync(NamedTuple):
    """The sync of a commit. It begins after the commit is written.

    first, last: the first and the last LSN of the commit.
    end: the place after the commit. The sync covers the segment up to there. One that covers more
    allows nothing new, because a power cut may also keep what no sync covers.
    outcome: the result that the writer has not acted on yet, or None while the sync is under way.
    """

    first: int
    last: int
    end: int
    outcome: Outcome | None = None


class Process(NamedTuple):
    """The process that owns the journal.

    synced, written: the last LSNs that are synced and written. A commit counts as synced when its
    own sync and all earlier ones have succeeded; with durability "disk", it is acknowledged then.
    verified: the LSNs of the checkpoints that the process has seen verify.
    in_flight: the syncs of the commits that are written and not acknowledged, in their order.
    """

    phase: Phase = "opening"
    epoch: int = 0
    synced: int = 0
    written: int = 0
    verified: tuple[int, ...] = ()
    compaction: Compaction | None = None
    in_flight: tuple[Sync, ...] = ()


class Oracle(NamedTuple):
    """The records that an open has to yield.

    log: the batches that were appended, without those that a crash lost.
    safe: the LSN up to which records are acknowledged and survive a power cut.
    alive: the LSN up to which records are acknowledged and survive a kill.
    appended: the number of records appended, including those that a crash lost.
    passed_over: true once frames are damaged, and only an open that passes over them succeeds.
    """

    log: tuple[tuple[int, ...], ...] = ()
    safe: int = 0
    alive: int = 0
    appended: int = 0
    passed_over: bool = False

    @property
    def records(self) -> tuple[int, ...]:
        return tuple(chain(*self.log))

    @property
    def ends(self) -> list[int]:
        """The LSN 0, and the last LSN of each batch."""
        return list(accumulate(map(len, self.log), initial=0))


class State(NamedTuple):
    disk: Disk = Disk()
    process: Process = Process()
    oracle: Oracle = Oracle()


Step = tuple[str, State]


class RefusedError(Exception):
    """The refusal of an open, as CorruptionError is in the engine."""


# --- the rule ---


@dataclass
class Log:
    """The log as far as it was read: the next LSN, the records by LSN, and the evidence.

    `covered`: the LSN up to which damage may be passed over, because a checkpoint holds the state.
    """

    due: int
    evidence: int
    covered: int
    records: dict[int, int] = field(default_factory=dict)

    def read(self, segment: Segment, end: int | None, weakening: Weakening | None) -> bool:
        """Read a segment up to LSN `end`, where the next one begins, if any.

        Return whether it ends with a bad frame. Raises RefusedError for a header that no crash can
        leave.
        """
        is_bad = is_after_mark = False
        resumes_at: int | None = None
        cells = [slot.now for slot in segment.slots]
        for at, cell in enumerate(cells):
            if self.due == end:
                break  # the next segment begins here; it cut the rest of this one
            if at == resumes_at:
                is_bad = is_after_mark = False
            is_damaged = cell.kind in ("header", "garbage") or is_after_mark
            if is_damaged and not is_bad and self.due <= self.covered:
                resumes_at = self._pass_over(cells, at, weakening)
            is_bad = is_bad or is_damaged
            if not is_bad:
                if cell.first != self.due or cell.durable >= self.due:
                    raise RefusedError(f"the header at LSN {self.due} is impossible")
                self.records.update(enumerate(cell.records, self.due))
                self.due += len(cell.records)
                is_after_mark = cell.kind == "mark" and weakening not in (
                    Weakening.MARK_STAYS,
                    Weakening.FRAMES_AFTER_MARK,
                )
            is_lost = is_bad and weakening is Weakening.NO_EVIDENCE_AFTER_DAMAGE
            if cell.kind != "garbage" and not is_lost:
                self.evidence = max(self.evidence, cell.durable)
        return is_bad

    def _pass_over(self, cells: list[Cell], at: int, weakening: Weakening | None) -> int | None:
        """Find the cell at which reading resumes after the damage at `at`, set `due` to its LSN,
        and return its place. Return None if there is none."""
        last = cells[at].first + len(cells[at].records) - 1
        limit = self.covered + 1
        if weakening is Weakening.RESUME_ANYWHERE:
            limit = max(cell.first for cell in cells)
        if weakening is Weakening.PASS_STRADDLING_FRAME and cells[at].first <= self.covered < last:
            limit = last + 1
        kinds = {"frame", "mark"}
        if weakening is Weakening.RESUME_AT_BAD_PAYLOAD:
            kinds.add("header")
        for place, cell in enumerate(cells[at + 1 :], at + 1):
            if cell.kind in kinds and self.due < cell.first <= limit:
                self.due = cell.first
                return place
        if weakening is Weakening.BELIEVE_DAMAGED_COUNT and cells[at].kind == "header":
            self.due = min(last + 1, limit)
        if weakening is Weakening.CHECKPOINT_ENDS_LOG:
            self.due = limit
        return None


def recover(
    disk: Disk, weakening: Weakening | None, *, passes_over_damage: bool = True
) -> tuple[int, ...]:
    """Return the records that an open yields, or raise RefusedError.

    This is the rule, from step 3 of "Recovery" in journal/docs/FORMAT.md on. `opening` has the
    steps before and after it. `passes_over_damage` is false for the rule of older versions, which
    refused all damage after the first LSN of the segment that the checkpoint needs.
    """
    # Step 3. A checkpoint that does not verify is evidence by its name.
    existing = disk.checkpoints
    verified = [checkpoint for checkpoint in existing if checkpoint.verifies]
    if weakening is Weakening.NEWEST_CHECKPOINT_ONLY and existing != verified:
        raise RefusedError("a checkpoint does not verify")
    base = verified[-1] if verified else Entry("checkpoint", 0)

    # Step 4. A crash during a removal may leave any of the covered segments.
    ignored = base.lsn
    if weakening in (Weakening.DENSE_FROM_OLDER_CHECKPOINT, Weakening.LEFTOVER_STRICTLY_BELOW):
        ignored = verified[-2].lsn if len(verified) > 1 else 0
    ignored -= weakening is Weakening.LEFTOVER_STRICTLY_BELOW
    segments = tuple(
        segment
        for segment, after in with_next(disk.visible)
        if not after or after.first - 1 > ignored
    )
    evidence = verified if weakening is Weakening.ROTTEN_IS_NO_EVIDENCE else existing
    first = segments[0].first if segments else 1
    covered = base.lsn if passes_over_damage else 0
    log = Log(first, max((c.lsn for c in evidence), default=0), covered)
    if log.due > base.lsn + 1:
        raise RefusedError(f"the log begins at LSN {log.due}, the checkpoint is at {base.lsn}")
    for segment, after in with_next(segments):
        is_bad = log.read(segment, after.first if after else None, weakening)
        if is_bad and weakening is Weakening.NO_TORN_TAIL:
            raise RefusedError(f"the frame at LSN {log.due} is bad")
        if after and log.due != after.first:
            if weakening is Weakening.TORN_TAIL_ANYWHERE:
                break
            raise RefusedError(f"a segment ends before LSN {log.due}, the next is {after.first}")

    # Step 5. If any record is lost, the first one lost has the LSN `log.due`.
    if log.evidence >= log.due and weakening is not Weakening.NO_EVIDENCE:
        raise RefusedError(f"the log ends before LSN {log.due}, but {log.evidence} was durable")
    if base.lsn >= log.due:
        raise RefusedError(f"the checkpoint at LSN {base.lsn} is past the end of the log")
    return base.records + tuple(log.records.get(lsn, LOST) for lsn in range(base.lsn + 1, log.due))


def check(yielded: tuple[int, ...], oracle: Oracle) -> None:
    """Raise BrokenPromiseError if the records that an open yields break P1, P2 or P3."""
    lsn, log = len(yielded), oracle.records
    if yielded != log[:lsn]:
        raise BrokenPromiseError(f"P1: open yields records {yielded}, but {log} were appended")
    if lsn < oracle.alive:
        raise BrokenPromiseError(f"P2: open yields up to LSN {lsn} of {oracle.alive} acknowledged")
    if lsn not in oracle.ends:
        raise BrokenPromiseError(f"P3: open yields up to LSN {lsn}, but batches are {oracle.log}")


def opening(state: State, model: Model) -> Iterator[Step]:
    """Yield the possible next steps of an open. A crash may follow each of them."""
    disk, process, _ = state
    last = disk.visible[-1] if disk.visible else None
    is_blind = model.weakening is Weakening.NO_SYNC_BEFORE_TRUST
    if process.phase == "opening":
        synced = disk if is_blind else with_synced_names(disk, model)
        after = state._replace(disk=synced, process=Process("names synced"))
        yield "open: sync the directory", after
    elif process.phase == "names synced":
        after = state._replace(process=Process("log synced"))
        if last and last.slots and not is_blind:
            for failed in after_failed_sync(last.slots):
                yield "open: sync of the last segment FAILS", stopped(state, last, failed, model)
            after = after._replace(disk=disk.with_slots(last, sync(last.slots)))
        yield "open: sync the last segment", after
    elif process.phase == "log synced":
        if last and model.weakening is not Weakening.NO_PAGE_DROP:
            state = state._replace(disk=disk.with_slots(last, drop_pages(last.slots)))
        yield decide(state, model)
    elif process.phase == "leftovers removed":
        disk = with_synced_names(disk, model)
        yield "open: sync the removal", State(disk, process._replace(phase="idle"), state.oracle)
    else:
        yield (
            "open: " + STATE_APPLICATION,
            stating_application(state, process._replace(phase="idle")),
        )


def decide(state: State, model: Model) -> Step:
    """Decide which records the journal holds, and remove the covered files after that."""
    disk, _, oracle = state
    try:
        records = recover(disk, model.weakening)
    except RefusedError as refused:
        raise BrokenPromiseError(f"P5: open refuses: {refused}") from None
    check(records, oracle)
    if oracle.alive and not disk.checkpoints:
        raise BrokenPromiseError("P6: records are acknowledged, but no file states the application")
    lsn = len(records)
    verified = tuple(c.lsn for c in disk.checkpoints if c.verifies)[-2:]
    leftovers = covered(disk, verified[0]) if len(verified) == 2 else frozenset()
    highest = max((segment.epoch for segment in disk.visible), default=0)
    epoch = max(highest, 1) if model.weakening is Weakening.NO_NEW_EPOCH else highest + 1
    phase: Phase = "leftovers removed" if leftovers else "idle"
    is_late = model.weakening is Weakening.APPLICATION_AFTER_SEGMENT
    if not lsn and not disk.checkpoints and not is_late:
        phase = "application unstated"
    # From now on, the yielded records are the log, and all of them are synced.
    log = oracle.log[: oracle.ends.index(lsn)]
    return f"open succeeds at LSN {lsn}", State(
        disk.without(leftovers),
        Process(phase, epoch, lsn, lsn, verified),
        oracle._replace(log=log, safe=lsn, alive=lsn),
    )


def stating_application(state: State, process: Process) -> State:
    """Publish the empty checkpoint that states the application. Its content is synced before."""
    names = state.disk.names | {Entry("checkpoint", 0)}
    return State(state.disk._replace(names=names), process, state.oracle)


def stopped(state: State, segment: Segment, slots: Slots, model: Model) -> State:
    """Stop after a failed sync. Unsynced records may be lost, as after a power cut."""
    oracle = state.oracle
    if model.weakening is not Weakening.PROMISE_AFTER_FAILED_SYNC:
        oracle = oracle._replace(alive=oracle.safe)
    return State(state.disk.with_slots(segment, slots), Process("dead"), oracle)


def with_synced_names(disk: Disk, model: Model) -> Disk:
    """Return the disk after a sync of the directory, unless the weakening omits such syncs."""
    return disk if model.weakening is Weakening.NO_DIRECTORY_SYNC else disk.with_synced_names()

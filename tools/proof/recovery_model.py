"""A model of the journal: the recovery rule of journal/docs/FORMAT.md, and every step of the
programs whose crashes it has to survive. `proof.model` searches it.

Modelled:

- The writer. A commit is one frame or several, and one sync. An idle mark is provisional: the next
  frame is written over it. A segment gets its name by a rename, and the name is synced before the
  first frame is written. The first commit after an open begins the segment of a new epoch. Segments
  fill up. The journal is closed. Durability is "disk" or "os".
- The compactor. It publishes a checkpoint and drops what that covers, step by step, while commits
  go on.
- Open: its syncs, the page cache, the decision, the removal of leftovers. An open need not write.
- Crashes between any two steps, those of an open too, and any number of them. A kill keeps the page
  cache. A power cut leaves any subset of the unsynced names and, at each unsynced place, the whole
  frame, its header only, bytes that do not parse, or what stood there before.
- A failed sync, also of an open: the pages count as clean, and any subset of them is on disk. The
  journal may be reopened before the machine restarts.
- Damage to a durable frame, mark or checkpoint.

Not modelled: bytes (a CRC is believed, and the search after a damaged header finds every valid
one); buffered records, which leave no trace; space allocated ahead; a full disk; failed syncs of a
directory or of a `*.tmp`; a page cache that can't be dropped; damaged segment headers and lost
segments; the lock, readers and threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate, chain
from typing import Literal, NamedTuple, get_args

from proof.model_disk import (
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

Durability = Literal["disk", "os"]
Mode = Literal["crash", "damage"]


class Weakening(Enum):
    """A clause of the rule that the model can do without: the durability and the mode in which that
    breaks a promise, and what the weakened program does."""

    NO_SYNC_BEFORE_TRUST = "disk", "crash", "open trusts what it reads without syncing it first"
    NO_PAGE_DROP = "disk", "crash", "open reads pages that a failed sync left clean"
    NEWEST_CHECKPOINT_ONLY = "disk", "damage", "open refuses if a checkpoint does not verify"
    ROTTEN_IS_NO_EVIDENCE = "disk", "damage", "a checkpoint that does not verify is no evidence"
    LEFTOVER_STRICTLY_BELOW = "disk", "crash", "a segment that ends at the older checkpoint is read"
    DENSE_FROM_OLDER_CHECKPOINT = "disk", "damage", "LSNs have to be dense from the older one on"
    TORN_TAIL_ANYWHERE = "disk", "damage", "the log may end in a segment that is not the last"
    NO_TORN_TAIL = "disk", "crash", "a bad frame is always corruption"
    NO_EVIDENCE = "disk", "damage", "a bad frame in the last segment is always a torn tail"
    NO_EVIDENCE_AFTER_DAMAGE = "disk", "damage", "only headers before the bad frame are evidence"
    FRAMES_AFTER_MARK = "disk", "crash", "recovery reads the frames that follow a mark"
    NO_NEW_EPOCH = "disk", "crash", "after an open, the log goes on in the segment where it ends"
    NO_DIRECTORY_SYNC = "disk", "crash", "the directory is never synced"
    FRAME_BEFORE_NAME_SYNC = "disk", "crash", "a segment is written before its name is synced"
    ROLL_WITHOUT_SYNC = "os", "crash", "a segment is begun before the previous one is synced"
    ACKNOWLEDGE_BEFORE_SYNC = "disk", "crash", "a commit is acknowledged when it is written"
    PROMISE_AFTER_FAILED_SYNC = "os", "crash", "commits count as kept although their sync failed"
    MARK_STAYS = "disk", "crash", "frames follow a mark, and a sync covers the new frames only"
    SPLIT_BATCH = "disk", "crash", "a batch is spread over the frames of its commit"
    CHECKPOINT_BEFORE_LOG_SYNC = "os", "crash", "a checkpoint is published before the log is synced"
    DROP_BEFORE_PUBLISHED = (
        "disk",
        "damage",
        "segments are dropped before the checkpoint is durable",
    )
    DROP_BELOW_NEWEST = "disk", "crash", "what the newer of two checkpoints covers is dropped"
    ONE_CHECKPOINT_IS_ENOUGH = "disk", "crash", "what the only checkpoint covers is dropped"

    def __init__(self, durability: Durability, mode: Mode, what: str) -> None:
        self.durability: Durability = durability
        self.mode: Mode = mode
        self.what = what


@dataclass(frozen=True)
class Model:
    """What is searched: the rule, as it stands or weakened, and the bounds."""

    durability: Durability = "disk"
    mode: Mode = "crash"
    weakening: Weakening | None = None
    records: int = 3  # appended in all, with those that a crash takes back
    epochs: int = 2  # that write
    checkpoints: int = 2  # at a time
    frames: int = 2  # of one commit


OpeningPhase = Literal["opening", "names synced", "log synced", "leftovers removed"]
WritingPhase = Literal["idle", "rolling", "segment named", "written", "closing"]
Phase = OpeningPhase | WritingPhase | Literal["dead"]
OPENING = get_args(OpeningPhase)


class Compaction(NamedTuple):
    """The compaction under way: the checkpoint's LSN, and the steps that are still to do."""

    lsn: int
    steps: tuple[str, ...]


class Process(NamedTuple):
    """The program that owns the journal. `verified` are the LSNs of the checkpoints that it saw
    verify; `written` and `synced` are LSNs."""

    phase: Phase = "opening"
    epoch: int = 0
    synced: int = 0
    written: int = 0
    verified: tuple[int, ...] = ()
    compaction: Compaction | None = None


class Oracle(NamedTuple):
    """The truth, against which an open is held.

    log: the batches that were appended, without those that a crash took back.
    safe: the LSN up to which records were acknowledged to survive a power cut.
    alive: the LSN up to which they were acknowledged to survive the process.
    """

    log: tuple[tuple[int, ...], ...] = ()
    safe: int = 0
    alive: int = 0
    appended: int = 0

    @property
    def records(self) -> tuple[int, ...]:
        return tuple(chain(*self.log))

    @property
    def ends(self) -> list[int]:
        """The LSNs at which batches end, 0 first."""
        return list(accumulate(map(len, self.log), initial=0))


class State(NamedTuple):
    disk: Disk = Disk()
    process: Process = Process()
    oracle: Oracle = Oracle()


Step = tuple[str, State]


class BrokenPromiseError(Exception):
    """A promise of journal/docs/RELIABILITY.md does not hold."""


class RefusedError(Exception):
    """Open refuses: the model's CorruptionError."""


# --- the rule ---


@dataclass
class Log:
    """The log as far as it was read: the LSN that is due, the records, the evidence."""

    due: int
    evidence: int
    records: dict[int, int] = field(default_factory=dict)

    def read(self, segment: Segment, end: int | None, weakening: Weakening | None) -> bool:
        """Read a segment up to LSN `end`, where the next one begins. Return whether it ends with a
        bad frame."""
        is_bad = is_after_mark = False
        for cell in (slot.now for slot in segment.slots):
            if self.due == end:
                break  # what follows was cut away when the next segment was begun
            is_bad = is_bad or is_after_mark or cell.kind in ("header", "garbage")
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


def recover(disk: Disk, weakening: Weakening | None) -> tuple[int, ...]:
    """Return the records that an open yields, or raise RefusedError. This is the rule, from step 3
    of "Recovery" in journal/docs/FORMAT.md on; `opening` has the steps around it."""
    # Step 3. A checkpoint that does not verify is evidence by its name.
    found = disk.checkpoints
    verified = [checkpoint for checkpoint in found if checkpoint.verifies]
    if weakening is Weakening.NEWEST_CHECKPOINT_ONLY and found != verified:
        raise RefusedError("a checkpoint does not verify")
    base = verified[-1] if verified else Entry("checkpoint", 0)

    # Step 4. A removal that a crash cut short leaves any of the segments that it is about.
    ignored = base.lsn
    if weakening in (Weakening.DENSE_FROM_OLDER_CHECKPOINT, Weakening.LEFTOVER_STRICTLY_BELOW):
        ignored = verified[-2].lsn if len(verified) > 1 else 0
    ignored -= weakening is Weakening.LEFTOVER_STRICTLY_BELOW
    segments = tuple(
        segment
        for segment, after in with_next(disk.visible)
        if not after or after.first - 1 > ignored
    )
    witnesses = verified if weakening is Weakening.ROTTEN_IS_NO_EVIDENCE else found
    log = Log(segments[0].first if segments else 1, max((c.lsn for c in witnesses), default=0))
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

    # Step 5. The LSN that is due is the first that is lost, if any is.
    if log.evidence >= log.due and weakening is not Weakening.NO_EVIDENCE:
        raise RefusedError(f"the log ends before LSN {log.due}, but {log.evidence} was durable")
    if base.lsn >= log.due:
        raise RefusedError(f"the checkpoint at LSN {base.lsn} is past the end of the log")
    return base.records + tuple(log.records[lsn] for lsn in range(base.lsn + 1, log.due))


def check(yielded: tuple[int, ...], oracle: Oracle) -> None:
    """Hold what an open yields against P1, P2 and P3."""
    lsn, log = len(yielded), oracle.records
    if yielded != log[:lsn]:
        raise BrokenPromiseError(f"P1: open yields records {yielded}, appended were {log}")
    if lsn < oracle.alive:
        raise BrokenPromiseError(f"P2: open yields up to LSN {lsn} of {oracle.alive} acknowledged")
    if lsn not in oracle.ends:
        raise BrokenPromiseError(f"P3: open yields up to LSN {lsn}, batches were {oracle.log}")


def opening(state: State, model: Model) -> Iterator[Step]:
    """Yield the next step of an open. A crash may follow each of them."""
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
    else:
        disk = with_synced_names(disk, model)
        yield "open: sync the removal", State(disk, process._replace(phase="idle"), state.oracle)


def decide(state: State, model: Model) -> Step:
    """Decide what the journal holds, and remove leftovers only after that."""
    disk, _, oracle = state
    try:
        records = recover(disk, model.weakening)
    except RefusedError as refused:
        raise BrokenPromiseError(f"P5: open refuses: {refused}") from None
    check(records, oracle)
    lsn = len(records)
    verified = tuple(c.lsn for c in disk.checkpoints if c.verifies)[-2:]
    leftovers = covered(disk, verified[0]) if len(verified) == 2 else frozenset()
    highest = max((segment.epoch for segment in disk.visible), default=0)
    epoch = max(highest, 1) if model.weakening is Weakening.NO_NEW_EPOCH else highest + 1
    phase: Phase = "leftovers removed" if leftovers else "idle"
    # What the open yields is the log from now on, and all of it is synced.
    log = oracle.log[: oracle.ends.index(lsn)]
    return f"open succeeds at LSN {lsn}", State(
        disk.without(leftovers),
        Process(phase, epoch, lsn, lsn, verified),
        oracle._replace(log=log, safe=lsn, alive=lsn),
    )


def stopped(state: State, segment: Segment, slots: Slots, model: Model) -> State:
    """Stop after a failed sync. What was only written may be gone, as after a power cut."""
    oracle = state.oracle
    if model.weakening is not Weakening.PROMISE_AFTER_FAILED_SYNC:
        oracle = oracle._replace(alive=oracle.safe)
    return State(state.disk.with_slots(segment, slots), Process("dead"), oracle)


def with_synced_names(disk: Disk, model: Model) -> Disk:
    """Return the disk after a sync of the directory, if the model makes them."""
    return disk if model.weakening is Weakening.NO_DIRECTORY_SYNC else disk.with_synced_names()

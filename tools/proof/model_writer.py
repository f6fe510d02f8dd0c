"""The writer and the compactor of the recovery model, as the steps that they may take next."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from proof.model_disk import (
    Cell,
    Disk,
    Entry,
    Segment,
    Slots,
    after_failed_sync,
    checkpoints,
    covered,
    sync,
    write,
)
from proof.recovery_model import (
    STATE_APPLICATION,
    Compaction,
    Model,
    Outcome,
    Process,
    State,
    Step,
    Sync,
    Weakening,
    stating_application,
    stopped,
    with_synced_names,
)


def writing(state: State, model: Model) -> Iterator[Step]:
    """Yield each step that the writer may take next."""
    disk, p, _ = state
    last = disk.segments[-1] if disk.segments and disk.segments[-1].epoch == p.epoch else None
    has_more = state.oracle.appended < model.records
    if p.in_flight and last:
        yield from ends(state, last, model)
    if p.phase == "idle" and p.in_flight and last:
        if len(p.in_flight) < model.syncs:
            yield from commits(state, last, model)
        if has_more and model.weakening is Weakening.SEAL_IN_FLIGHT:
            rolling = p._replace(phase="rolling", in_flight=())
            yield from sync_log("roll: sync the segment", state, rolling, model)
    elif p.phase == "idle" and last:
        if not disk.checkpoints and model.weakening is Weakening.APPLICATION_AFTER_SEGMENT:
            yield STATE_APPLICATION, stating_application(state, p)
        yield from commits(state, last, model)
        yield "write a mark", state._replace(disk=with_mark(disk, last, p, model))
        if has_more and p.written >= last.first:
            rolling = p._replace(phase="rolling")
            if model.weakening is Weakening.ROLL_WITHOUT_SYNC:
                yield "roll without a sync", state._replace(process=rolling)
            else:
                yield from sync_log("roll: sync the segment", state, rolling, model)
        if not p.compaction:
            closing = p._replace(phase="closing")
            yield from sync_log("close: sync the segment", state, closing, model)
    elif p.phase == "rolling" or (p.phase == "idle" and has_more and p.epoch <= model.epochs):
        # The header was written to a `*.tmp` file and synced. The rename makes it visible.
        born = Segment(p.written + 1, p.epoch)
        disk = Disk((*disk.segments, born), disk.names | {born.name}, disk.synced_names)
        is_hasty = model.weakening is Weakening.FRAME_BEFORE_NAME_SYNC
        process = p._replace(phase="idle" if is_hasty else "segment named")
        label = f"give segment {born.first} of epoch {born.epoch} its name"
        yield label, state._replace(disk=disk, process=process)
    elif p.phase == "segment named":
        disk = with_synced_names(disk, model)
        yield "sync the segment's name", state._replace(disk=disk, process=p._replace(phase="idle"))
    elif p.phase == "written" and last:
        begun = Sync(last.slots[-1].now.commit, p.written, len(last.slots))
        process = p._replace(phase="idle", in_flight=(*p.in_flight, begun))
        yield f"begin the sync of LSN {p.written}", state._replace(process=process)
    elif p.phase == "closing" and last:
        disk = with_mark(disk, last, p, model)
        yield "close: write a mark", state._replace(disk=disk, process=Process("dead"))


def commits(state: State, last: Segment, model: Model) -> Iterator[Step]:
    """Yield each commit that the bounds allow; a frame has one record or two."""
    oracle = state.oracle
    for count in range(1, model.frames + 1):
        for sizes in product((1, 2), repeat=count):
            if oracle.appended + sum(sizes) <= model.records:
                yield commit(state, last, sizes, model)


def commit(state: State, last: Segment, sizes: tuple[int, ...], model: Model) -> Step:
    """Write one frame for each of `sizes`, the counts of their records."""
    disk, p, oracle = state
    slots, batches, lsn, record = last.slots, oracle.log, p.written + 1, oracle.appended
    oldest = p.in_flight[0].first if p.in_flight else lsn
    durable = p.synced
    if model.weakening is Weakening.STATE_WRITTEN_AS_DURABLE:
        durable = p.written
    if model.weakening is Weakening.STATE_NOTHING_DURABLE:
        durable = 0
    for at, size in enumerate(sizes, end_of(last, p, model)):
        batch = tuple(range(record, record + size))
        slots = write(slots, at, Cell("frame", lsn, batch, durable, p.written + 1, oldest))
        batches, lsn, record = (*batches, batch), lsn + size, record + size
    if model.weakening is Weakening.SPLIT_BATCH:
        batches = (*oracle.log, tuple(range(oracle.appended, record)))
    oracle, process = oracle._replace(log=batches, appended=record), p._replace(written=lsn - 1)
    if model.durability == "os" or model.weakening is Weakening.ACKNOWLEDGE_BEFORE_SYNC:
        oracle = oracle._replace(alive=lsn - 1)
    if model.weakening is Weakening.ACKNOWLEDGE_BEFORE_SYNC:
        oracle = oracle._replace(safe=lsn - 1)
    if model.durability == "disk":
        process = process._replace(phase="written")
    label = f"write {' and '.join(f'a frame of {size}' for size in sizes)}"
    return label, State(disk.with_slots(last, slots), process, oracle)


def end_of(last: Segment, p: Process, model: Model) -> int:
    """Return the place of the next frame or mark, which is over a mark if one is at the end."""
    slots = last.slots
    if model.weakening is Weakening.NO_NEW_EPOCH:  # torn frames may follow the end
        due = last.first
        for at, (cell, _) in enumerate(slots):
            if cell.kind != "frame" or cell.first != due or due > p.written:
                return at
            due += len(cell.records)
        return len(slots)
    is_over = slots and slots[-1].now.kind == "mark"
    return len(slots) - bool(is_over and model.weakening is not Weakening.MARK_STAYS)


def with_mark(disk: Disk, last: Segment, p: Process, model: Model) -> Disk:
    """Return the disk with a mark written, unless the end has a mark with the same durable LSN."""
    slots = last.slots
    end = slots[-1].now if slots else None
    if not end or (end.kind == "mark" and end.durable == p.synced):
        return disk
    mark = Cell("mark", p.written + 1, (), p.synced)
    return disk.with_slots(last, write(slots, end_of(last, p, model), mark))


def sync_log(label: str, state: State, then: Process, model: Model) -> Iterator[Step]:
    """Yield each outcome of a sync: all written records are safe, or the journal stops."""
    disk, _, oracle = state
    last = disk.segments[-1]
    start = start_of(last.slots, model)
    old, new = last.slots[:start], last.slots[start:]
    acknowledged = oracle._replace(safe=then.written, alive=then.written)
    synced = disk.with_slots(last, old + sync(new))
    yield label, State(synced, then._replace(synced=then.written), acknowledged)
    for failed in after_failed_sync(new):
        yield f"{label}: FAILS", stopped(state, last, old + failed, model)


def start_of(slots: Slots, model: Model) -> int:
    """Return the place from which a sync of `slots` covers them."""
    if slots and model.weakening is Weakening.MARK_STAYS:  # only the last commit's own bytes
        return [slot.now.commit for slot in slots].index(slots[-1].now.commit)
    return 0


def ends(state: State, last: Segment, model: Model) -> Iterator[Step]:
    """Yield each end of a sync in flight, and the stop after one that has failed."""
    disk, p, _ = state
    for at, each in enumerate(p.in_flight):
        start = start_of(last.slots[: each.end], model)
        old, new, later = last.slots[:start], last.slots[start : each.end], last.slots[each.end :]
        label = f"the sync of LSN {each.last}"
        if each.outcome == "failure":
            yield f"stop, because {label} has failed", stopped(state, last, last.slots, model)
        if each.outcome:
            continue
        after = ended(p.in_flight, range(at, at + 1), "success")
        synced = state._replace(disk=disk.with_slots(last, old + sync(new) + later))
        yield f"{label} succeeds", acknowledge(synced, after, at, model)
        is_alone = model.weakening is Weakening.ONE_FILE_DESCRIPTION
        after = ended(p.in_flight, range(at if is_alone else 0, at + 1), "failure")
        for failed in after_failed_sync(new):
            lost = state._replace(disk=disk.with_slots(last, old + failed + later))
            yield f"{label} FAILS", acknowledge(lost, after, at, model)


def ended(syncs: tuple[Sync, ...], places: range, outcome: Outcome) -> tuple[Sync, ...]:
    """Return the syncs after those in `places` that were under way have ended."""
    return tuple(
        each._replace(outcome=outcome) if at in places and not each.outcome else each
        for at, each in enumerate(syncs)
    )


def acknowledge(state: State, syncs: tuple[Sync, ...], at: int, model: Model) -> State:
    """Return the state after the sync at `at` has ended: the commits before the first sync that is
    under way or has failed are acknowledged."""
    _, p, oracle = state
    synced = p.synced
    if model.weakening is Weakening.ACKNOWLEDGE_OUT_OF_ORDER and syncs[at].outcome == "success":
        synced = max(synced, syncs[at].last)
    final = {"success"}
    if model.weakening is Weakening.ACKNOWLEDGE_AFTER_FAILED_SYNC:
        final.add("failure")
    while syncs and syncs[0].outcome in final:
        if syncs[0].outcome == "success":
            synced = max(synced, syncs[0].last)
        syncs = syncs[1:]
    if synced > p.synced:
        oracle = oracle._replace(safe=synced, alive=synced)
    return State(state.disk, p._replace(synced=synced, in_flight=syncs), oracle)


# --- the compactor ---


def compacting(state: State, model: Model) -> Iterator[Step]:
    """Yield the compactor's next step, if it has one. Commits may happen between the steps."""
    disk, p, oracle = state
    if not p.compaction:
        yield from begin_compaction(state, model)
        return
    lsn, (step, *rest) = p.compaction
    after = p._replace(compaction=Compaction(lsn, tuple(rest)) if rest else None)
    if step == "rename":
        made = Entry("checkpoint", lsn, records=oracle.records[:lsn])
        disk = disk._replace(names=disk.names | {made})
    elif step == "sync":
        disk = with_synced_names(disk, model)
    else:
        verified = tuple(sorted({*p.verified, lsn}))[-2:]
        is_enough = len(verified) == 2 or model.weakening is Weakening.ONE_CHECKPOINT_IS_ENOUGH
        if is_enough:
            is_greedy = model.weakening is Weakening.DROP_BELOW_NEWEST
            disk = disk.without(covered(disk, verified[-1 if is_greedy else 0]))
        after = after._replace(verified=verified)
    yield f"checkpoint {lsn}: {step}", State(disk, after, oracle)


def begin_compaction(state: State, model: Model) -> Iterator[Step]:
    """Yield the start of each checkpoint after the newest one.

    A compaction's is at the end of the log. A trim's may be anywhere in the log.
    """
    disk, p, _ = state
    existing = checkpoints(disk.names | disk.synced_names)
    lsns = {checkpoint.lsn for checkpoint in existing if checkpoint.lsn}  # 0: no compaction
    if len(lsns) >= model.checkpoints:
        return
    for lsn in range(max(lsns, default=0) + 1, p.written + 1):
        is_hasty = model.weakening is Weakening.DROP_BEFORE_PUBLISHED
        steps = ("rename", "drop", "sync") if is_hasty else ("rename", "sync", "drop", "sync")
        begun = p._replace(compaction=Compaction(lsn, steps))
        if lsn <= p.synced or model.weakening is Weakening.CHECKPOINT_BEFORE_LOG_SYNC:
            yield f"checkpoint {lsn}: begin", state._replace(process=begun)
        elif p.phase == "idle" and model.durability == "os":
            yield from sync_log(f"checkpoint {lsn}: sync the log, begin", state, begun, model)

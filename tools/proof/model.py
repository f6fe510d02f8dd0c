"""Search all states of a model of the journal for one that breaks a promise.

Within the bounds, every state that the writer, the compactor and open can reach is crashed in
every way and reopened. The search is breadth first, so a broken promise is printed with the
shortest sequence of steps that leads to it; the exit code is then 1. The module
tools/proof/recovery_model.py lists what is modeled and what is not.

Mode "crash": open succeeds (P5). It yields a prefix of the appended records (P1), with every
acknowledged record (P2) and no incomplete batch (P3). Once a record is acknowledged, a checkpoint
states the application (P6).

Mode "damage": one checkpoint may stop verifying at any moment. The promises above have to hold
nonetheless, because there is a second checkpoint. Also, after each crash, each durable frame and
mark is damaged, one at a time. Then open must refuse, or lose nothing, with one exception: if no
evidence is left on disk, it may lose the last commit and those in flight together with it, or with
durability "os" the unsynced commits. It must not refuse if no acknowledged record is damaged (P4).
Neighboring frames and marks are damaged together, too. Each time, the rule is compared with the
older one, which refuses all damage in the log after the segment's beginning. The rule may open
where the older one refuses, but only if nothing acknowledged is lost. The journal then continues to
be used, and the promises of mode "crash" have to hold.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from typing import get_args

from proof import search
from proof.model_disk import (
    GARBAGE,
    Cell,
    Disk,
    Entry,
    Segment,
    Slot,
    checkpoints,
    drop_pages,
    sync,
    with_next,
)
from proof.model_writer import compacting, writing
from proof.recovery_model import (
    OPENING,
    Durability,
    Mode,
    Model,
    Oracle,
    Process,
    RefusedError,
    State,
    Step,
    Weakening,
    check,
    opening,
    recover,
)
from proof.search import BrokenPromiseError

BOUNDS = {
    "records": "records appended, including those that a crash loses",
    "epochs": "epochs in which segments are written",
    "checkpoints": "checkpoints of compactions that exist at a time",
    "frames": "frames of one commit",
    "syncs": 'syncs in flight at a time, with durability "disk"',
    "neighbors": "neighboring frames and marks damaged at a time",
}
PROVED: dict[Mode, str] = {
    "crash": """\
After any crashes, open succeeds (P5) and yields a prefix of the log (P1), with every acknowledged
record (P2) and no incomplete batch (P3). Once a record is acknowledged, a checkpoint states the
application (P6).""",
    "damage": """\
The promises of mode "crash" hold also if one checkpoint does not verify. If damage to a frame or
mark loses acknowledged records and evidence of them is left on disk, open refuses (P4). An open
that passes over neighboring frames and marks that are damaged loses no acknowledged record.""",
}
LEGEND = """\
1-2[frame 3/0?]: the segment from LSN 1, epoch 2, with a frame from LSN 3 that states durable LSN 0.
? marks unsynced contents, + an unsynced new name, - an unsynced removal."""


@dataclass
class Result(search.Result):
    """The result of a search.

    crashes: the number of crashes that were searched.
    damage: the number of damaged frames and marks, by outcome.
    passed_over: the number of states with damage that only the rule of today passes over.
    """

    crashes: int = 0
    damage: Counter[str] = field(default_factory=Counter)
    passed_over: int = 0


def explore(model: Model) -> Result:
    """Search the states of the model until a promise is broken or all states are visited."""
    began, result, state = time.monotonic(), Result(), State()
    came_from: dict[State, tuple[State | None, str]] = {state: (None, "an empty directory")}
    todo = deque([state])
    try:
        while todo:
            state = todo.popleft()
            result.states += 1
            is_damaged = state.process.phase == "opening" and not state.oracle.passed_over
            if model.mode == "damage" and is_damaged:
                result.damage += damage(state, model)
            for is_crash, reached in (False, steps(state, model)), (True, crashes(state)):
                for label, after in reached:
                    result.crashes += is_crash
                    if after not in came_from:
                        came_from[after] = state, label
                        result.passed_over += (
                            after.oracle.passed_over and not state.oracle.passed_over
                        )
                        todo.append(after)
    except BrokenPromiseError as broken:
        result.broken = str(broken)
        at: State | None = state
        while at is not None:
            before, label = came_from[at]
            result.trace.insert(0, f"{label:44} {describe(at.disk)}".rstrip())
            at = before
    result.seconds = time.monotonic() - began
    return result


def steps(state: State, model: Model) -> Iterator[Step]:
    """Yield each step that may happen next, except crashes."""
    if state.process.phase in OPENING:
        yield from opening(state, model)
    elif state.process.phase != "dead":
        yield from writing(state, model)
        yield from compacting(state, model)
    if model.mode == "damage" and not state.oracle.passed_over:
        yield from rot(state)
        if state.process.phase == "log synced":  # from here on, the checkpoint can't be lost
            yield from passing_over(state, model)


def crashes(state: State) -> Iterator[Step]:
    """Yield the state after a kill, which keeps the page cache, and after each power cut."""
    yield "KILL", state._replace(process=Process())
    oracle = state.oracle._replace(alive=state.oracle.safe)
    for disk in state.disk.after_power_cut():
        yield "POWER CUT", State(disk, Process(), oracle)


# --- damage ---


def rot(state: State) -> Iterator[Step]:
    """Yield the state after each checkpoint stops verifying, unless one did before."""
    disk = state.disk
    if all(name.verifies for name in disk.names | disk.synced_names):
        for checkpoint in checkpoints(disk.names & disk.synced_names):
            rotten = {checkpoint._replace(verifies=False)}
            names = disk.names - {checkpoint} | rotten
            synced_names = disk.synced_names - {checkpoint} | rotten
            after = disk._replace(names=names, synced_names=synced_names)
            yield f"checkpoint {checkpoint.lsn} IS DAMAGED", state._replace(disk=after)


def damage(state: State, model: Model) -> Counter[str]:
    """Damage each durable frame and mark, one at a time, and count the outcomes."""
    outcomes: Counter[str] = Counter()
    for segment, after in with_next(state.disk.visible):
        for at, (cell, possible) in enumerate(segment.slots):
            if possible != (cell,):
                continue
            is_cut_away = after is not None and cell.first >= after.first
            is_acknowledged = cell.kind == "frame" and cell.first <= state.oracle.alive
            for bad in damaged(cell):
                slots = (*segment.slots[:at], Slot(bad, (bad,)), *segment.slots[at + 1 :])
                disk = state.disk.with_slots(segment, slots)
                is_loss = is_acknowledged and not is_cut_away
                outcomes[judge(disk, state.oracle, cell, is_loss, model)] += 1
    return outcomes


def passing_over(state: State, model: Model) -> Iterator[Step]:
    """Damage neighboring frames and marks, and yield each state in which only an open that passes
    over the damage succeeds. Raises BrokenPromiseError if such an open loses anything acknowledged,
    or if the rule opens differently where the older one opens, too."""
    for segment in state.disk.visible:
        for places in neighbors(segment, model.neighbors):
            for bad in product(*(damaged(segment.slots[at].now) for at in places)):
                slots = list(segment.slots)
                for at, cell in zip(places, bad, strict=True):
                    slots[at] = Slot(cell, (cell,))
                disk = state.disk.with_slots(segment, tuple(slots))
                lsns = ", ".join(str(segment.slots[at].now.first) for at in places)
                if is_passed_over(disk, state.oracle, f"damage to LSN {lsns}", model):
                    oracle = state.oracle._replace(passed_over=True)
                    yield f"frames at LSN {lsns} ARE DAMAGED", State(disk, state.process, oracle)


def neighbors(segment: Segment, most: int) -> Iterator[range]:
    """Yield the places of each group of up to `most` neighboring frames and marks, all durable."""
    for begin in range(len(segment.slots)):
        for end in range(begin + 1, min(begin + most, len(segment.slots)) + 1):
            cell, possible = segment.slots[end - 1]
            if possible != (cell,) or not damaged(cell):
                break
            yield range(begin, end)


def is_passed_over(disk: Disk, oracle: Oracle, event: str, model: Model) -> bool:
    """Return whether the journal opens only because damage is passed over. Raises
    BrokenPromiseError if that loses anything acknowledged."""
    last = disk.visible[-1]
    disk = disk.with_slots(last, drop_pages(sync(last.slots)))
    older: tuple[int, ...] | None = None
    with suppress(RefusedError):
        older = recover(disk, model.weakening, passes_over_damage=False)
    try:
        yielded = recover(disk, model.weakening)
    except RefusedError as refused:
        if older is None:
            return False
        raise BrokenPromiseError(f"P5: {event}, open refuses: {refused}") from None
    if older is None:
        check(yielded, oracle)
    elif yielded != older:
        raise BrokenPromiseError(f"P2: {event}, open yields {yielded}, and not {older}")
    return older is None


def damaged(cell: Cell) -> tuple[Cell, ...]:
    """Return the cells that damage may leave of a frame or a mark."""
    if cell.kind == "frame":
        return cell._replace(kind="header"), GARBAGE
    return (GARBAGE,) if cell.kind == "mark" else ()


def judge(disk: Disk, oracle: Oracle, was: Cell, is_loss: bool, model: Model) -> str:
    """Return the outcome of the damage to `was`, or raise BrokenPromiseError if it breaks P4.

    `is_loss` is true if acknowledged records were damaged.
    """
    event = f"the {was.kind} at LSN {was.first} is damaged"
    last = disk.visible[-1]
    disk = disk.with_slots(last, drop_pages(sync(last.slots)))
    try:
        yielded = recover(disk, model.weakening)
    except RefusedError as refused:
        if is_loss:
            return "open refuses"
        raise BrokenPromiseError(f"P4: {event}, nothing is lost, open refuses: {refused}") from None
    check(yielded, oracle._replace(alive=0))
    if len(yielded) >= oracle.alive:
        return "nothing is lost"
    # Acknowledged records are lost silently. Is any evidence of them left on disk?
    cells = [slot.now for segment in disk.visible for slot in segment.slots]
    evidence = [f"{c.kind} at LSN {c.first}" for c in cells if c.durable >= was.first]
    evidence += [f"{n.kind} {n.lsn}" for n in sorted(disk.names) if proves(n, was.first)]
    if evidence or not is_loss:
        lost = f"open yields up to LSN {len(yielded)} of {oracle.alive} acknowledged"
        raise BrokenPromiseError(f"P4: {event}, {lost}, evidence: {', '.join(evidence)}")
    # A later segment would be evidence, so all lost frames were in the last segment.
    cells = [was, *(slot.now for slot in disk.visible[-1].slots)]
    frames = [c for c in cells if c.kind == "frame" and was.first <= c.first <= oracle.alive]
    if len({frame.commit for frame in frames}) == 1:
        return "one commit is lost, without evidence"
    if all(frame.oldest <= was.commit for frame in frames):
        return "commits that were in flight together are lost, without evidence"
    if model.durability == "disk":
        raise BrokenPromiseError(
            f"P4: {event}, open loses commits that were not in flight together"
        )
    return "unsynced commits are lost, without evidence"


def proves(name: Entry, lsn: int) -> bool:
    """Return whether a file proves by its name that the record at `lsn` was durable."""
    return name.lsn >= lsn if name.kind == "checkpoint" else name.lsn > lsn


# --- the command ---


def describe(disk: Disk) -> str:
    """Return the disk as one line, in the notation of LEGEND."""

    def sign(name: Entry) -> str:
        signs = {(True, False): "+", (False, True): "-"}
        return signs.get((name in disk.names, name in disk.synced_names), "")

    parts = []
    for segment in disk.segments:
        contents = ", ".join(
            (f"{cell.kind} {cell.first}/{cell.durable}" if cell != GARBAGE else cell.kind)
            + "?" * (len(possible) > 1)
            for cell, possible in segment.slots
        )
        parts.append(f"{sign(segment.name)}{segment.first}-{segment.epoch}[{contents}]")
    for name in checkpoints(disk.names | disk.synced_names):
        damage_mark = "" if name.verifies else " (damaged)"
        parts.append(f"{sign(name)}checkpoint {name.lsn}{damage_mark}")
    return "  ".join(parts)


def show(model: Model, result: Result) -> None:
    """Print the size of the search and its result."""
    weakened = f", {model.weakening.name.lower()}" if model.weakening else ""
    counts = f"{result.states:,} states, {result.crashes:,} crashes"
    search.show(f"{model.durability}, {model.mode}{weakened}", counts, result)
    if result.broken:
        print(f"\n{LEGEND}")
    else:
        for outcome, count in sorted(result.damage.items()):
            print(f"{count:12,} frames or marks damaged: {outcome}")
        if result.passed_over:
            print(f"{result.passed_over:12,} states with damage that open passes over")


def main(arguments: list[str]) -> int:
    """Search the models that the arguments name, and return the exit code."""
    parser = search.command_line(
        "model",
        __doc__,
        {weakening.name.lower(): weakening.behavior for weakening in Weakening},
        "remove a clause of the rule, in the durability and mode where that breaks a promise",
        {name: (text, getattr(Model, name)) for name, text in BOUNDS.items()},
    )
    parser.add_argument("--durability", choices=get_args(Durability), help="default: both")
    parser.add_argument("--mode", choices=get_args(Mode), help="default: both")
    options = parser.parse_args(arguments)
    weakening = Weakening[options.weaken.upper()] if options.weaken else None
    durabilities, modes = get_args(Durability), get_args(Mode)
    if weakening:
        durabilities, modes = (weakening.durability,), (weakening.mode,)
    if options.durability:
        durabilities = (options.durability,)
    if options.mode:
        modes = (options.mode,)
    bounds = {name: getattr(options, name) for name in BOUNDS}
    for durability, mode in product(durabilities, modes):
        model = Model(durability, mode, weakening, **bounds)
        result = explore(model)
        show(model, result)
        if result.broken:
            return 1
    within = ", ".join(f"{name} {bound}" for name, bound in bounds.items())
    subject = "weakened model" if weakening else "model"
    print(f"\nProved of the {subject}, within the bounds ({within}):\n")
    print("\n\n".join(PROVED[mode] for mode in modes))
    return 0

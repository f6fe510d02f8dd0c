"""Search all states of a model of the mirror for one that breaks a promise.

Within the bounds, every state that the writers, their requests and a reader can reach is visited,
breadth first. A broken promise is printed with the shortest sequence of steps that leads to it; the
exit code is then 1. The module tools/proof/mirror_model.py lists what is modelled and what is not.

The promises: an entry is acknowledged only to the writer whose claim stands, or if the next claim
follows it; each claim that stands follows every acknowledged entry; whatever is rolled up, trimmed
and deleted, a new reader finds every entry; a reader takes only bytes that follow the log's, and
that are the log's.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from dataclasses import dataclass, field
from typing import get_args

from proof.mirror_model import check, steps
from proof.mirror_states import BrokenPromiseError, Kind, Model, State, Weakening, initial

BOUNDS = {
    "writers": "processes that claim",
    "numbers": "numbers of entries",
    "blobs": "blobs that exist at a time",
}


@dataclass
class Result:
    """The result of a search.

    states: the number of states that were searched.
    broken: the promise that does not hold, if any.
    trace: the shortest sequence of steps that breaks it, one line for each.
    """

    states: int = 0
    seconds: float = 0.0
    broken: str | None = None
    trace: list[str] = field(default_factory=list)


def explore(model: Model) -> Result:
    """Search the states of the model until a promise is broken or all states are visited."""
    began, result, state = time.monotonic(), Result(), initial(model)
    came_from: dict[State, tuple[State | None, str]] = {state: (None, "an empty store")}
    todo = deque([state])
    try:
        while todo:
            state = todo.popleft()
            result.states += 1
            check(state, model)
            for label, after in steps(state, model):
                if after not in came_from:
                    came_from[after] = state, label
                    todo.append(after)
    except BrokenPromiseError as broken:
        result.broken = str(broken)
        at: State | None = state
        while at is not None:
            at, label = came_from[at]
            result.trace.insert(0, label)
    result.seconds = time.monotonic() - began
    return result


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    table = "\n".join(f"  {w.name.lower():32}{w.value}" for w in Weakening)
    parser = argparse.ArgumentParser(
        prog="python tools/proof mirror",
        description=__doc__,
        epilog=f"weakenings:\n{table}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kind", choices=get_args(Kind), help="default: both")
    parser.add_argument(
        "--weaken",
        metavar="NAME",
        choices=[weakening.name.lower() for weakening in Weakening],
        help="remove a clause of the protocol, with a store of objects",
    )
    bounds = parser.add_argument_group("bounds, each 1 or more")
    for name, description in BOUNDS.items():
        default = getattr(Model, name)
        text = f"{description}; default: {default}"
        bounds.add_argument(f"--{name}", type=int, metavar="N", default=default, help=text)
    options = parser.parse_args(arguments)
    if min(getattr(options, name) for name in BOUNDS) < 1:
        parser.error("each bound must be 1 or more")
    return options


def main(arguments: list[str]) -> int:
    """Search the models that the arguments name, and return the exit code."""
    options = parse(arguments)
    weakening = Weakening[options.weaken.upper()] if options.weaken else None
    kinds: tuple[Kind, ...] = ("objects",) if weakening else get_args(Kind)
    if options.kind:
        kinds = (options.kind,)
    bounds = {name: getattr(options, name) for name in BOUNDS}
    for kind in kinds:
        result = explore(Model(kind, weakening, **bounds))
        weakened = f", {weakening.name.lower()}" if weakening else ""
        verdict = f"BROKEN\n\n{result.broken}" if result.broken else "all promises hold"
        counts = f"{result.states:,} states, {result.seconds:.1f} s"
        print(f"{kind}{weakened}: {counts}: {verdict}", flush=True)
        if result.broken:
            print("\nThe shortest sequence of steps that breaks it:\n")
            for number, line in enumerate(result.trace):
                print(f"{number:4}  {line}")
            return 1
    return 0

"""Search all states of a model of leases for one that breaks a promise.

Within the bounds, every state that managers, workers and their messages can reach is visited,
breadth first. A broken promise is printed with the shortest sequence of steps that leads to it; the
exit code is then 1. The module tools/proof/leases_model.py lists what is modelled and what is not.

The promises: a report is recorded at most once, for the lease in which it was made, and not after
the end of that lease; what a worker was told is never undone by a failover: a start, a recorded
report, the end of a lease; and a lease that does not count as lost has not begun.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from typing import get_args

from proof.leases_model import (
    BrokenPromiseError,
    Kind,
    Model,
    State,
    Weakening,
    check,
    initial,
    steps,
)
from proof.mirror import Result

BOUNDS = {
    "workers": "worker processes",
    "leases": "leases that are ever made",
    "managers": "managers that follow each other",
    "records": "records of the log",
}


def explore(model: Model) -> Result:
    """Search the states of the model until a promise is broken or all states are visited."""
    began, result, state = time.monotonic(), Result(), initial(model)
    came_from: dict[State, tuple[State | None, str]] = {state: (None, "a queued agent")}
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


def main(arguments: list[str]) -> int:
    """Search the models that the arguments name, and return the exit code."""
    table = "\n".join(f"  {w.name.lower():24}{w.value}" for w in Weakening)
    parser = argparse.ArgumentParser(
        prog="python tools/proof leases",
        description=__doc__,
        epilog=f"weakenings:\n{table}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kind", choices=get_args(Kind), help="default: both")
    parser.add_argument(
        "--weaken",
        metavar="NAME",
        choices=[weakening.name.lower() for weakening in Weakening],
        help="remove a clause of the protocol",
    )
    for name, description in BOUNDS.items():
        default = Model._field_defaults[name]
        text = f"{description}; default: {default}"
        parser.add_argument(f"--{name}", type=int, metavar="N", default=default, help=text)
    options = parser.parse_args(arguments)
    bounds = {name: getattr(options, name) for name in BOUNDS}
    if min(bounds.values()) < 1:
        parser.error("each bound must be 1 or more")
    weakening = Weakening[options.weaken.upper()] if options.weaken else None
    kinds: tuple[Kind, ...] = (options.kind,) if options.kind else get_args(Kind)
    code = 0
    for kind in kinds:
        result = explore(Model(kind, weakening, **bounds))
        verdict = f"BROKEN\n\n{result.broken}\n" if result.broken else "all promises hold"
        print(f"{kind}: {result.states:,} states, {result.seconds:.1f} s: {verdict}", flush=True)
        for number, line in enumerate(result.trace):
            print(f"{number:4}  {line}")
        code |= int(result.broken is not None)
    return code

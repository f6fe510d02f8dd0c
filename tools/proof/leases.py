"""Search all states of a model of leases for one that breaks a promise.

Within the bounds, every state that managers, workers and their messages can reach is visited,
breadth first. A broken promise is printed with the shortest sequence of steps that leads to it; the
exit code is then 1. The module tools/proof/leases_model.py lists what is modeled and what is not.

The promises: a report is recorded at most once, for the lease in which it was made, and not after
the end of that lease. A failover never undoes a start, a recorded report or the end of a lease that
a worker has been informed of. A lease that does not count as lost has not begun.
"""

from __future__ import annotations

from typing import get_args

from proof.leases_model import Kind, Model, Weakening, check, initial, steps
from proof.search import Result, command_line, search, show

BOUNDS = {
    "workers": "worker processes",
    "leases": "leases that are ever made",
    "managers": "managers that follow each other",
    "records": "records of the log",
}


def explore(model: Model) -> Result:
    """Search the states of the model until a promise is broken or all states are visited."""
    return search(
        initial(model),
        "a queued agent",
        check=lambda state: check(state, model),
        steps=lambda state: steps(state, model),
    )


def main(arguments: list[str]) -> int:
    """Search the models that the arguments name, and return the exit code."""
    parser = command_line(
        "leases",
        __doc__,
        {weakening.name.lower(): weakening.value for weakening in Weakening},
        "remove a clause of the protocol",
        {name: (text, getattr(Model(), name)) for name, text in BOUNDS.items()},
    )
    parser.add_argument("--kind", choices=get_args(Kind), help="default: both")
    options = parser.parse_args(arguments)
    weakening = Weakening[options.weaken.upper()] if options.weaken else None
    kinds: tuple[Kind, ...] = (options.kind,) if options.kind else get_args(Kind)
    bounds = {name: getattr(options, name) for name in BOUNDS}
    code = 0
    for kind in kinds:
        result = explore(Model(kind, weakening, **bounds))
        show(kind, f"{result.states:,} states", result)
        code |= int(result.broken is not None)
    return code

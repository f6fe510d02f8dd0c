"""Search all states of a model of the mirror for one that breaks a promise.

Within the bounds, every state that the writers, their requests and a reader can reach is visited,
breadth first. A broken promise is printed with the shortest sequence of steps that leads to it; the
exit code is then 1. The module tools/proof/mirror_model.py lists what is modeled and what is not.

The promises: an entry is acknowledged only to the writer whose claim stands, or if the next claim
follows it. Each claim that stands follows every acknowledged entry. A new reader finds every entry,
whatever is rolled up, trimmed and deleted. A reader takes only bytes of the log, and each after
those before it.
"""

from __future__ import annotations

from typing import get_args

from proof.mirror_model import check, steps
from proof.mirror_states import Kind, Model, Weakening, initial
from proof.search import Result, command_line, search, show

BOUNDS = {
    "writers": "processes that claim",
    "numbers": "numbers of entries",
    "blobs": "blobs that exist at a time",
}


def explore(model: Model) -> Result:
    """Search the states of the model until a promise is broken or all states are visited."""
    return search(
        initial(model),
        "an empty store",
        check=lambda state: check(state, model),
        steps=lambda state: steps(state, model),
    )


def main(arguments: list[str]) -> int:
    """Search the models that the arguments name, and return the exit code."""
    parser = command_line(
        "mirror",
        __doc__,
        {weakening.name.lower(): weakening.value for weakening in Weakening},
        "remove a clause of the protocol, with a store of objects",
        {name: (text, getattr(Model, name)) for name, text in BOUNDS.items()},
    )
    parser.add_argument("--kind", choices=get_args(Kind), help="default: both")
    options = parser.parse_args(arguments)
    weakening = Weakening[options.weaken.upper()] if options.weaken else None
    kinds: tuple[Kind, ...] = ("objects",) if weakening else get_args(Kind)
    if options.kind:
        kinds = (options.kind,)
    bounds = {name: getattr(options, name) for name in BOUNDS}
    for kind in kinds:
        result = explore(Model(kind, weakening, **bounds))
        weakened = f", {weakening.name.lower()}" if weakening else ""
        show(f"{kind}{weakened}", f"{result.states:,} states", result)
        if result.broken:
            return 1
    return 0

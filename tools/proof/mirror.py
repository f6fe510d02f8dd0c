"""Search all states of two models of the mirror for one that breaks a promise.

Within the bounds, every state that the processes and their requests can reach is visited, breadth
first. A broken promise is printed with the shortest sequence of steps that leads to it; the exit
code is then 1. The modules tools/proof/mirror_model.py and fork_model.py list what is modeled and
what is not.

The promises of a store, of objects or a stream: an entry is acknowledged only to the writer whose
claim stands, or if the next claim follows it. Each claim that stands follows every acknowledged
entry. A new reader finds every entry, whatever is rolled up, trimmed and deleted. A reader takes
only bytes of the log, and each after those before it.

The promises of directories that come back to their mirror: none replaces records that the mirror
has. Of a directory that is put aside, only records that the mirror had count as mirrored, and all
that it had acknowledged to the directory do. Damage that the mirror can fix changes nothing else.
"""

from __future__ import annotations

from typing import get_args

from proof import fork_model
from proof.fork_states import Forgetting, ForkModel, Home, World
from proof.mirror_model import check, steps
from proof.mirror_states import Kind, Model, Weakening, initial
from proof.search import Result, command_line, search, show

DIRECTORIES = "directories"
KINDS = (*get_args(Kind), DIRECTORIES)
STORE_BOUNDS = {
    "writers": "of a store: processes that claim",
    "numbers": "of a store: numbers of entries",
    "blobs": "of a store: blobs that exist at a time",
}
FORK_BOUNDS = {
    "directories": "directories that come back",
    "changes": "of directories: records that are appended and claims that are made, together",
    "damages": "of directories: segments that are damaged",
}


def explore(model: Model) -> Result:
    """Search the states of the model of a store until a promise is broken or all are visited."""
    return search(
        initial(model),
        "an empty store",
        check=lambda state: check(state, model),
        steps=lambda state: steps(state, model),
    )


def explore_forks(model: ForkModel) -> Result:
    """Search the states of the model of directories until a promise is broken or all are
    visited."""
    return search(
        World((Home(),) * model.directories),
        "an empty mirror and new directories",
        check=lambda _: None,  # each step checks what it does
        steps=lambda world: fork_model.steps(world, model),
    )


def main(arguments: list[str]) -> int:
    """Search the models that the arguments name, and return the exit code."""
    weakenings = {each.name.lower(): each for each in (*Weakening, *Forgetting)}
    defaults = {name: getattr(Model, name) for name in STORE_BOUNDS}
    defaults |= {name: getattr(ForkModel, name) for name in FORK_BOUNDS}
    texts = STORE_BOUNDS | FORK_BOUNDS
    parser = command_line(
        "mirror",
        __doc__,
        {name: each.value for name, each in weakenings.items()},
        "remove a clause of the protocol, with a store of objects, or with directories",
        {name: (text, defaults[name]) for name, text in texts.items()},
    )
    parser.add_argument("--kind", choices=KINDS, help="default: all")
    options = parser.parse_args(arguments)
    weakening = weakenings[options.weaken] if options.weaken else None
    kinds = KINDS
    if weakening:
        kinds = (DIRECTORIES,) if isinstance(weakening, Forgetting) else ("objects",)
    if options.kind:
        kinds = (options.kind,)
    for kind in kinds:
        if kind == DIRECTORIES:
            bounds = {name: getattr(options, name) for name in FORK_BOUNDS}
            clause = weakening if isinstance(weakening, Forgetting) else None
            result = explore_forks(ForkModel(clause, **bounds))
        else:
            bounds = {name: getattr(options, name) for name in STORE_BOUNDS}
            removed = weakening if isinstance(weakening, Weakening) else None
            result = explore(Model(kind, removed, **bounds))
        weakened = f", {options.weaken}" if weakening else ""
        show(f"{kind}{weakened}", f"{result.states:,} states", result)
        if result.broken:
            return 1
    return 0

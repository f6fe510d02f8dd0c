"""Search: visits all states of a model, breadth first, and the command line of such a program."""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

S = TypeVar("S", bound=Hashable)


class BrokenPromiseError(Exception):
    """A promise does not hold in a state of the model."""


@dataclass
class Result:
    """The result of a search.

    states: the number of states that were searched.
    seconds: the time that this took.
    broken: the promise that does not hold, if any.
    trace: the shortest sequence of steps that breaks it, one line for each.
    """

    states: int = 0
    seconds: float = 0.0
    broken: str | None = None
    trace: list[str] = field(default_factory=list)


def search(
    first: S,
    label: str,
    *,
    check: Callable[[S], None],
    steps: Callable[[S], Iterable[tuple[str, S]]],
) -> Result:
    """Search all states that `steps` reaches from `first`, until a promise is broken.

    `label` describes the first state, and `steps` labels each of the others. `check` raises
    BrokenPromiseError.
    """
    began, result, state = time.monotonic(), Result(), first
    came_from: dict[S, tuple[S | None, str]] = {state: (None, label)}
    todo = deque([state])
    try:
        while todo:
            state = todo.popleft()
            result.states += 1
            check(state)
            for step, after in steps(state):
                if after not in came_from:
                    came_from[after] = state, step
                    todo.append(after)
    except BrokenPromiseError as broken:
        result.broken = str(broken)
        at: S | None = state
        while at is not None:
            at, step = came_from[at]
            result.trace.insert(0, step)
    result.seconds = time.monotonic() - began
    return result


def command_line(
    name: str,
    description: str | None,
    weakenings: Mapping[str, str],
    weaken_help: str,
    bounds: Mapping[str, tuple[str, int]],
) -> argparse.ArgumentParser:
    """Return a parser of the options that all searches have.

    `weakenings` has the weakened behavior of each clause that `--weaken` removes. `bounds` has the
    description and the default of each bound.
    """
    width = max(map(len, weakenings)) + 2
    table = "\n".join(f"  {each:{width}}{behavior}" for each, behavior in weakenings.items())
    parser = argparse.ArgumentParser(
        prog=f"python tools/proof {name}",
        description=description,
        epilog=f"weakenings:\n{table}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--weaken", metavar="NAME", choices=[*weakenings], help=weaken_help)
    group = parser.add_argument_group("bounds, each 1 or more")
    for each, (text, default) in bounds.items():
        text = f"{text}; default: {default}"
        group.add_argument(f"--{each}", type=bound, metavar="N", default=default, help=text)
    return parser


def bound(text: str) -> int:
    """Return the bound that an option states. Raises ValueError or ArgumentTypeError."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("each bound must be 1 or more")
    return value


def show(searched: str, counts: str, result: Result) -> None:
    """Print the size of a search and its result."""
    verdict = f"BROKEN\n\n{result.broken}" if result.broken else "all promises hold"
    print(f"{searched}: {counts}, {result.seconds:.1f} s: {verdict}", flush=True)
    if result.broken:
        print("\nThe shortest sequence of steps that breaks it:\n")
        for number, line in enumerate(result.trace):
            print(f"{number:4}  {line}")

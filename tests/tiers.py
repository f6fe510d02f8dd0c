"""The tiers of the suite: the cases and examples of a test that only the whole suite runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count as count_up
from random import Random
from typing import Any

import pytest
from hypothesis import settings

EXAMPLES = 50  # of a property, in the whole suite
_SEED = 3  # with it, every pair of durability and segment size is in `test_explorer`


def examples(count: int) -> int:
    """Return the number of examples for a property that has `count` of them in the whole suite.

    It is smaller in the quick part, and larger in the profile `thorough`.
    """
    return max(1, count * settings().max_examples // EXAMPLES)


def is_quick_part() -> bool:
    """Return whether only the quick part runs, in which properties have fewer examples."""
    return settings().max_examples < EXAMPLES


def is_thorough() -> bool:
    """Return whether the profile `thorough` runs, which leaves out no case and no point."""
    return settings().max_examples > EXAMPLES


def sample(step: int, cases: Iterable[Any]) -> list[Any]:
    """Return one of `step` cases, always the same ones, or all in the profile `thorough`.

    They are chosen at random: of a product, every `step`th case could leave out some combinations.
    """
    all_cases = [*cases]
    if is_thorough():
        return all_cases
    chosen = Random(_SEED).sample(range(len(all_cases)), -(-len(all_cases) // step))
    return [all_cases[index] for index in sorted(chosen)]


def slow_but_every(step: int, cases: Iterable[Any]) -> list[Any]:
    """Return the cases as parameters of a test, marked slow except for every `step`th.

    The first is quick. Use it where each case repeats the rule, and none is special.
    """
    numbers = count_up()
    return slow_unless(lambda *_: next(numbers) % step == 0, cases)


def slow_unless(is_quick: Callable[..., object], cases: Iterable[Any]) -> list[Any]:
    """Return the cases as parameters of a test, marked slow if `is_quick` is false for them.

    A case is a value, or a tuple with a value for each parameter.
    """
    each = (case if isinstance(case, tuple) else (case,) for case in cases)
    return [pytest.param(*case, marks=() if is_quick(*case) else pytest.mark.slow) for case in each]

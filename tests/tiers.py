"""The tiers of the suite: the examples of a property that only the whole suite tries."""

from __future__ import annotations

from hypothesis import settings

EXAMPLES = 50  # of a property, in the whole suite


def examples(count: int) -> int:
    """Return the number of examples for a property that has `count` of them in the whole suite.

    It is smaller in the quick part, and larger in the profile `thorough`.
    """
    return max(1, count * settings().max_examples // EXAMPLES)

"""Options: the checks of values that options of both command lines share."""

from __future__ import annotations

import math

import click


def finite(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    """Return the value of an option. Raises BadParameter if it is infinite or not a number."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a number of seconds")
    return value

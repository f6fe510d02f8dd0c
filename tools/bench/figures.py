"""The forms of the benchmarks' results: quantiles of times, and values with their bars."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, astuple, dataclass
from typing import Any


@dataclass(frozen=True)
class Quantiles:
    p50: float
    p99: float
    p99_9: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Quantiles:
        ordered = sorted(values) or [0]
        last = len(ordered) - 1
        p50, p99, p99_9 = (ordered[min(last, int(len(ordered) * s))] for s in (0.5, 0.99, 0.999))
        return cls(p50, p99, p99_9, ordered[-1])

    @classmethod
    def of_histogram(cls, histogram: Any) -> Quantiles:
        return cls(histogram.p50, histogram.p99, histogram.p99_9, histogram.max)

    @classmethod
    def median(cls, rounds: Iterable[Quantiles]) -> Quantiles:
        """Return the median of each quantile over the rounds."""
        return cls(*map(statistics.median, zip(*map(astuple, rounds), strict=True)))


@dataclass(frozen=True)
class Bar:
    """A measured value, and the bar that it has to reach."""

    name: str
    value: float
    bar: float
    sense: str  # "at least" or "at most"
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.value >= self.bar if self.sense == "at least" else self.value <= self.bar

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


def at_least(name: str, value: float, bar: float, unit: str = "x") -> Bar:
    return Bar(name, value, bar, "at least", unit)


def at_most(name: str, value: float, bar: float, unit: str = "x") -> Bar:
    return Bar(name, value, bar, "at most", unit)


def bars_table(bars: Iterable[Bar]) -> Iterator[str]:
    for bar in bars:
        value = (
            f"{bar.value:,.4g} {bar.unit}" if bar.value < 1e4 else f"{bar.value:,.0f} {bar.unit}"
        )
        target = f"{bar.sense} {bar.bar:,.6g} {bar.unit}"
        yield f"{bar.name:60} {value:>14}   {target:22} {'met' if bar.met else 'NOT MET'}"


def human(ns: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.0f} ns"

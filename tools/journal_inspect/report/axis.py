"""The time axis of a report: the positions of times, the ticks, and the bars of charts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise

from _journal_console.text import count_of

from journal_inspect.report.data import Step

_S, _MIN, _H, _D = 1000, 60_000, 3_600_000, 86_400_000
# The steps between two ticks. Wider steps are whole years.
TICK_STEPS_MS = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 500),
    *(_S, 2 * _S, 5 * _S, 10 * _S, 15 * _S, 30 * _S),
    *(_MIN, 2 * _MIN, 5 * _MIN, 10 * _MIN, 15 * _MIN, 30 * _MIN),
    *(_H, 2 * _H, 3 * _H, 6 * _H, 12 * _H),
    *(_D, 2 * _D, 7 * _D, 14 * _D, 28 * _D, 91 * _D, 182 * _D),
)
YEAR_MS = 365 * _D
TICKS_MAX = 7
WIDTH_MIN = 0.002  # the width of the narrowest bar, as a share of the axis
LABELED = 0.94  # the share of the axis that has labels; one further right would be cut off


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a chart, in percent of the chart. `at_ms` counts from the begin of the axis."""

    x: str
    width: str
    y: str
    height: str
    at_ms: int
    kind: str
    title: str


class Axis:
    """An axis from `begin_ms` to `end_ms` (Unix), with a margin so that both ends are visible."""

    def __init__(self, begin_ms: int, end_ms: int, *, utc: bool) -> None:
        zone = UTC if utc else datetime.now().astimezone().tzinfo
        assert zone
        margin_ms = max((end_ms - begin_ms) // 200, 5)
        self.begin_ms = begin_ms - margin_ms
        self.span_ms = end_ms + margin_ms - self.begin_ms
        self.offset_ms = int(_offset(zone) / timedelta(milliseconds=1))
        self.zone = datetime.fromtimestamp(0, zone).isoformat()[19:]
        self._zone = zone

    def place(self, at_ms: int) -> str:
        """Return the position of a time in percent, in as few digits as possible."""
        return percent(at_ms - self.begin_ms, self.span_ms)

    def width(self, begin_ms: int, end_ms: int) -> str:
        """Return the width of a period in percent, at least WIDTH_MIN so that it is visible."""
        return percent(max(end_ms - begin_ms, self.span_ms * WIDTH_MIN), self.span_ms)

    def stamp(self, at_ms: int) -> str:
        """Return a time in ISO 8601 to the millisecond, or the number if no calendar has it."""
        try:
            at = datetime.fromtimestamp(0, self._zone) + timedelta(milliseconds=at_ms)
        except OverflowError:
            return str(at_ms)
        return at.isoformat(timespec="milliseconds")

    def ticks(self) -> list[tuple[str, str]]:
        """Return the position and label of each tick. `report.js` repeats this when it zooms."""
        wanted = self.span_ms / TICKS_MAX
        step = next((candidate for candidate in TICK_STEPS_MS if candidate >= wanted), None)
        step = step or -(-int(wanted) // YEAR_MS) * YEAR_MS
        first = -(-(self.begin_ms + self.offset_ms) // step) * step - self.offset_ms
        times = range(first, self.begin_ms + self.span_ms, step)
        end_ms = self.begin_ms + self.span_ms * LABELED
        return [
            (self.place(at_ms), self._label(at_ms, step) if at_ms < end_ms else "")
            for at_ms in times
        ]

    def bars(
        self,
        steps: Iterable[tuple[int, Step]],
        step_ms: int,
        values: Callable[[Step], Iterable[tuple[str, float]]],
    ) -> tuple[list[Bar], float]:
        """Return the bars of the `values` of each step, and the highest value.

        `values` yields the kind and the value of each bar of a step, the highest first.
        """
        rows = [(at_ms, step, list(values(step))) for at_ms, step in steps]
        top = max((value for _, _, pairs in rows for _, value in pairs), default=0)
        bars = [
            Bar(
                x=self.place(at_ms),
                width=self.width(0, step_ms),
                y=percent(top - value, top),
                height=percent(value, top),
                at_ms=at_ms - self.begin_ms,
                kind=kind,
                title=f"{self.stamp(at_ms)}: {_describe(step)}",
            )
            for at_ms, step, pairs in rows
            for kind, value in pairs
            if value
        ]
        return bars, top

    def _label(self, at_ms: int, step_ms: int) -> str:
        stamp = self.stamp(at_ms)
        if step_ms >= _D:
            return stamp[:10]
        return stamp[11:16] if step_ms >= _MIN else stamp[11:19] if step_ms >= _S else stamp[11:23]


def percent(part: float, whole: float) -> str:
    return f"{part / whole * 100:.3f}".rstrip("0").rstrip(".") if whole else "0"


def _describe(step: Step) -> str:
    commits, records = count_of(step.commits, "commit"), count_of(step.records, "record")
    return f"{commits}, {records}, at most {step.largest} in one"


def duration(duration_ms: int) -> str:
    """Return a duration in its two largest units: `2 h 5 min`."""
    units = ((_D, "d"), (_H, "h"), (_MIN, "min"), (_S, "s"), (1, "ms"))
    for (unit_ms, unit), (next_ms, next_unit) in pairwise(units):
        if duration_ms >= unit_ms:
            whole, rest = divmod(duration_ms, unit_ms)
            return (
                f"{whole} {unit} {rest // next_ms} {next_unit}"
                if rest // next_ms
                else f"{whole} {unit}"
            )
    return f"{duration_ms} ms"


def _offset(zone: tzinfo) -> timedelta:
    return zone.utcoffset(datetime.fromtimestamp(0, UTC).replace(tzinfo=None)) or timedelta()

"""Figures for OpenTelemetry: asynchronous instruments, which are read at each export.

    from journal.otel import JournalInstruments

    instruments = JournalInstruments()  # on the global meter provider
    instruments.watch("jobs", jobs)  # a Journal, a DurableState or a SubAgentManager

Commits do no extra work: each export calls `stats()`. Instruments are named `journal.*`, and each
measurement has the attribute `journal`. Distributions are gauges of their quantiles, with the
attribute `quantile`. Needs the extra `otel`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from journal._exporting import (
    DISTRIBUTIONS,
    FIGURES,
    MIRROR_FIGURES,
    QUANTILES,
    Distribution,
    Figure,
    MirrorFigure,
    Watched,
)
from journal._extra import needing_extra
from journal.metrics import StatsSource

with needing_extra("otel"):
    from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

__all__ = ["JournalInstruments"]

_Callback = Callable[[CallbackOptions], Iterable[Observation]]


class JournalInstruments:
    """Instruments that observe the figures of `stats()` at each export.

    Without a `meter`, they belong to the global provider's meter `journal`. A source is left out if
    it was dropped, is closed, was opened by another process, or has a directory that can't be read.
    """

    def __init__(self, meter: Meter | None = None) -> None:
        self._watched = Watched()
        meter = meter or get_meter("journal")
        for figure in (*FIGURES, *MIRROR_FIGURES):
            counter = figure.kind == "counter"
            make = meter.create_observable_counter if counter else meter.create_observable_gauge
            make(f"journal.{figure.name}", [self._values(figure)], figure.unit, figure.description)
        for distribution in DISTRIBUTIONS:
            meter.create_observable_gauge(
                f"journal.{distribution.name}",
                [self._quantiles(distribution)],
                distribution.unit,
                distribution.description,
            )

    def watch(self, name: str, source: StatsSource) -> None:
        """Export the figures of `source` with the attribute `journal=name`, until it is dropped.

        Raises ValueError if another open source has that name, and TypeError for another object.
        """
        self._watched.add(name, source)

    def _values(self, figure: Figure | MirrorFigure) -> _Callback:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for name, stats, _lock in self._watched.stats():
                value = figure.value(stats)
                if value is not None:
                    yield Observation(value, {"journal": name})

        return observe

    def _quantiles(self, distribution: Distribution) -> _Callback:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for name, stats, lock in self._watched.stats():
                histogram = distribution.histogram(stats, lock)
                if histogram is not None and histogram.count:
                    for quantile, value in QUANTILES:
                        attributes: dict[str, str | float] = {"journal": name, "quantile": quantile}
                        yield Observation(value(histogram) * distribution.scale, attributes)

        return observe

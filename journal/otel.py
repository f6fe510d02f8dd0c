"""Figures for OpenTelemetry: asynchronous instruments that are asked when metrics are read.

    from journal.otel import JournalInstruments

    instruments = JournalInstruments()  # on the global meter provider
    instruments.watch("jobs", jobs)  # a Journal, a DurableState or a SubAgentManager

Nothing is added to a commit's way: what `stats()` tells is read at each export. Instruments are
named `journal.*`, and each measurement has the attribute `journal`. Distributions are gauges of
their quantiles, with the attribute `quantile`. Needs the extra `otel`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from journal._exporting import (
    DISTRIBUTIONS,
    FIGURES,
    QUANTILES,
    Distribution,
    Figure,
    Source,
    Watched,
)

__all__ = ["JournalInstruments"]

_Callback = Callable[[CallbackOptions], Iterable[Observation]]


class JournalInstruments:
    """Observes what `stats()` tells at each export. `meter` None: one of the global provider,
    named `journal`.

    A source that is dropped or closed, that another process opened, or whose directory can't be
    read is left out.
    """

    def __init__(self, meter: Meter | None = None) -> None:
        self._watched = Watched()
        meter = meter or get_meter("journal")
        for figure in FIGURES:
            counter = figure.kind == "counter"
            make = meter.create_observable_counter if counter else meter.create_observable_gauge
            make(f"journal.{figure.name}", [self._values(figure)], figure.unit, figure.description)
        for shown in DISTRIBUTIONS:
            meter.create_observable_gauge(
                f"journal.{shown.name}", [self._quantiles(shown)], shown.unit, shown.description
            )

    def watch(self, name: str, source: Source) -> None:
        """Show its figures from now on, with the attribute `journal=name`, until it is dropped.

        Raises ValueError if another one has that name.
        """
        self._watched.add(name, source)

    def _values(self, figure: Figure) -> _Callback:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for name, stats, _lock in self._watched.stats():
                yield Observation(figure.value(stats), {"journal": name})

        return observe

    def _quantiles(self, shown: Distribution) -> _Callback:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for name, stats, lock in self._watched.stats():
                histogram = shown.histogram(stats, lock)
                if histogram is not None and histogram.count:
                    for quantile, value in QUANTILES:
                        attributes: dict[str, str | float] = {"journal": name, "quantile": quantile}
                        yield Observation(value(histogram) * shown.scale, attributes)

        return observe

"""Figures for Prometheus: `prometheus_client` asks for them when it is scraped.

    from journal.prometheus import JournalCollector

    collector = JournalCollector()  # in prometheus_client's own registry
    collector.watch("jobs", jobs)  # a Journal, a DurableState or a SubAgentManager

Nothing is counted twice and nothing is added to a commit's way: what `stats()` tells is read at
each scrape. Metrics are named `journal_*` and carry the label `journal`. Needs the extra
`prometheus`.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import REGISTRY
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector, CollectorRegistry

from journal._exporting import DISTRIBUTIONS, FIGURES, QUANTILES, Source, Watched

__all__ = ["JournalCollector"]

_UNITS = {"s": "_seconds", "By": "", "1": ""}


class JournalCollector(Collector):
    """Collects what `stats()` tells at each scrape. Registers itself in `registry` (None: in none).

    A source that is dropped or closed, that another process opened, or whose directory can't be
    read is left out.
    """

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        self._watched = Watched()
        if registry is not None:
            registry.register(self)

    def watch(self, name: str, source: Source) -> None:
        """Show its figures from now on, with the label `journal=name`, until it is dropped.

        Raises ValueError if another one has that name.
        """
        self._watched.add(name, source)

    def describe(self) -> list[Metric]:
        """None: what is watched may change, so no name is taken in advance."""
        return []

    def collect(self) -> Iterator[Metric]:
        """For the registry: all metrics, in seconds and bytes, each with the label `journal`."""
        found = list(self._watched.stats())
        for figure in FIGURES:
            name = f"journal_{figure.name}{_UNITS[figure.unit]}"
            family = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
            metric = family(name, figure.description, labels=["journal"])
            for label, stats, _ in found:
                metric.add_metric([label], figure.value(stats))
            yield metric
        for shown in DISTRIBUTIONS:
            name = f"journal_{shown.name}{_UNITS[shown.unit]}"
            summary = SummaryMetricFamily(name, shown.description, labels=["journal"])
            for label, stats, lock in found:
                histogram = shown.histogram(stats, lock)
                if histogram is None:
                    continue
                total = histogram.mean * histogram.count * shown.scale
                summary.add_metric([label], histogram.count, total)
                for quantile, value in QUANTILES:
                    labels = {"journal": label, "quantile": str(quantile)}
                    summary.add_sample(name, labels, value(histogram) * shown.scale)
            yield summary

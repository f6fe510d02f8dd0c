"""Figures for Prometheus, which `prometheus_client` collects at each scrape.

    from journal.prometheus import JournalCollector

    collector = JournalCollector()  # in prometheus_client's own registry
    collector.watch("jobs", jobs)  # or a Journal, Tables, a SubAgentManager, ...

Commits do no extra work, and nothing is counted twice: each scrape calls `stats()`. Metrics are
named `journal_*` and have the label `journal`. Needs the extra `prometheus`.
"""

from __future__ import annotations

from collections.abc import Iterator

from journal._exporting import DISTRIBUTIONS, FIGURES, MIRROR_FIGURES, QUANTILES, Watched
from journal._extra import needing_extra
from journal.metrics import StatsSource

with needing_extra("prometheus"):
    from prometheus_client import REGISTRY
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        Metric,
        SummaryMetricFamily,
    )
    from prometheus_client.registry import Collector, CollectorRegistry

__all__ = ["JournalCollector"]

_UNITS = {"s": "_seconds", "By": "", "1": ""}


class JournalCollector(Collector):
    """A collector of the figures of `stats()`. It registers itself in `registry`, if there is one.

    A source is left out if it was dropped, is closed, was opened by another process, or has a
    directory that can't be read.
    """

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        self._watched = Watched()
        if registry is not None:
            registry.register(self)

    def watch(self, name: str, source: StatsSource) -> None:
        """Export the figures of `source` with the label `journal=name`, until it is dropped.

        Raises ValueError if another open source has that name, and TypeError for another object.
        """
        self._watched.add(name, source)

    def describe(self) -> list[Metric]:
        """Return no metrics: sources may change, so no name is reserved in advance."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics for the registry, in seconds and bytes, with the label `journal`."""
        sources = list(self._watched.stats())
        for figure in (*FIGURES, *MIRROR_FIGURES):
            name = f"journal_{figure.name}{_UNITS[figure.unit]}"
            family = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
            metric = family(name, figure.description, labels=["journal"])
            for label, stats, _ in sources:
                value = figure.value(stats)
                if value is not None:
                    metric.add_metric([label], value)
            if metric.samples or figure in FIGURES:
                yield metric
        for distribution in DISTRIBUTIONS:
            name = f"journal_{distribution.name}{_UNITS[distribution.unit]}"
            summary = SummaryMetricFamily(name, distribution.description, labels=["journal"])
            for label, stats, lock in sources:
                histogram = distribution.histogram(stats, lock)
                if histogram is None:
                    continue
                total = histogram.mean * histogram.count * distribution.scale
                summary.add_metric([label], histogram.count, total)
                for quantile, of in QUANTILES:
                    labels = {"journal": label, "quantile": str(quantile)}
                    summary.add_sample(name, labels, of(histogram) * distribution.scale)
            yield summary

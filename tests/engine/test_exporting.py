"""Figures for monitoring systems, as the real clients of these show them."""

from __future__ import annotations

import errno
import gc
from typing import Any

import pytest

from journal import DurableState, Journal, Options
from journal._exporting import DISTRIBUTIONS, FIGURES
from journal.testing import SimulatedDisk
from manager import SubAgentManager
from tests.installed import import_package
from tests.support import Table

prometheus = import_package("prometheus_client")
otel = import_package("opentelemetry.sdk.metrics")


def scraped(registry: Any) -> dict[str, float]:
    """Each line of the exposition but comments: name and labels, and the value."""
    lines = prometheus.generate_latest(registry).decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def exported(reader: Any) -> dict[tuple[str, tuple[Any, ...]], Any]:
    """Each data point by instrument and attributes."""
    data = reader.get_metrics_data()
    return {
        (metric.name, tuple(sorted(point.attributes.items()))): point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def test_a_scrape_shows_each_figure_of_each_journal(disk: SimulatedDisk) -> None:
    """What Prometheus is told is what `stats()` tells, in base units, and of the lock too."""
    from journal.prometheus import JournalCollector

    registry = prometheus.CollectorRegistry()
    collector = JournalCollector(registry)
    with Journal.open("/a", disk=disk) as journal, SubAgentManager.open("/w", disk=disk) as manager:
        collector.watch("a", journal)
        collector.watch("fleet", manager)
        journal.wait_durable(journal.append(["x"]))
        manager.wait_durable(manager.spawn("work").lsn)
        found = scraped(registry)
        stats = journal.stats()
        assert found['journal_records_total{journal="a"}'] == 1
        assert found['journal_log_bytes_total{journal="a"}'] == stats.bytes
        assert found['journal_durable_lsn{journal="fleet"}'] == 2
        assert found['journal_sync_time_seconds_count{journal="a"}'] == stats.syncs
        quantile = found['journal_sync_time_seconds{journal="a",quantile="1.0"}']
        assert quantile == pytest.approx(stats.sync_ns.max / 1e9)
        assert found['journal_lock_hold_time_seconds_count{journal="fleet"}'] >= 2
        assert 'journal_lock_hold_time_seconds_count{journal="a"}' not in found
        for figure in FIGURES:
            assert any(name.startswith(f"journal_{figure.name}") for name in found)


def test_an_export_shows_each_figure_of_each_journal(disk: SimulatedDisk) -> None:
    """The same for OpenTelemetry."""
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from journal.otel import JournalInstruments

    reader = InMemoryMetricReader()
    provider = otel.MeterProvider([reader])
    instruments = JournalInstruments(provider.get_meter("journal"))
    options = Options(flush_interval_s=0.001)
    with Journal.open("/a", options=options, disk=disk) as journal:
        instruments.watch("a", journal)
        journal.wait_durable(journal.append(["x"]))
        found = exported(reader)
        a = ("journal", "a")
        assert found["journal.records", (a,)] == 1
        assert found["journal.last_lsn", (a,)] == 1
        longest = found["journal.sync_time", (a, ("quantile", 1.0))]
        assert longest == pytest.approx(journal.stats().sync_ns.max / 1e9)
        names = {name for name, _ in found}
        assert names >= {f"journal.{figure.name}" for figure in FIGURES}
        assert names <= {f"journal.{shown.name}" for shown in (*FIGURES, *DISTRIBUTIONS)}
    provider.shutdown()


def test_a_dropped_journal_exports_nothing(disk: SimulatedDisk) -> None:
    """A watched journal may be closed or dropped; its name is free then, and not before."""
    from journal.prometheus import JournalCollector

    registry = prometheus.CollectorRegistry()
    collector = JournalCollector(registry)
    journal = Journal.open("/a", disk=disk)
    collector.watch("a", journal)
    collector.watch("a", journal)  # again: nothing
    with Journal.open("/b", disk=disk) as other:
        with pytest.raises(ValueError, match="'a'"):
            collector.watch("a", other)
        journal.close()
        assert scraped(registry) == {}
        collector.watch("a", other)
        assert scraped(registry)['journal_last_lsn{journal="a"}'] == 0
    dropped = [Journal.open("/c", disk=disk)]
    collector.watch("a", dropped[0])
    with pytest.warns(ResourceWarning, match="never closed"):
        dropped.clear()
    gc.collect()
    assert scraped(registry) == {}


@pytest.mark.parametrize("kind", ["state", "manager"])
def test_a_watched_state_is_dropped_when_it_is_closed(disk: SimulatedDisk, kind: str) -> None:
    """What is left out when it is closed is any of the three that may be watched."""
    from journal.prometheus import JournalCollector

    registry = prometheus.CollectorRegistry()
    collector = JournalCollector(registry)
    source = (
        SubAgentManager.open("/w", disk=disk)
        if kind == "manager"
        else DurableState.open("/w", Table(), disk=disk)
    )
    collector.watch("a", source)
    assert scraped(registry)
    source.close()
    assert source.closed
    assert scraped(registry) == {}


def test_a_journal_that_cannot_be_read_hides_no_other(disk: SimulatedDisk) -> None:
    """A disk that fails takes its own journal's figures away, and no other's."""
    from journal.prometheus import JournalCollector

    registry = prometheus.CollectorRegistry()
    collector = JournalCollector(registry)
    with Journal.open("/a", disk=disk) as one, Journal.open("/b", disk=disk) as other:
        collector.watch("a", one)
        collector.watch("b", other)
        disk.fail("names", errno.EIO, path="/a")
        assert {name.partition("{")[2][:11] for name in scraped(registry)} == {'journal="b"'}


def test_both_formats_are_what_their_parsers_take(disk: SimulatedDisk) -> None:
    """A server of the client's own sends the text format, or OpenMetrics to who asks for that."""
    from journal.prometheus import JournalCollector

    registry = prometheus.CollectorRegistry()
    collector = JournalCollector(registry)
    with Journal.open("/a", disk=disk) as journal:
        collector.watch("a", journal)
        journal.wait_durable(journal.append(1))
        text = prometheus.generate_latest(registry).decode()
        plain = list(
            import_package("prometheus_client.parser").text_string_to_metric_families(text)
        )
        exposition = import_package("prometheus_client.openmetrics.exposition")
        text = exposition.generate_latest(registry).decode()
        openmetrics = import_package("prometheus_client.openmetrics.parser")
        assert len(list(openmetrics.text_string_to_metric_families(text))) == len(plain)
    assert len(plain) == len((*FIGURES, *DISTRIBUTIONS))

"""Metrics for monitoring systems, as the real client libraries export them."""

from __future__ import annotations

import errno
import gc
from typing import Any

import pytest

from journal import DurableDict, DurableState, Journal, Options, Stats, Tables
from journal._exporting import DISTRIBUTIONS, FIGURES
from journal.testing import SimulatedDisk
from manager import SubAgentManager
from tests.installed import import_package
from tests.support import Table

prometheus = import_package("prometheus_client")
otel = import_package("opentelemetry.sdk.metrics")


def scraped(registry: Any) -> dict[str, float]:
    """Return the value of each line of the exposition except comments, by name and labels."""
    lines = prometheus.generate_latest(registry).decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def exported(reader: Any) -> dict[tuple[str, tuple[Any, ...]], Any]:
    """Return the value of each data point by instrument and attributes."""
    data = reader.get_metrics_data()
    return {
        (metric.name, tuple(sorted(point.attributes.items()))): point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def test_a_scrape_contains_each_metric_of_each_journal(disk: SimulatedDisk) -> None:
    """Prometheus gets the metrics of `stats()` and of the lock, in base units."""
    from journal.prometheus import JournalCollector

    registry = prometheus.CollectorRegistry()
    collector = JournalCollector(registry)
    with Journal.open("/a", disk=disk) as journal, SubAgentManager.open("/w", disk=disk) as manager:
        collector.watch("a", journal)
        collector.watch("fleet", manager)
        journal.wait_durable(journal.append(["x"]))
        manager.wait_durable(manager.spawn("work").lsn)
        samples = scraped(registry)
        stats = journal.stats()
        assert samples['journal_records_total{journal="a"}'] == 1
        assert samples['journal_log_bytes_total{journal="a"}'] == stats.bytes
        assert samples['journal_durable_lsn{journal="fleet"}'] == 2
        assert samples['journal_sync_time_seconds_count{journal="a"}'] == stats.syncs
        quantile = samples['journal_sync_time_seconds{journal="a",quantile="1.0"}']
        assert quantile == pytest.approx(stats.sync_ns.max / 1e9)
        assert samples['journal_lock_hold_time_seconds_count{journal="fleet"}'] >= 2
        assert 'journal_lock_hold_time_seconds_count{journal="a"}' not in samples
        for figure in FIGURES:
            assert any(name.startswith(f"journal_{figure.name}") for name in samples)


def test_an_export_contains_each_metric_of_each_journal(disk: SimulatedDisk) -> None:
    """OpenTelemetry gets the same metrics."""
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from journal.otel import JournalInstruments

    reader = InMemoryMetricReader()
    provider = otel.MeterProvider([reader])
    instruments = JournalInstruments(provider.get_meter("journal"))
    options = Options(flush_interval_s=0.001)
    with Journal.open("/a", options=options, disk=disk) as journal:
        instruments.watch("a", journal)
        journal.wait_durable(journal.append(["x"]))
        points = exported(reader)
        a = ("journal", "a")
        assert points["journal.records", (a,)] == 1
        assert points["journal.last_lsn", (a,)] == 1
        longest = points["journal.sync_time", (a, ("quantile", 1.0))]
        assert longest == pytest.approx(journal.stats().sync_ns.max / 1e9)
        names = {name for name, _ in points}
        assert names >= {f"journal.{figure.name}" for figure in FIGURES}
        assert names <= {f"journal.{metric.name}" for metric in (*FIGURES, *DISTRIBUTIONS)}
    provider.shutdown()


def test_a_dropped_journal_exports_nothing(disk: SimulatedDisk) -> None:
    """A closed or dropped journal exports nothing, and only then is its name free for another
    one."""
    from journal.prometheus import JournalCollector

    registry = prometheus.CollectorRegistry()
    collector = JournalCollector(registry)
    journal = Journal.open("/a", disk=disk)
    collector.watch("a", journal)
    collector.watch("a", journal)  # watching it again changes nothing
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
def test_a_closed_source_exports_nothing(disk: SimulatedDisk, kind: str) -> None:
    """A source of any kind that was closed exports nothing."""
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


def test_an_unreadable_journal_hides_no_other(disk: SimulatedDisk) -> None:
    """A disk that fails hides the metrics of its own journal, and of no other."""
    from journal.prometheus import JournalCollector

    registry = prometheus.CollectorRegistry()
    collector = JournalCollector(registry)
    with Journal.open("/a", disk=disk) as one, Journal.open("/b", disk=disk) as other:
        collector.watch("a", one)
        collector.watch("b", other)
        disk.fail("names", errno.EIO, path="/a")
        assert {name.partition("{")[2][:11] for name in scraped(registry)} == {'journal="b"'}


def test_both_formats_can_be_parsed(disk: SimulatedDisk) -> None:
    """The client's own parsers accept the text format and OpenMetrics."""
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


class Slotted:
    __slots__ = ()
    closed = False

    def stats(self) -> Stats:
        raise AssertionError("never watched")


NO_SOURCES: list[Any] = [None, "jobs", Journal, SubAgentManager, object(), Slotted()]


@pytest.mark.parametrize("exporter", ["prometheus", "otel"])
def test_what_can_t_be_exported_is_refused_at_once(exporter: str, disk: SimulatedDisk) -> None:
    """A name that no export could write, or a source without figures, is refused, and later exports
    contain what was watched before."""
    from journal.otel import JournalInstruments
    from journal.prometheus import JournalCollector

    registry = prometheus.CollectorRegistry()
    collector = JournalCollector(registry)
    watch = collector.watch if exporter == "prometheus" else JournalInstruments().watch
    with Journal.open("/a", disk=disk) as journal:
        watch("a", journal)
        for name in (None, 5, b"a", journal):
            with pytest.raises(TypeError, match=r"^name must be a string, not "):
                watch(name, journal)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"^name has half a surrogate pair: 'a\\ud800'$"):
            watch("a\ud800", journal)
        for source in NO_SOURCES:
            with pytest.raises(TypeError, match=r"^source must be .*, not "):
                watch("b", source)
        if exporter == "prometheus":
            assert scraped(registry)['journal_last_lsn{journal="a"}'] == 0


def test_each_kind_of_source_can_be_watched(disk: SimulatedDisk) -> None:
    """Every open handle with figures is a source, and so is a class of a program's own."""
    from journal.prometheus import JournalCollector

    class Own:
        closed = False

        def __init__(self, journal: Journal) -> None:
            self.stats = journal.stats

    registry = prometheus.CollectorRegistry()
    collector = JournalCollector(registry)
    with (
        Journal.open("/j", disk=disk) as journal,
        DurableState.open("/s", Table(), disk=disk) as state,
        Tables.open("/t", disk=disk) as tables,
        DurableDict.open("/d", disk=disk) as durable_dict,
        SubAgentManager.open("/m", disk=disk) as manager,
    ):
        own: Any = Own(journal)
        sources = [journal, state, tables, durable_dict, manager, own]
        for number, source in enumerate(sources):
            collector.watch(f"journal {number}", source)
        samples = scraped(registry)
        for number in range(len(sources)):
            assert f'journal_last_lsn{{journal="journal {number}"}}' in samples

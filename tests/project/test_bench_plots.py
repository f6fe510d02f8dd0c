"""`python tools/bench plot`: the plots of the benchmarks' results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bench import growth, plot, plots

from tests.installed import import_package
from tests.project.test_bench import SMALL, mark_slow


def quantiles(value: float) -> dict[str, float]:
    return dict.fromkeys(("p50", "p99", "p99_9", "max"), value)


RESULTS: dict[str, dict[str, Any]] = {
    "commits": {
        "rows": [
            {"delay_ms": 0, "waiting": "threads", "count": count, "peer": peer, "per_s": count}
            for count in (1, 8)
            for peer in ("disk", "journal")
        ]
    },
    "append": {"rounds": {"bare": [1, 2], "append": [1, 1]}, "growth": [[0, 1], [1, 2]]},
    "hold": {"rounds": {"now": []}, "now": {"plain_ns": 2, "packed_ns": 1}},
    "recover": {
        "rows": [
            {"what": what, "records": records, "open_s": records / 9, "peak_mib": 3}
            for what in ("log, 1 a frame", "fleet in a checkpoint")
            for records in (10, 100)
        ]
    },
    "compact": {
        "latency": {"off": quantiles(5e5), "on": quantiles(6e5)},
        "space": {"updates": 9, "appended": 1, "written": 2, "held": 3, "state": 4},
    },
    "fanout": {
        "rows": [
            {"way": "journal", "agents": 10, "threads": n, "due": quantiles(n), "updates_per_s": n}
            for n in (1, 8)
        ],
        "loops": [
            {"agents": n, "coroutines": 9, "lag": quantiles(1), "lag_at_full_speed": quantiles(2)}
            for n in (10, 20)
        ],
    },
    "burn": {
        "rate_per_s": 100,
        "rows": [
            {
                "burners": burners,
                "waiting": waiting,
                "count": 8,
                "peer": peer,
                "per_s": None if peer == "nothing" else 5,
                "due": quantiles(7),
            }
            for burners in (0, 1)
            for waiting in ("threads", "coroutines")
            for peer in ("nothing", "journal")
        ],
    },
    "flushes": {"file_system": "xfs", "rows": [{"threads": 8, "record_bytes": 9, "flushes": 1}]},
    "growth": {
        "rows": [
            {"state": state, "items": items, "what": what, "median": 2}
            for state in ("tables", "tuples")
            for items in (10, 100)
            for what in growth.FIGURES
        ]
    },
    "imports": {"rows": [{"what": "bare", "wall_ms": 10}]},
    "inspector": {"rows": [{"what": "verify", "wall_ms": 10}]},
    "legacy": {"rows": [{"what": "read as JSON", "wall_ms": 10}]},
    "mirror": {"rows": [{"what": "no mirror", "rate": 10}]},
    "runners": {"rows": [{"runner": "xargs -P", "commands_per_s": 10}]},
    "adapters": {
        "rows": [
            {"delay_ms": delay, "what": what, "count": 8, "peer": peer, "per_s": 9}
            for delay in (0, 1)
            for what in ("superstep", "graph turn")
            for peer in ("journal", "sqlite")
        ]
    },
    "tables": {
        "rows": [
            {"rows": rows, "what": what, "peer": peer, "cost": 2, "unit": "us"}
            for rows in (10, 100)
            for what in ("set", "open")
            for peer in ("journal", "lmdb")
        ]
    },
}


def test_each_benchmark_can_be_drawn() -> None:
    """Each benchmark of speed has a plot, except four with few figures."""
    without = {"standby", "resumed", "verbs", "workers"}
    assert RESULTS.keys() == plots.DRAWN.keys() == SMALL.keys() - without


@pytest.mark.parametrize("bench", mark_slow(RESULTS, "commits"))
def test_the_same_results_make_the_same_plot(bench: str, tmp_path: Path) -> None:
    """The same results make the same plot byte for byte, so that a plot in git changes only with
    its results."""
    import_package("matplotlib")
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"bench": bench, **RESULTS[bench]}))
    drawn = []
    for folder in ("one", "other"):
        assert plot.main([str(results), "-o", str(tmp_path / folder)]) == 0
        drawn.append((tmp_path / folder / "results.svg").read_bytes())
    assert drawn[0] == drawn[1]
    assert b"<dc:date>" not in drawn[0]


def test_results_that_cannot_be_plotted_are_refused(tmp_path: Path) -> None:
    """Results that have no plot are refused, and nothing is drawn."""
    results = tmp_path / "results.json"
    results.write_text('{"bench": "bars"}')
    with pytest.raises(SystemExit):
        plot.main([str(results), "-o", str(tmp_path / "drawn")])

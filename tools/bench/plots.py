"""Plots of the benchmarks' results, as SVG. The same results give the same bytes.

Each plot takes the output of the benchmark's --json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Results = dict[str, Any]
Axis = Any  # an axis of matplotlib, which is imported only to plot

_NARROW = 300  # an axis whose ends have a smaller ratio also has ticks at 2 and 5
_PANEL_INCHES, _LEGEND_INCHES = (4.0, 3.2), 1.6
_QUANTILES = ("p50", "p99", "p99_9", "max")
_NAMES = ("p50", "p99", "p99.9", "max")
# Each of these names has the same color in all panels.
_COLORED = (
    *("journal", "sqlite", "sqlite-batched", "lmdb", "rocksdict", "zodb", "coopy"),
    *("disk", "nothing", "group"),
)


def panels(rows: int, columns: int) -> tuple[Any, Any]:
    """Return a figure, and the axes of its panels, row by row."""
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("bench: plots need the package matplotlib; install it") from None
    matplotlib.use("svg")
    from matplotlib import pyplot

    # Keep text as text, and derive identifiers from the contents, not from a random number.
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "bench"}
    size = (_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * rows)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False)
    return figure, axes


def color_of(name: str, others: Iterable[str]) -> str:
    names = tuple(others)
    if set(names) <= set(_COLORED):
        names = _COLORED
    return f"C{names.index(name)}"


def against(axis: Axis, lines: dict[str, list[tuple[float, float]]], x: str, title: str) -> None:
    """Draw a line for each name on logarithmic axes, with a tick for each x."""
    for name, points in lines.items():
        if points:
            xs, ys = zip(*sorted(points), strict=True)
            color = color_of(name, lines)
            axis.plot(xs, ys, "o-", label=name, color=color, markersize=4)
    ticks = sorted({x for points in lines.values() for x, _ in points})
    axis.set(xscale="log", title=title, xlabel=x)
    plain(axis)
    axis.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
    axis.xaxis.minorticks_off()
    axis.grid(visible=True, alpha=0.3)


def distribution(axis: Axis, lines: dict[str, dict[str, float]], title: str) -> None:
    """Draw a line for each name, of latencies in ms from p50 to max. The quantiles are in ns."""
    for name, quantiles in lines.items():
        times_ms = [quantiles[quantile] / 1e6 for quantile in _QUANTILES]
        color = color_of(name, lines)
        axis.plot(_NAMES, times_ms, "o-", label=name, color=color, markersize=4)
    axis.set(title=title)
    plain(axis)
    axis.grid(visible=True, alpha=0.3)


def legends(*axes: Axis) -> None:
    for axis in axes:
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize="small")


def plain(axis: Axis) -> None:
    """Show an axis with a logarithmic y whose ticks are numbers, not powers."""
    from matplotlib.ticker import FuncFormatter

    def between(value: float, _: object) -> str:
        low, high = axis.get_ylim()
        is_named = f"{value:e}"[0] in "25" and high < low * _NARROW
        return f"{value:,g}" if is_named else ""

    axis.set_axis_on()
    axis.set(yscale="log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.yaxis.set_minor_formatter(FuncFormatter(between))


def unique(values: Iterable[Any]) -> list[Any]:
    """Return the different values, in the order of their first occurrence."""
    return list(dict.fromkeys(values))


def columns_of(
    rows: Sequence[Results], name: str, x: str, y: str, scale: float = 1
) -> dict[str, list[tuple[float, float]]]:
    """Return the points (x, y / scale) for each value of the column `name`."""
    names = unique(row[name] for row in rows)
    return {n: [(row[x], row[y] / scale) for row in rows if row[name] == n] for n in names}


def _commits(results: Results) -> Any:
    delays = unique(row["delay_ms"] for row in results["rows"])
    kinds = unique(row["waiting"] for row in results["rows"])
    figure, axes = panels(len(kinds), len(delays))
    for across, waiting in zip(axes, kinds, strict=True):
        for axis, delay_ms in zip(across, delays, strict=True):
            rows = [
                row
                for row in results["rows"]
                if (row["delay_ms"], row["waiting"]) == (delay_ms, waiting)
            ]
            title = "native sync" if not delay_ms else f"sync +{delay_ms:g} ms"
            against(axis, columns_of(rows, "peer", "count", "per_s"), waiting, title)
        across[0].set_ylabel("durable updates/s")
    axes[0][-1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.02, 1))
    figure.set_figwidth(figure.get_figwidth() + _LEGEND_INCHES)
    return figure


def _append(results: Results) -> Any:
    figure, ((speed, memory),) = panels(1, 2)
    for name in ("bare", "append"):
        rates = results["rounds"][name]
        speed.plot(range(1, len(rates) + 1), rates, label=name)
    speed.set(title="records/s", xlabel="round", ylim=(0, None))
    memory.plot(*zip(*results["growth"], strict=True))
    memory.set(title="the process has grown by, MiB", xlabel="s", ylim=(0, None))
    legends(speed)
    return figure


def _hold(results: Results) -> Any:
    """Draw a bar for each version and kind of record."""
    figure, ((axis,),) = panels(1, 1)
    for version in results["rounds"]:
        for kind in ("plain", "packed"):
            axis.barh(f"{kind}, {version}", results[version][f"{kind}_ns"])
    axis.invert_yaxis()
    axis.set(title="lock held, ns")
    return figure


def _recover(results: Results) -> Any:
    kinds = {"log": "records", "fleet": "agents"}
    figure, axes = panels(2, len(kinds))
    for (time, memory), (kind, size) in zip(zip(*axes, strict=True), kinds.items(), strict=True):
        rows = [
            {**row, "open_ms": row["open_s"] * 1e3}
            for row in results["rows"]
            if row["what"].startswith(kind)
        ]
        against(time, columns_of(rows, "what", "records", "open_ms"), size, "open, ms")
        peaks = columns_of(rows, "what", "records", "peak_mib")
        against(memory, peaks, size, "peak memory, MiB")
        memory.set(yscale="linear", ylim=(0, None))
        legends(time)
    return figure


def _compact(results: Results) -> Any:
    figure, ((latency, space),) = panels(1, 2)
    times = results["latency"]
    lines = {"compaction off": times["off"], "compaction on": times["on"]}
    distribution(latency, lines, "from due")
    latency.set_ylabel("ms")
    legends(latency)
    sizes = results["space"]
    names = ("appended", "written", "held", "state")
    space.bar(names, [sizes[name] / 2**20 for name in names])
    space.set(title=f"{sizes['updates']:,} updates, MiB")
    return figure


def _fanout(results: Results) -> Any:
    """Draw a column for each fleet size, with threads above and coroutines, if any, below."""
    loops = results["loops"]
    fleets = unique(row["agents"] for row in (*results["rows"], *loops))
    labels = ["updates/s", "p99 from due, ms", "from due, ms"] if results["rows"] else []
    figure, axes = panels(len(labels) + bool(loops), len(fleets))
    for axis in axes.flat:
        axis.set_axis_off()  # a fleet may lack the results of threads or of coroutines
    for column, agents in zip(zip(*axes, strict=True), fleets, strict=True):
        rows = [row for row in results["rows"] if row["agents"] == agents]
        if rows:
            speed, tail, latency = column[:3]
            title = f"{agents:,} agents"
            against(speed, columns_of(rows, "way", "threads", "updates_per_s"), "threads", title)
            late = [{**row, "p99": row["due"]["p99"]} for row in rows]
            against(tail, columns_of(late, "way", "threads", "p99", 1e6), "threads", "")
            most = max(row["threads"] for row in rows)
            lines = {row["way"]: row["due"] for row in rows if row["threads"] == most}
            distribution(latency, lines, f"{most} threads")
        lags = {
            f"{row['coroutines']:,}, {name}": row[key]
            for row in loops
            if row["agents"] == agents
            for name, key in (("at the rate", "lag"), ("full speed", "lag_at_full_speed"))
        }
        if lags:
            distribution(column[-1], lags, f"coroutines, {agents:,} agents")
    for across, label in zip(axes, [*labels, "lag of the loop, ms"], strict=False):
        across[0].set_ylabel(label)
    legends(axes[0][-1], *axes[-1] if loops else ())
    return figure


def _burn(results: Results) -> Any:
    """Draw a column for each number of computing threads, and two rows for each kind of waiter."""
    burners = unique(row["burners"] for row in results["rows"])
    kinds = unique(row["waiting"] for row in results["rows"])
    figure, axes = panels(2 * len(kinds), len(burners))
    for kind, waiting in enumerate(kinds):
        of_kind = axes[2 * kind : 2 * kind + 2]
        for (speed, latency), count in zip(zip(*of_kind, strict=True), burners, strict=True):
            rows = [r for r in results["rows"] if (r["burners"], r["waiting"]) == (count, waiting)]
            beside = f"{count} threads compute" if count != 1 else "1 thread computes"
            measured = [row for row in rows if row["per_s"]]
            against(speed, columns_of(measured, "peer", "count", "per_s"), waiting, beside)
            most = max(row["count"] for row in rows)
            lines = {row["peer"]: row["due"] for row in rows if row["count"] == most}
            distribution(latency, lines, f"{most} {waiting}, {results['rate_per_s']:g} updates/s")
        of_kind[0][0].set_ylabel("durable updates/s")
        of_kind[1][0].set_ylabel("from due, ms")
    legends(axes[0][0], axes[1][0])
    return figure


def _imports(results: Results) -> Any:
    return _bars({row["what"]: row["wall_ms"] for row in results["rows"]}, "start to end, ms")


def _flushes(results: Results) -> Any:
    rows = results["rows"]
    lengths = {f"{row['threads']} x {row['record_bytes']} B": row["flushes"] for row in rows}
    return _bars(lengths, f"flushes a commit, {results['file_system']}")


def _mirror(results: Results) -> Any:
    return _bars({row["what"]: row["rate"] for row in results["rows"]}, "records/s")


def _runners(results: Results) -> Any:
    return _bars({row["runner"]: row["commands_per_s"] for row in results["rows"]}, "commands/s")


def _bars(lengths: dict[str, float], title: str) -> Any:
    figure, ((axis,),) = panels(1, 1)
    axis.barh(list(lengths), list(lengths.values()))
    axis.invert_yaxis()
    axis.set(title=title)
    return figure


def _tables(results: Results) -> Any:
    """Draw a row for each number of rows, and a column for each kind of call."""
    sizes = unique(row["rows"] for row in results["rows"])
    kinds = unique(row["what"] for row in results["rows"])
    figure, axes = panels(len(sizes), len(kinds))
    for across, size in zip(axes, sizes, strict=True):
        for axis, what in zip(across, kinds, strict=True):
            rows = [r for r in results["rows"] if (r["rows"], r["what"]) == (size, what)]
            axis.barh([row["peer"] for row in rows], [row["cost"] for row in rows])
            axis.invert_yaxis()
            axis.set(title=f"{what}, {size:,} rows", xlabel=rows[0]["unit"], xscale="log")
    return figure


def _growth(results: Results) -> Any:
    """Draw a panel for each figure, with a line for each state."""
    figures = {
        "item_bytes": "memory an item, B",
        "update_us": "update, us of CPU",
        "freeze_us": "snapshot, us",
        "hold_max_ms": "longest hold while it grows, ms",
        "collection_ms": "added to a full collection, ms",
        "checkpoint_s": "checkpoint while idle, s",
        "open_cpu_s": "open, s of CPU",
        "disk_mib": "disk under busy threads, MiB",
    }
    figure, axes = panels(2, len(figures) // 2)
    for axis, (what, title) in zip(axes.flat, figures.items(), strict=True):
        rows = [row for row in results["rows"] if row["what"] == what]
        against(axis, columns_of(rows, "state", "items", "median"), "items", title)
    legends(axes[0][0])
    return figure


def _adapters(results: Results) -> Any:
    """Draw a row for each delay of syncs, and a column for each kind of call."""
    delays = unique(row["delay_ms"] for row in results["rows"])
    kinds = unique(row["what"] for row in results["rows"])
    figure, axes = panels(len(delays), len(kinds))
    for across, delay in zip(axes, delays, strict=True):
        for axis, what in zip(across, kinds, strict=True):
            rows = [r for r in results["rows"] if (r["delay_ms"], r["what"]) == (delay, what)]
            names = [f"{row['count']} {row['peer']}" for row in rows]
            axis.barh(names, [row["per_s"] for row in rows])
            axis.invert_yaxis()
            axis.set(title=f"{what}s/s, +{delay:g} ms", xscale="log")
    return figure


DRAWN: dict[str, Callable[[Results], Any]] = {
    "commits": _commits,
    "append": _append,
    "hold": _hold,
    "recover": _recover,
    "compact": _compact,
    "fanout": _fanout,
    "burn": _burn,
    "flushes": _flushes,
    "mirror": _mirror,
    "runners": _runners,
    "imports": _imports,
    **dict.fromkeys(("inspector", "legacy"), _imports),
    "tables": _tables,
    "growth": _growth,
    "adapters": _adapters,
}


def draw(results: Results, path: Path) -> None:
    figure = DRAWN[results["bench"]](results)
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    from matplotlib import pyplot

    pyplot.close(figure)

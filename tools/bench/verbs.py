"""Measure the verbs of journal-inspect that go over all records of a manager's journal.

The journal is made once, by the version before if there is one. It has no checkpoint, and most of
its agents have ended. Each run of a verb is a process of its own; with --before, the runs of the
two versions alternate. The times are those of the processor, from the start of a process to its
end.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import imports, verbs_journal
from bench.figures import Bar, at_most
from bench.machine import about
from bench.output import parsed, show
from journal import JournalReader

ROOT = Path(__file__).resolve().parents[2]
BAR = 0.5
# The peak of a finished child would include the memory of its parent, so the child reads its own.
_PEAK = """
import runpy, sys
peak = sys.argv.pop(1)
try:
    runpy.run_module("journal_inspect", run_name="__main__", alter_sys=True)
finally:
    facts = dict(line.split(":", 1) for line in open("/proc/self/status"))
    with open(peak, "w") as file:
        file.write(facts["VmHWM"].split()[0])
"""


@dataclass(frozen=True)
class Row:
    """The medians of a verb's rounds.

    `ratio` and `peak_ratio` are those to the version before, and None without one.
    """

    verb: str
    cpu_s: float
    peak_mib: float
    ratio: float | None
    peak_ratio: float | None


def commands(journal: Path, last_lsn: int, agents: int) -> dict[str, list[str]]:
    """Return the arguments of each verb. The one agent is from the middle of the log."""
    path, name = str(journal), f"task-{agents // 2}"
    page = str(journal.parent / "report.html")
    return {
        "agents": ["agents", path],
        "show": ["show", path, name],
        "history": ["history", path, name],
        "diff": ["diff", path, str(last_lsn // 2), str(last_lsn)],
        "report": ["report", path, "-o", page],
        "log -g": ["log", path, "-g", f"Task {agents // 2}:"],
        "log": ["log", path],
    }


def measured(checkout: Path, directory: Path, arguments: list[str]) -> tuple[float, float]:
    """Run a verb of a version. Return its CPU seconds, and its peak memory in MiB."""
    peak = directory / "peak"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _PEAK, str(peak), *arguments],
        env=environment(checkout, directory),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != (1 if arguments[0] == "diff" else 0):
        raise SystemExit(f"bench: {' '.join(arguments)} of {checkout}: exit {process.returncode}")
    return used.ru_utime + used.ru_stime, int(peak.read_text()) / 1024


def environment(checkout: Path, directory: Path) -> dict[str, str]:
    """Return an environment with the packages of a version, which gets no new files."""
    return {
        **imports.environment(),
        "PYTHONPATH": os.pathsep.join((str(checkout), str(checkout / "tools"))),
        "PYTHONPYCACHEPREFIX": str(directory / "compiled"),
    }


def prepare(
    directory: Path, name: str, checkout: Path, records: int, agents: int
) -> dict[str, list[str]]:
    """Make a journal with the manager of a version. Return the arguments of each verb for it."""
    workspace = directory / name
    workspace.mkdir()
    program, size = verbs_journal.__file__, (str(records), str(agents))
    subprocess.run(
        [sys.executable, "-P", program, str(workspace), *size],
        env=environment(checkout, directory),
        check=True,
    )
    journal = workspace / ".subagents"
    with JournalReader.open(journal) as reader:
        return commands(journal, reader.last_lsn, agents)


def measure(options: argparse.Namespace) -> Iterator[Row]:
    before = options.before and options.before.resolve()
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        directory = Path(name)
        checkouts = [before, ROOT] if before else [ROOT]
        size = options.records, options.agents
        runs = prepare(directory, "measured", checkouts[0], *size)
        small = prepare(directory, "small", checkouts[0], 100, 8)
        for verb in options.verbs or runs:
            for checkout in checkouts:  # the first run compiles
                measured(checkout, directory, small[verb])
            rounds = [
                [measured(each, directory, runs[verb]) for each in checkouts]
                for _ in range(options.rounds)
            ]
            now = [of_round[-1] for of_round in rounds]
            cpu_s, peak_mib = map(statistics.median, zip(*now, strict=True))
            ratios = [
                statistics.median(after[at] / then[at] for then, after in rounds)
                if before
                else None
                for at in (0, 1)
            ]
            yield Row(verb, cpu_s, peak_mib, *ratios)


def table(rows: list[Row]) -> Iterator[str]:
    yield f"{'':10}{'CPU':>9}{'peak':>14}{'CPU to before':>16}{'peak to before':>17}"
    for row in rows:
        line = f"{row.verb:10}{row.cpu_s:7.2f} s{row.peak_mib:10.1f} MiB"
        if row.ratio is not None:
            line += f"{row.ratio:14.3f} x{row.peak_ratio:15.3f} x"
        yield line


def bars(rows: list[Row]) -> Iterator[Bar]:
    """Yield a bar for each verb, but `log` of everything, where most of the time is the output."""
    for row in rows:
        if row.ratio is not None and row.verb != "log":
            yield at_most(f"{row.verb}: CPU to before", row.ratio, BAR)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python tools/bench verbs", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--agents", type=int, default=28_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--verbs", nargs="+", choices=list(commands(Path(), 0, 0)), help="default: all"
    )
    parser.add_argument(
        "--before", type=Path, metavar="CHECKOUT", help="compare with this version of the code"
    )
    options = parsed(parser, arguments)
    rows = list(measure(options))
    size = {"records": options.records, "agents": options.agents}
    results = {**size, "rows": [asdict(row) for row in rows]}
    return show("verbs", options, about(), results, table(rows), bars(rows))

"""Progress: how a run goes, and how it came out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from manager._cli.output import cell, say
from manager.agent import LIVE, STATUSES

if TYPE_CHECKING:  # asyncio, which it needs, takes longer to import than `list` to run
    from manager._run.runner import RunReport

_LINE_EVERY_S = 5.0
_FAILED_SHOWN = 10


@contextmanager
def progress() -> Iterator[Callable[[RunReport], None]]:
    """Who is told how a run goes: a live bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task_id = bar.add_task("", total=None)

        def tell(report: RunReport) -> None:
            ended = len(report.agents) - _unfinished(report)
            text = _standing(report)
            bar.update(task_id, total=len(report.agents), completed=ended, description=text)

        yield tell


class _Lines:
    def __init__(self) -> None:
        self._due = time.monotonic() + _LINE_EVERY_S

    def __call__(self, report: RunReport) -> None:
        if time.monotonic() >= self._due:
            say(_standing(report))
            self._due = time.monotonic() + _LINE_EVERY_S


def _unfinished(report: RunReport) -> int:
    return sum(report.counts[status] for status in LIVE)


def _standing(report: RunReport) -> str:
    counts = ", ".join(f"{report.counts[s]} {s}" for s in STATUSES if report.counts[s])
    total = len(report.agents)
    return f"{total} task{'' if total == 1 else 's'}: {counts or 'nothing to run'}"


def sum_up(report: RunReport, took_s: float) -> None:
    failed = [agent for agent in report.agents.values() if agent.status == "failed"]
    for agent in failed[:_FAILED_SHOWN]:
        reason = "; ".join((agent.reason or "").splitlines())
        say(f"failed: {agent.name}: {cell(agent.prompt)}: {reason}")
    if len(failed) > _FAILED_SHOWN:
        say(f"failed: {len(failed) - _FAILED_SHOWN} more; subagents list --status failed")
    if report.signal is not None:
        say(f"stopped by {report.signal.name}; the same command goes on from here")
    if report.others:
        say(f"{report.others} unfinished from elsewhere are left alone; without TASKS they run")
    say(f"{_standing(report)}; {took_s:.1f} s")

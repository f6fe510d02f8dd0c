"""Progress: shows the progress and the outcome of a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from _journal_console.text import one_line

from manager._cli.output import say
from manager._cli.table import cell
from manager._run.options import GRACE_S
from manager.agent import LIVE, STATUSES, Status

if TYPE_CHECKING:  # the runner imports asyncio, which takes longer than the whole `list` command
    from manager._run.report import RunReport

_LINE_EVERY_S = 5.0
_FAILED_SHOWN = 10
_BAR_WIDTH, _BAR_WIDTH_MIN, _BAR_FROM_WIDTH = 40, 8, 100  # in columns
_NAMES_SHOWN = 5


@contextmanager
def progress(*, is_bar: bool) -> Iterator[Callable[[RunReport], None]]:
    """Yield a function that shows a run's report: in a live bar if stderr is a terminal and
    `is_bar` is true, otherwise in a line every five seconds.

    A terminal that goes away, as when a connection is lost, is not an error.
    """
    if not is_bar or not sys.stderr.isatty():
        yield _Notices(_Lines())
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        BarColumn(_BAR_WIDTH if console.width >= _BAR_FROM_WIDTH else _BAR_WIDTH_MIN),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    bar = Progress(*columns, console=console, transient=True)
    estimate = _Estimate()
    task_id = bar.add_task("", total=None)

    def show(report: RunReport) -> None:
        ended = len(report.agents) - _unfinished(report)
        text = _beside_bar(report) + estimate.text(report)
        bar.update(task_id, total=len(report.agents), completed=ended, description=text)

    with suppress(OSError):
        bar.start()
    try:
        yield _Notices(show)
    finally:
        with suppress(OSError):
            bar.stop()


class _Notices:
    """Says once what a stop or a pause waits for, and passes all reports on."""

    def __init__(self, show: Callable[[RunReport], None]) -> None:
        self._show = show
        self._is_said = False
        self._was_waiting = False
        self._is_awaited_said = False

    def __call__(self, report: RunReport) -> None:
        if report.is_waiting and not self._was_waiting:
            say("paused; continue with: subagents resume, or subagents resume REF; Ctrl-C stops")
        self._was_waiting = report.is_waiting
        if report.is_stopping and not self._is_said:
            self._is_said = True
            if running := report.counts["running"]:
                commands = f"{running} command{'' if running == 1 else 's'}"
                say(f"stopping {commands} within {GRACE_S:.0f} s; Ctrl-C again kills them at once")
        if report.awaited and not self._is_awaited_said:
            self._is_awaited_said = True
            say(
                f"waiting until the changes of {_tasks(report.awaited)} are durable; the disk may "
                "be full; Ctrl-C again gives up"
            )
        with suppress(OSError):
            self._show(report)


class _Lines:
    def __init__(self) -> None:
        self._due_s = time.monotonic() + _LINE_EVERY_S
        self._estimate = _Estimate()

    def __call__(self, report: RunReport) -> None:
        if time.monotonic() >= self._due_s:
            say(_summary(report) + self._estimate.text(report))
            self._due_s = time.monotonic() + _LINE_EVERY_S


def _unfinished(report: RunReport) -> int:
    return sum(report.counts[status] for status in LIVE)


def _summary(report: RunReport) -> str:
    counts = _counts(report, STATUSES)
    return f"{_tasks(len(report.agents))}: {counts or 'nothing to run'}"


def _beside_bar(report: RunReport) -> str:
    """Return the counts that the bar does not imply, so that those of a large run fit, too."""
    return _counts(report, [s for s in STATUSES if s not in ("queued", "completed")])


def _counts(report: RunReport, statuses: Iterable[Status]) -> str:
    return ", ".join(f"{report.counts[s]} {s}" for s in statuses if report.counts[s])


def _tasks(count: int) -> str:
    return f"{count} task{'' if count == 1 else 's'}"


class _Estimate:
    """Estimates when the run will have ended, from the tasks that have ended in it."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()

    def text(self, report: RunReport) -> str:
        """Return the estimate in words, or "" if nothing is known or nothing is left."""
        unfinished = _unfinished(report)
        if not report.ended_now or not unfinished or report.is_stopping:
            return ""
        left_s = (time.monotonic() - self._start_s) / report.ended_now * unfinished
        return f"; ETA {timedelta(seconds=round(left_s))}"


def show_outcome(report: RunReport, took_s: float, doubt: str) -> None:
    """Print the failed tasks, what was not run and why, and a summary.

    `doubt` says why the state that the run found may not be the user's, or is "".
    """
    failed = [agent for agent in report.agents.values() if agent.status == "failed"]
    for agent in failed[:_FAILED_SHOWN]:
        say(f"failed: {agent.name}: {cell(agent.prompt)}: {one_line(agent.reason or '')}")
    if len(failed) > _FAILED_SHOWN:
        say(f"failed: {len(failed) - _FAILED_SHOWN} more; subagents list --status failed")
    if report.edited:
        count = len(report.edited)
        one, many = "1 edited line of a completed task", f"{count} edited lines of completed tasks"
        say(f"not run: {one if count == 1 else many}: {_some(report.edited)}")
    if report.joblog_error is not None:
        say(f"the job log is incomplete: {report.joblog_error.strerror}")
    if report.blocked and report.signal is None:
        tasks, names = _tasks(len(report.blocked)), _some(report.blocked)
        say(f'not run: {tasks}, because a task in "after" has not completed: {names}')
    if report.unrecorded:
        say(f"not durable: the changes of {_tasks(report.unrecorded)}; the next run repeats them")
    if report.signal is not None:
        say(f"stopped by {report.signal.name}; run the same command again to continue")
    elif report.halted_by is not None:
        rest = "; run the same command again to run the rest" if _unfinished(report) else ""
        say(f"halted, because {cell(report.halted_by.name)} failed{rest}")
    if report.others:
        tasks = f"{report.others} unfinished task{'' if report.others == 1 else 's'}"
        advice = "`subagents run` without TASKS runs all unfinished tasks"
        if doubt:
            advice = f"{doubt}; look at them before you run them: subagents list"
        say(f"not run: {tasks} outside TASKS; {advice}")
    parts = ""
    if report.ended_before:
        parts = f" ({report.ended_now} run now, {report.ended_before} had ended before)"
    again = "; to run failed tasks again, add --retry-failed" if failed else ""
    say(f"{_summary(report)}{parts}; {took_s:.1f} s{again}")


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    return ", ".join(map(cell, names[:_NAMES_SHOWN])) + more

"""The next open of a journal, in the words of a report."""

from __future__ import annotations

from _journal_console.text import count_of, escaped, size

from journal_inspect.rendering.messages import command
from journal_inspect.report.data import Observed
from journal_inspect.report.fleet import Life


def next_open(observed: Observed, lives: list[Life]) -> list[str]:
    """Return what the next open would do, in sentences."""
    plan = observed.recovery
    sentences = []
    if observed.writer_pid is not None:
        writer = f"Process {observed.writer_pid}" if observed.writer_pid else "A live process"
        sentences.append(
            f"{writer} has the journal open. If it ended now, the next open would do this:"
        )
    if plan.refused:
        told = "what to do" if observed.is_only_marker_damaged else "what a repair would keep"
        refuses, shows = "It refuses", "This command shows"
        if observed.mirror:
            mirror = escaped(observed.mirror)
            sentences.append(f"With its mirror, {mirror}, it first replaces what is damaged.")
            refuses, shows = "Without its mirror, it refuses", "If both refuse, this command shows"
        return [
            *sentences,
            f"{refuses} the journal and changes nothing: {escaped(plan.refused)}.",
            f"{shows} {told}: {escaped(command('repair', observed.path))}",
        ]
    begin = (
        f"It loads the checkpoint at LSN {plan.checkpoint_lsn}"
        if plan.checkpoint_lsn
        else "It starts from an empty state"
    )
    sentences.append(f"{begin} and replays {count_of(plan.records, 'record')}.")
    last_path = observed.segments[-1].path if observed.segments else ""
    for finding in observed.findings.first:
        if finding.kind == "torn_tail" and finding.path == last_path:
            sentences.append(f"It passes over a torn tail of {size(finding.size_bytes)}.")
    cut_off = sum(life.was_cut_off for life in lives)
    if running := sum(life.agent["status"] == "running" for life in lives):
        verb = "is" if running == 1 else "are"
        sentences.append(f"It interrupts {count_of(running, 'agent')} that {verb} running now.")
    elif cut_off:
        verb = "was" if cut_off == 1 else "were"
        agents = count_of(cut_off, "agent")
        sentences.append(f"It interrupts {agents} that {verb} running when the process ended.")
    return sentences

"""The verbs for a manager's journal: their arguments and help."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from journal_inspect.commands.options import (
    AT,
    MEMORY_MAX,
    MOMENT,
    PATH,
    PATTERN,
    REF,
    UTC,
    TakesNegatives,
    complete_agent,
    redact_option,
    verb,
)

if TYPE_CHECKING:
    from journal_inspect.commands.fleets import Moment
    from journal_inspect.rendering.renderer import Renderer

# A copy of the manager's statuses: importing the manager would make `--help` slow.
STATUSES = (
    *("queued", "running", "interrupted", "completed", "failed", "cancelled"),
    "budget_exhausted",
)


@click.command(short_help="Show a manager's agents, now or as of any moment.")
@PATH
@AT
@click.option(
    "-s",
    "--status",
    "statuses",
    type=click.Choice(STATUSES),
    multiple=True,
    help="Show only agents with this status; may be repeated.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    help="Show only agents with this name; * and ? match any text and character; may be repeated.",
)
@click.option(
    "--parent",
    metavar="REF",
    shell_complete=complete_agent,
    help='Show only children of this agent; "none": only agents without a parent.',
)
@click.option(
    "-g",
    "--grep",
    "--text",
    type=PATTERN,
    help="Show only agents whose prompt, reason or result matches.",
)
@click.option("--tree", is_flag=True, help="Show a tree, with the ancestors of each agent.")
@verb(payload=True)
def agents(
    path: str,
    renderer: Renderer,
    at: Moment | None,
    statuses: tuple[str, ...],
    names: tuple[str, ...],
    parent: str | None,
    grep: re.Pattern[str] | None,
    tree: bool,
) -> int:
    """Show a manager's agents as the next open would find them, or as of any moment.

    Exits with 1 if no agent matches, with 4 if the journal is not a manager's.
    """
    if tree and renderer.form != "text":
        raise click.UsageError("--tree needs text output; in JSON, each agent has a parent_id")
    from journal_inspect.commands.agents import Filter, show_agents

    wanted = Filter(statuses=statuses, names=names, parent=parent, grep=grep)
    return show_agents(path, renderer, at, wanted, tree=tree)


@click.command()
@PATH
@REF
@AT
@verb(payload=True)
def show(path: str, renderer: Renderer, ref: str, at: Moment | None) -> int:
    """Show all fields of an agent. REF is its id, the beginning of its id, or its name.

    Exits with 1 if no such agent exists.
    """
    from journal_inspect.commands.show import show_agent

    return show_agent(path, renderer, ref, at)


@click.command(short_help="Show each change of an agent.")
@PATH
@REF
@AT
@verb(payload=True)
def history(path: str, renderer: Renderer, ref: str, at: Moment | None) -> int:
    """Show each change of an agent: its LSN, its time, and the changed fields.

    REF is its id, the beginning of its id, or its name, and may be an agent that has been removed.
    The changes go back as far as the log is kept.
    """
    from journal_inspect.commands.history import show_history

    return show_history(path, renderer, ref, at)


@click.command(cls=TakesNegatives, short_help="Show the agents that differ between two moments.")
@PATH
@click.argument("a", type=MOMENT)
@click.argument("b", type=MOMENT)
@verb(payload=True)
def diff(path: str, renderer: Renderer, a: Moment, b: Moment) -> int:
    """Show the agents that differ between the moments A and B, and the fields that differ.

    A and B are LSNs or times. LSN 0 is before the first record. Exits with 1 if an agent differs.
    """
    from journal_inspect.commands.diff import show_diff

    return show_diff(path, renderer, a, b)


@click.command(short_help="Write a page for a browser: timeline, commits, health.")
@PATH
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    metavar="FILE.html",
    help="The file to write (-: stdout).",
)
@UTC
@redact_option
@MEMORY_MAX
def report(path: str, out: str, utc: bool, redact: tuple[str, ...], memory_max: int) -> int:
    """Write an HTML page: the timeline of the fleet, commits, sizes, health, errors.

    The page is self-contained and needs no network. Exits with 3 if the journal is damaged.
    """
    from journal_inspect.commands.report import write_report

    return write_report(path, out, redact=redact, utc=utc, memory_max=memory_max)


COMMANDS = (agents, show, history, diff, report)

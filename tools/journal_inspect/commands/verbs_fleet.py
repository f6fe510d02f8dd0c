"""The verbs that read the journal of a manager: their arguments, and what they are called with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from journal_inspect.commands.options import AT, MOMENT, PATH, PATTERN, UTC, redact_option, verb

if TYPE_CHECKING:
    from journal_inspect.commands.fleets import Moment
    from journal_inspect.rendering.renderer import Renderer

# As the manager has them: to import it for its `--help` takes too long.
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
    help="Only with this status; may be given again.",
)
@click.option("--name", "names", multiple=True, help="Only so called; may have * and ?; as above.")
@click.option("--parent", metavar="REF", help='Only children of this agent; "none": the roots.')
@click.option(
    "-g", "--grep", "--text", type=PATTERN, help="Only if prompt, reason or result match."
)
@click.option("--tree", is_flag=True, help="Children below their parents, with those above them.")
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
    """Show a manager's agents, as the next open would find them, or as of then.

    Exits with 1 if there are none, with 4 if it is not the journal of a manager.
    """
    if tree and renderer.form != "text":
        raise click.UsageError("--tree is for text; JSON has each one's parent_id")
    from journal_inspect.commands.agents import Filter, show_agents

    wanted = Filter(statuses=statuses, names=names, parent=parent, grep=grep)
    return show_agents(path, renderer, at, wanted, tree=tree)


@click.command()
@PATH
@click.argument("ref")
@AT
@verb(payload=True)
def show(path: str, renderer: Renderer, ref: str, at: Moment | None) -> int:
    """Show all of one agent: REF is its id, or its name.

    Exits with 1 if there is no such agent.
    """
    from journal_inspect.commands.show import show_agent

    return show_agent(path, renderer, ref, at)


@click.command(short_help="Show each change of one agent.")
@PATH
@click.argument("ref")
@AT
@verb(payload=True)
def history(path: str, renderer: Renderer, ref: str, at: Moment | None) -> int:
    """Show each change of one agent: when, at which LSN, what changed.

    As far back as the log is kept; REF may be one that was removed meanwhile.
    """
    from journal_inspect.commands.history import show_history

    return show_history(path, renderer, ref, at)


class _TakesTimesAgo(click.Command):
    """A word such as -1h is a time: no option begins with a digit."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = [f" {word}" if word[:1] == "-" and word[1:2].isdigit() else word for word in args]
        return super().parse_args(ctx, words)


@click.command(cls=_TakesTimesAgo, short_help="Show the agents that differ between two moments.")
@PATH
@click.argument("a", type=MOMENT)
@click.argument("b", type=MOMENT)
@verb(payload=True)
def diff(path: str, renderer: Renderer, a: Moment, b: Moment) -> int:
    """Show the agents that differ between two moments, and their fields.

    A and B are LSNs or times; 0 is before the first record. Exits with 1 if any differ.
    """
    from journal_inspect.commands.diff import show_diff

    return show_diff(path, renderer, a, b)


@click.command(short_help="Write a page for a browser: timeline, commits, health.")
@PATH
@click.option("-o", "--output", "out", required=True, metavar="FILE.html", help="To be written.")
@UTC
@redact_option
def report(path: str, out: str, utc: bool, redact: tuple[str, ...]) -> int:
    """Write one page for a browser: the fleet's timeline, commits, sizes, health, errors.

    It holds all that it needs, and asks no network. Exits with 3 if the journal is damaged.
    """
    from journal_inspect.commands.report import write_report

    return write_report(path, out, redact=redact, utc=utc)


COMMANDS = (agents, show, history, diff, report)

"""The verbs that read any journal: their arguments, and what they are called with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from journal_inspect.commands.options import (
    LSN,
    MOMENT,
    PATH,
    PATTERN,
    check_range,
    lsn_range,
    open_reader,
    verb,
)

if TYPE_CHECKING:
    from journal_inspect.commands.log import Wanted
    from journal_inspect.commands.moments import Time
    from journal_inspect.rendering.renderer import Renderer

# Not with --frames: what asks about records, or never ends.
_OF_RECORDS = ("reverse", "follow", "agents", "kinds", "grep")


@click.command()
@PATH
@verb()
def info(path: str, renderer: Renderer) -> int:
    """Show what is in a journal, and what the next open would do.

    Exits with 3 if the log is damaged, or an open refuses it.
    """
    from journal_inspect.commands.info import show_info

    with open_reader(path) as reader:
        return show_info(reader, renderer)


@click.command()
@PATH
@click.option("-n", "--lines", "count", type=click.IntRange(min=0), help="The last N only.")
@click.option("-r", "--reverse", is_flag=True, help="The newest first.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is appended; begins with 10.")
@lsn_range()
@click.option(
    "-a",
    "--agent",
    "agents",
    multiple=True,
    help="Only of this agent, by its id or a name it has or had; may be given again.",
)
@click.option("-k", "--kind", "kinds", multiple=True, help="Only of this kind; as above.")
@click.option("-g", "--grep", type=PATTERN, help="Only if what is shown of it matches.")
@click.option("--frames", is_flag=True, help="What stands in the files: headers, CRCs, damage.")
@click.option(
    "--payload",
    type=click.Choice(["none", "short", "full"]),
    help="How much of each record.  [default: short on a terminal, else full; of --frames none]",
)
@click.option("--until-match", type=PATTERN, help="With -f: end after an entry that matches.")
@click.option(
    "--timeout-s",
    type=click.FloatRange(0, min_open=True),
    help="With -f: end after so many seconds, with 124.",
)
@verb(payload=True, decoder=True)
def log(path: str, renderer: Renderer, frames: bool, **options: Any) -> int:
    """Show entries: LSN, epoch, when it was written, record.

    Of a live journal those that are durable, of a dead one those that an open would keep.
    Where the log is damaged it ends, with 3; with -r it begins at the other end. Exits with 1
    if there is no such entry, or LSNs asked for are no longer kept.

    A kind is a list's first string, or a map's `kind` or `type`. -n counts what matches.
    """
    from journal_inspect.commands.log import Wanted

    wanted = Wanted(**options)
    _check(wanted, frames, renderer)
    if frames:
        from journal_inspect.commands.frames import show_frames

        with open_reader(path) as reader:
            return show_frames(reader, renderer, wanted)
    from journal_inspect.commands.log import show_log

    with open_reader(path) as reader:
        return show_log(reader, renderer, wanted)


def _check(wanted: Wanted, frames: bool, renderer: Renderer) -> None:
    """Raise UsageError for what can't be meant."""
    check_range(wanted.from_lsn, wanted.to_lsn)
    if wanted.follow and wanted.reverse:
        raise click.UsageError("-f goes on for ever, so there is no -r of it")
    if wanted.follow and renderer.form == "json":
        raise click.UsageError("-f goes on for ever, and a JSON array does not: use -o jsonl")
    if not wanted.follow and (wanted.until_match or wanted.timeout_s):
        raise click.UsageError("--until-match and --timeout-s are for -f")
    if frames and (renderer.decode or any(getattr(wanted, name) for name in _OF_RECORDS)):
        what = "there is no -r -f -a -k -g --decoder"
        raise click.UsageError(f"--frames shows frames, not records: {what}")


@click.command()
@PATH
@click.option("--from-lsn", type=LSN, default=1, help="Leave out segments that end before it.")
@verb()
def verify(path: str, renderer: Renderer, from_lsn: int) -> int:
    """Look at every segment, record and checkpoint, needed or not.

    One line for each finding, then what is lost and what of it can be read, then the last good
    LSN: up to there an open has all, or else a repair keeps it. Findings, and what they exit with:

    \b
      corruption      3  what was durable is damaged, or something is in the way of an open
      torn_tail       1  what a crash left unfinished, or a repair cut off
      bad_checkpoint  1  does not verify; an open takes an older one
      stray           0  a file that no open reads
    """
    from journal_inspect.commands.verify import show_findings

    with open_reader(path) as reader:
        return show_findings(reader, renderer, from_lsn=from_lsn)


@click.command(short_help="Show what a journal is full of: kinds, agents, batches.")
@PATH
@lsn_range()
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="Rows.")
@verb(payload=True)
def stats(path: str, renderer: Renderer, top: int, **options: Any) -> int:
    """Show what a journal is full of: kinds, agents, batches, growth.

    Goes on behind damage, and exits with 3 then.
    """
    from journal_inspect.commands.log import Wanted
    from journal_inspect.commands.stats import show_stats

    wanted = Wanted(**options)
    check_range(wanted.from_lsn, wanted.to_lsn)
    with open_reader(path) as reader:
        return show_stats(reader, renderer, wanted, top=top)


@click.command(short_help="Show a checkpoint, or write the state as of any moment.")
@PATH
@click.option("--lsn", type=LSN, help="The one at this LSN.  [default: the newest]")
@click.option(
    "--write",
    "out",
    type=click.Path(),
    metavar="FILE",
    help="Write a manager's state as JSON Lines into this new file (-: stdout).",
)
@click.option("--at", type=MOMENT, help="With --write: the state as of then.  [default: the end]")
@verb(payload=True)
def checkpoint(
    path: str, renderer: Renderer, lsn: int | None, out: str | None, at: int | Time | None
) -> int:
    """Show a checkpoint that verifies, and its items; or write the state as of any moment.

    In JSON Lines the first line is the checkpoint, the others are its items. Exits with 1 if
    there is none.
    """
    if out is not None:
        if lsn is not None:
            raise click.UsageError("--write takes the state at --at, not a checkpoint by its --lsn")
        from journal_inspect.commands.state import write_state

        return write_state(path, renderer, out, at)
    if at is not None:
        raise click.UsageError("--at is for --write FILE; a checkpoint is shown by its --lsn")
    from journal_inspect.commands.checkpoint import show_checkpoint

    with open_reader(path) as reader:
        return show_checkpoint(reader, renderer, lsn=lsn)


COMMANDS = (info, verify, log, stats, checkpoint)

"""The verbs for any journal: their arguments and help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from _journal_console.options import finite

from journal_inspect.commands.options import (
    LSN,
    MEMORY_MAX,
    MOMENT,
    PATH,
    PATTERN,
    check_range,
    complete_agent,
    lsn_range,
    verb,
)
from journal_inspect.commands.reading import open_reader

if TYPE_CHECKING:
    from journal_inspect.commands.log import Wanted
    from journal_inspect.commands.moments import Time
    from journal_inspect.rendering.renderer import Renderer

# The options that select records or never end. They can't be combined with --frames.
_RECORD_OPTIONS = ("reverse", "follow", "agents", "kinds", "grep")


@click.command()
@PATH
@verb()
def info(path: str, renderer: Renderer) -> int:
    """Show what is in a journal, and what the next open would do.

    Exits with 3 if an open would refuse the journal, and with 1 if the log has other damage.
    """
    from journal_inspect.commands.info import show_info

    with open_reader(path) as reader:
        return show_info(reader, renderer)


@click.command()
@PATH
@click.option("-n", "--lines", "count", type=click.IntRange(min=0), help="Show only the last N.")
@click.option("-r", "--reverse", is_flag=True, help="Show the newest first.")
@click.option(
    "-f", "--follow", is_flag=True, help="Show the last 10 (see -n), then each new entry."
)
@lsn_range
@click.option(
    "-a",
    "--agent",
    "agents",
    multiple=True,
    shell_complete=complete_agent,
    help="Show only this agent: its id, the beginning of its id, or a name that it has or had; may "
    "be repeated.",
)
@click.option("-k", "--kind", "kinds", multiple=True, help="Show only this kind; may be repeated.")
@click.option("-g", "--grep", type=PATTERN, help="Show only entries whose shown text matches.")
@click.option("--frames", is_flag=True, help="Show the frames in the files: headers, CRCs, damage.")
@click.option(
    "--payload",
    type=click.Choice(["none", "short", "full"]),
    help="How much of each record to show.  [default: short on a terminal, else full; "
    "with --frames: none]",
)
@click.option(
    "--until-match", type=PATTERN, help="With -f: end after the first entry that matches."
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(0, min_open=True),
    callback=finite,
    help="With -f: end after this time, with exit code 124.",
)
@MEMORY_MAX
@verb(payload=True, decoder=True)
def log(path: str, renderer: Renderer, frames: bool, memory_max: int, **options: Any) -> int:
    """Show the entries of the log: LSN, epoch, time, record.

    While a writer is running, the durable entries are shown, otherwise those that an open would
    keep. At damage the command stops and exits with 3; -r starts from the other end and passes over
    damage. It exits with 1 if no entry matches, or if the LSNs are no longer kept.

    Records of tables are shown as their writes; in JSON, these are beside the record. A kind is a
    list's first string, or a map's `kind` or `type`. -n counts matching entries.
    """
    from journal_inspect.commands.log import Wanted

    wanted = Wanted(**options)
    _check(wanted, frames, renderer)
    if frames:
        from journal_inspect.commands.frames import show_frames

        with open_reader(path, memory_max) as reader:
            return show_frames(reader, renderer, wanted)
    from journal_inspect.commands.log import show_log

    with open_reader(path, memory_max) as reader:
        return show_log(reader, renderer, wanted)


def _check(wanted: Wanted, frames: bool, renderer: Renderer) -> None:
    """Raise UsageError for options that contradict each other."""
    check_range(wanted.from_lsn, wanted.to_lsn)
    if wanted.follow and wanted.reverse:
        raise click.UsageError("-f never ends, so it can't be combined with -r")
    if wanted.follow and renderer.form == "json":
        raise click.UsageError("-f never ends, but a JSON array must: use -o jsonl")
    if not wanted.follow and (wanted.until_match or wanted.timeout_s):
        raise click.UsageError("--until-match and --timeout-s need -f")
    if frames and (renderer.decode or any(getattr(wanted, name) for name in _RECORD_OPTIONS)):
        raise click.UsageError(
            "--frames shows frames, not records, so it takes no -r -f -a -k -g --decoder"
        )


@click.command(short_help="Check every segment, record and checkpoint.")
@PATH
@click.option("--from-lsn", type=LSN, default=1, help="Skip segments that end before this LSN.")
@verb()
def verify(path: str, renderer: Renderer, from_lsn: int) -> int:
    """Check every segment, record and checkpoint, even those that an open does not need, and the
    file MIRROR.

    Prints a line for each finding, then what is lost and what of it can be read, then the last good
    LSN: an open recovers everything up to it, or a repair keeps it. Findings and their exit codes:

    \b
      corruption      3  durable data is damaged, or a file keeps the journal from opening
      torn_tail       1  a crash left it unfinished, or a repair cut it off
      bad_checkpoint  1  it does not verify; an open uses an older one, or the log
      stray           0  an open does not read this file
    """
    from journal_inspect.commands.verify import show_findings

    with open_reader(path) as reader:
        return show_findings(reader, renderer, from_lsn=from_lsn)


@click.command(short_help="Count records by kind, agent and table; show growth.")
@PATH
@lsn_range
@click.option(
    "--top", type=click.IntRange(min=1), default=20, show_default=True, help="The number of rows."
)
@verb(payload=True)
def stats(path: str, renderer: Renderer, top: int, **options: Any) -> int:
    """Count the records and bytes by kind and agent, and the writes by table, and show batch sizes
    and growth.

    Records after damage are counted too; then the command exits with 3.
    """
    from journal_inspect.commands.log import Wanted
    from journal_inspect.commands.stats import show_stats

    wanted = Wanted(**options)
    check_range(wanted.from_lsn, wanted.to_lsn)
    with open_reader(path) as reader:
        return show_stats(reader, renderer, wanted, top=top)


@click.command(short_help="Show a checkpoint, or write the state as of any moment.")
@PATH
@click.option("--lsn", type=LSN, help="The LSN of the checkpoint.  [default: the newest]")
@click.option(
    "--write",
    "out",
    type=click.Path(),
    metavar="FILE",
    help="Write a manager's state as JSON Lines to this new file (-: stdout).",
)
@click.option(
    "--at",
    type=MOMENT,
    help="With --write: the moment of the state.  [default: the end of the log]",
)
@verb(payload=True)
def checkpoint(
    path: str, renderer: Renderer, lsn: int | None, out: str | None, at: int | Time | None
) -> int:
    """Show a checkpoint that verifies, and its items; or write the state as of any moment.

    In JSON Lines, the first line is the checkpoint, and the others are its items. Exits with 1 if
    no such checkpoint exists.
    """
    if out is not None:
        if lsn is not None:
            raise click.UsageError("--write writes the state as of --at, so it takes no --lsn")
        from journal_inspect.commands.state import write_state

        return write_state(path, renderer, out, at)
    if at is not None:
        raise click.UsageError("--at needs --write FILE; to choose a checkpoint, give --lsn")
    from journal_inspect.commands.checkpoint import show_checkpoint

    with open_reader(path) as reader:
        return show_checkpoint(reader, renderer, lsn=lsn)


COMMANDS = (info, verify, log, stats, checkpoint)

"""The verbs for mirrors: arguments and help."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from _journal_console.options import finite

from journal_inspect.commands.options import LSN, LSN_OR_0, TIME, verb

if TYPE_CHECKING:
    from journal_inspect.commands.moments import Time
    from journal_inspect.rendering.renderer import Renderer

_URL = click.argument("url")
_DIRECTORY = click.argument("directory", metavar="PATH", type=click.Path(readable=False))


@click.command(short_help="Make a directory from a mirror, as of its end or of an earlier moment.")
@_URL
@_DIRECTORY
@click.option(
    "--lsn",
    type=LSN_OR_0,
    help="The last LSN to restore, with the rest of its commit; 0 restores an empty journal.",
)
@click.option(
    "--at",
    type=TIME,
    help="Restore what was written by this time: ISO 8601, or how long ago, such as -1h30m.",
)
@verb()
def restore(url: str, directory: str, renderer: Renderer, lsn: int | None, at: Time | None) -> int:
    """Restore the journal that is mirrored at URL into the new directory PATH, and verify it.

    Without --lsn and --at, everything is restored, and the directory can continue the mirror. One
    that was restored to an earlier moment needs a new mirror.
    """
    from journal_inspect.commands.restoring import restore_mirror
    from journal_inspect.rendering.messages import showing_log_messages

    with showing_log_messages():
        return restore_mirror(url, directory, renderer, lsn=lsn, at=at)


@click.command(short_help="Keep a directory up to date with a mirror, for readers.")
@_URL
@_DIRECTORY
@click.option("--until-lsn", type=LSN, help="Stop as soon as the directory has this LSN.")
@click.option(
    "--timeout-s",
    type=click.FloatRange(0, min_open=True),
    callback=finite,
    help="Stop after this many seconds, with exit code 124.",
)
@click.option(
    "--put-aside",
    is_flag=True,
    help="If PATH has records that the mirror lacks, move its files to PATH.aside-EPOCH first.",
)
@verb()
def follow(
    url: str,
    directory: str,
    renderer: Renderer,
    until_lsn: int | None,
    timeout_s: float | None,
    put_aside: bool,
) -> int:
    """Keep the directory PATH up to date with the mirror at URL, until you stop it.

    The directory is made if it is missing. All other verbs read it meanwhile, and no writer can
    open it. Nothing is changed in the mirror. After a stop, the directory can be followed again, or
    be opened as the mirror's writer, which is then ready at once.

    Shows the LSN up to which readers find every record, and the seconds since the directory had
    everything, whenever the LSN changes, but at most once a second.
    """
    from journal_inspect.commands.following import follow_mirror
    from journal_inspect.rendering.messages import showing_log_messages

    with showing_log_messages():
        return follow_mirror(
            url,
            directory,
            renderer,
            until_lsn=until_lsn,
            timeout_s=timeout_s,
            put_aside=put_aside,
        )


@click.group(short_help="Examine a mirror, or append the records that an open put aside.")
def mirror() -> None:
    """Examine a mirror, or append the records that an open put aside.

    URL is the address of a mirror: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX,
    nats://HOST,HOST/STREAM or file:///DIRECTORY. Credentials come from the environment and from the
    configuration of the provider's own tools.
    """


@mirror.command("list", short_help="Show what a mirror has, and who writes it.")
@_URL
@verb()
def list_(url: str, renderer: Renderer) -> int:
    """Show what the mirror at URL has: the LSNs to which it can be restored, its checkpoints, its
    objects, and its writer. Reads only names and the last entry."""
    from journal_inspect.commands.mirrors import show_mirror

    return show_mirror(url, renderer)


@mirror.command(short_help="Check every entry and blob of a mirror, and its store.")
@_URL
@click.option(
    "--no-probe",
    is_flag=True,
    help="Do not check what the store guarantees, which needs the right to write.",
)
@verb()
def verify(url: str, renderer: Renderer, no_probe: bool) -> int:
    """Read every entry and every blob of the mirror at URL, and show the problems.

    \b
    damage  an entry or a blob is missing or not whole (exit code 3)
    gap     records were never mirrored (1)
    store   the store lacks a guarantee that mirrors need (1)
    stray   a blob that no mirror has (0)

    The writer may be running. `restore` also checks the records.
    """
    from journal_inspect.commands.mirrors import verify as verify_mirror

    return verify_mirror(url, renderer, probe=not no_probe)


@mirror.command(short_help="Show the records that an open put aside; with --apply, append them.")
@_DIRECTORY
@click.option(
    "--apply", is_flag=True, help="Append the records. Without this option, nothing is changed."
)
@click.option(
    "--mirror",
    "url",
    metavar="URL",
    help="The address of the journal's mirror.  [default: the one that its directory names]",
)
@click.option("--takeover", is_flag=True, help="Take the mirror over from its writer.")
@click.option(
    "--application",
    metavar="NAME",
    help="Append also to a journal of this application, which must accept the records.",
)
@verb()
def reappend(
    directory: str,
    renderer: Renderer,
    apply: bool,
    url: str | None,
    takeover: bool,
    application: str | None,
) -> int:
    """Show which records of PATH are in no mirror; with --apply, append them to the journal again.

    PATH is a directory JOURNAL.aside-EPOCH, to which an open has moved a journal's files because
    the journal and its mirror had diverged. `log PATH` shows the records.

    --apply needs the journal's lock, so stop its program first. The records get new LSNs after all
    others. Nothing in PATH is removed, and a second call appends nothing again.

    A journal without an application, and one of tables, take any records. Another application's
    state may refuse them, and then the journal would no longer open: have its program make the
    changes again, or say with --application that it takes them.
    """
    from journal_inspect.commands.reappending import show_reappend
    from journal_inspect.rendering.messages import showing_log_messages

    with showing_log_messages():
        return show_reappend(
            directory, renderer, apply=apply, url=url, takeover=takeover, application=application
        )


COMMANDS = (restore, follow, mirror)

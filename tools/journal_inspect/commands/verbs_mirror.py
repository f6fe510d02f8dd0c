"""The verbs for mirrors: arguments and help."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from journal_inspect.commands.options import LSN, verb

if TYPE_CHECKING:
    from journal_inspect.rendering.renderer import Renderer

_URL = click.argument("url")
_DIRECTORY = click.argument("directory", metavar="PATH", type=click.Path(readable=False))


@click.command(short_help="Keep a directory up to a mirror, for readers.")
@_URL
@_DIRECTORY
@click.option("--until-lsn", type=LSN, help="Stop as soon as the directory has this LSN.")
@click.option(
    "--timeout-s",
    type=click.FloatRange(0, min_open=True),
    help="Stop after this many seconds, with exit code 124.",
)
@verb()
def follow(
    url: str, directory: str, renderer: Renderer, until_lsn: int | None, timeout_s: float | None
) -> int:
    """Keep the directory PATH up to the mirror at URL, until you stop it.

    The directory is made if it is missing. All other verbs read it meanwhile, and no writer can
    open it. Nothing is changed in the mirror. After a stop, the directory can be followed again, or
    be opened as the mirror's writer, which is then ready at once.

    Shows the LSN up to which readers find every record, and the seconds since the directory had
    everything, whenever the LSN changes, but at most once a second.
    """
    from journal_inspect.commands.following import follow_mirror
    from journal_inspect.rendering.text import showing_log_messages

    with showing_log_messages():
        return follow_mirror(url, directory, renderer, until_lsn=until_lsn, timeout_s=timeout_s)


@click.group(short_help="Look into a mirror, or append records again that an open put aside.")
def mirror() -> None:
    """Look into a mirror, or append records again that an open put aside.

    URL is the address of a mirror: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX,
    nats://HOST,HOST/STREAM or file:///DIRECTORY. Credentials come from the environment and from the
    configuration of the provider's own tools.
    """


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
    the journal and its mirror had gone different ways. `log PATH` shows the records.

    --apply needs the journal's lock, so stop its program first. The records get new LSNs after all
    others. Nothing in PATH is removed, and a second call appends nothing again.

    A journal without an application, and one of tables, take any records. Another application's
    state may refuse them, and then the journal would no longer open: have its program make the
    changes again, or say with --application that it takes them.
    """
    from journal_inspect.commands.reappending import show_reappend
    from journal_inspect.rendering.text import showing_log_messages

    with showing_log_messages():
        return show_reappend(
            directory, renderer, apply=apply, url=url, takeover=takeover, application=application
        )


COMMANDS = (follow, mirror)

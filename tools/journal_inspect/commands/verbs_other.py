"""The verbs that copy or repair a journal, and those about the command line: arguments and help."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from _journal_console.exits import FINE

from journal_inspect.commands.options import LSN_OR_0, PATH, verb

if TYPE_CHECKING:
    from journal_inspect.rendering.renderer import Renderer

_SHELLS = ("bash", "zsh", "fish")
SCHEMAS = (
    *("info", "verify", "log", "stats", "checkpoint", "tables", "get", "export"),
    *("agents", "show", "history", "diff"),
    *("restore", "follow", "mirror-list", "mirror-verify", "mirror-reappend", "backup", "repair"),
)


@click.command(short_help="Copy a journal, live or not, and verify the copy.")
@PATH
@click.argument("dest", type=click.Path())
@click.option(
    "--output", "with_output", is_flag=True, help="Copy what the commands of a runner printed, too."
)
@verb(form_names=())  # elsewhere --output is -o
def backup(path: str, renderer: Renderer, dest: str, with_output: bool) -> int:
    """Copy a journal, live or not, to the new directory DEST, and verify the copy.

    The copy contains what a reader sees now, and opens as a journal of its own. Without --output,
    it leaves out the directory `output`, in which `subagents run` keeps what commands print.
    """
    from journal_inspect.commands.backup import make_backup
    from journal_inspect.rendering.messages import showing_log_messages

    with showing_log_messages():
        return make_backup(path, renderer, dest, with_output=with_output)


@click.command(short_help="Show what a repair would cut; with --apply, do it.")
@PATH
@click.option(
    "--apply", is_flag=True, help="Repair the journal. Without this option, nothing is changed."
)
@click.option(
    "--cut-at",
    type=LSN_OR_0,
    help="The last LSN to keep; 0 keeps none.  [default: the last good one]",
)
@click.option(
    "--salvage",
    is_flag=True,
    help="Write the lost records that can be read to a journal beside this one.",
)
@click.option(
    "--save-to",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="Put copies and salvaged records in DIR.  [default: the directory that contains PATH]",
)
@click.option(
    "--restore",
    is_flag=True,
    help="Salvage, and append all records that were salvaged from PATH to it again.",
)
@click.option(
    "--as-is",
    is_flag=True,
    help="With --restore, append the records without a trial on the state and without marks.",
)
@verb(payload=True)
def repair(
    path: str,
    renderer: Renderer,
    apply: bool,
    cut_at: int | None,
    salvage: bool,
    save_to: str | None,
    restore: bool,
    as_is: bool,
) -> int:
    """Show what it takes to make a damaged journal open again; with --apply, do it.

    This command needs the lock, so stop the writer first. It gives segments the names in their
    headers, rebuilds damaged headers, and cuts off everything after the last good LSN. Files that
    change, that contradict the cut, or that can't belong to the log, such as a copy under another
    name, are copied to PATH.cut-1 first. Damaged bytes stay where they are. Salvaged records go to
    PATH.salvaged-1, and only --restore appends them to the log again. If a name is taken, the next
    free number is used. While the journal has a mirror, --cut-at is refused: restore the mirror up
    to that LSN instead.

    --restore is for a manager's journal and one of tables. The records get new LSNs, and a mark
    before them says which LSNs they had, so a second call appends nothing. Records that the state
    can't apply any more are left out and listed (exit 1). The program of any other journal would
    see the marks: --as-is appends its records without them.

    Exits with 3 while the journal is damaged.
    """
    from journal_inspect.commands.repair import show_repair
    from journal_inspect.rendering.messages import showing_log_messages

    with showing_log_messages():
        return show_repair(
            path,
            renderer,
            apply=apply,
            cut_at=cut_at,
            salvage=salvage,
            save_to=save_to,
            restore=restore,
            as_is=as_is,
        )


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the script that completes this command line in a shell.

    \b
    bash: echo 'source <(journal-inspect completion bash)' >> ~/.bashrc
    zsh:  echo 'source <(journal-inspect completion zsh)' >> ~/.zshrc
    fish: journal-inspect completion fish > ~/.config/fish/completions/journal-inspect.fish
    """
    from _journal_console.completion import completion_script

    from journal_inspect.rendering.messages import PROGRAM

    print(completion_script(ctx.find_root().command, PROGRAM, shell))
    return FINE


@click.command()
@click.argument("name", metavar="VERB", type=click.Choice(SCHEMAS))
def schema(name: str) -> int:
    """Print the JSON Schema of a verb's output with -o json.

    $defs/line in it is the schema of a line of -o jsonl.
    """
    from journal_inspect.commands.schema import show_schema

    return show_schema(name)


COMMANDS = (backup, repair, completion, schema)

"""completion: print the script that completes the command line in a shell."""

from __future__ import annotations

from collections.abc import Iterable

import click

from manager._cli.output import PROGRAM, print_lines


@click.command(short_help="Print the script that completes commands in a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the script that completes this command line, with the names of agents, in a shell.

    \b
    bash: echo 'source <(subagents completion bash)' >> ~/.bashrc
    zsh:  echo 'source <(subagents completion zsh)' >> ~/.zshrc
    fish: subagents completion fish > ~/.config/fish/completions/subagents.fish
    """
    from _journal_console.completion import completion_script

    return print_lines([completion_script(ctx.find_root().command, PROGRAM, shell)])


def complete_ref(ctx: click.Context, param: click.Parameter, incomplete: str) -> Iterable[str]:
    """Return the names and ids of agents that begin with `incomplete`."""
    from manager._cli.options import state_path
    from manager.view import read_fleet

    where = ctx.params.get("workspace") or ".", ctx.params.get("state_dir") or ".subagents"
    try:
        agents = read_fleet(state_path(*where)).agents(include_archived=True)
    except Exception:  # a shell that completes words must show no error
        return []
    refs = dict.fromkeys(ref for agent in agents for ref in (agent.name, agent.agent_id))
    return [ref for ref in refs if ref.startswith(incomplete) and ref.isprintable()]

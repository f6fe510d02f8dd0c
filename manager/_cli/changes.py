"""Changes: the commands that change agents, of a run in another process, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click
from _journal_console.options import finite
from _journal_console.text import escaped

from manager._cli.completion import complete_ref
from manager._cli.options import (
    form_option,
    state_dir_option,
    state_path,
    workspace_option,
)
from manager._cli.output import print_lines, show_warnings

Command = TypeVar("Command", bound=Callable[..., Any])


def _where(command: Command) -> Command:
    form = form_option(type=click.Choice(["text", "json"]))
    for option in (form, state_dir_option, workspace_option):
        command = option(command)
    return command


def _options(command: Command) -> Command:
    return click.argument("ref", shell_complete=complete_ref)(_where(command))


_optional_ref = click.argument("ref", required=False, shell_complete=complete_ref)


def _json(value: str, where: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint=where) from error


def _json_object(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    known = None if value is None else _json(value, "--metadata")
    if known is not None and not isinstance(known, dict):
        raise click.BadParameter("not a JSON object", param_hint="--metadata")
    return known


@click.command(short_help="Cancel a sub-agent.")
@_options
@click.option("--reason", help="Reason to record.")
@click.option("--descendants", is_flag=True, help="Cancel its live descendants, too.")
def cancel(
    ref: str, workspace: str, state_dir: str, output: str, reason: str | None, descendants: bool
) -> int:
    """Cancel the sub-agent whose id or name is REF. One that has ended stays as it is.

    This also works during a run: its command gets SIGTERM, and SIGKILL after 5 s. A later run does
    not run a cancelled task again.
    """
    arguments = {"reason": reason, "descendants": descendants}
    return _print(_changed(workspace, state_dir, "cancel", ref=ref, **arguments), output)


@click.command(short_help="Run the task of a failed sub-agent again.")
@_options
def retry(ref: str, workspace: str, state_dir: str, output: str) -> int:
    """Queue another sub-agent like REF, which has ended without completing, with its name.

    If a run with this task, or a program with a worker for its type, has the state open, it runs
    the new sub-agent. If another process has the state open, the request is refused. If none has,
    the next run runs it.
    """
    return _print(_changed(workspace, state_dir, "retry", ref=ref), output)


@click.command(short_help="Pause a sub-agent, or all that would start.")
@_optional_ref
@_where
def pause(ref: str | None, workspace: str, state_dir: str, output: str) -> int:
    """Interrupt the running sub-agent REF. Without REF, start no more sub-agents.

    The command of REF gets SIGTERM, and SIGKILL after 5 s. Both last until `resume`, or until the
    run ends: it waits for what is paused, and the next run runs it. The exit code is 1 if REF has
    ended before it could be paused.
    """
    reply = _changed(workspace, state_dir, "pause", ref=ref)
    if ref is None:
        return _print(reply, output, "paused: no sub-agent starts")
    return _print(reply, output) or int(reply["status"] != "interrupted")


@click.command(short_help="Resume what was paused.")
@_optional_ref
@_where
def resume(ref: str | None, workspace: str, state_dir: str, output: str) -> int:
    """Let the interrupted sub-agent REF run again, as soon as there is a place. Its command runs
    from the beginning. Without REF, start sub-agents again after `pause` without REF.
    """
    reply = _changed(workspace, state_dir, "resume", ref=ref)
    if ref is None:
        return _print(reply, output, "resumed: sub-agents start again")
    waits = f"{escaped(reply['name'])}: waits for a place to run"
    return _print(reply, output, waits if reply["status"] == "interrupted" else None)


@click.command(short_help="Queue a new sub-agent for a program with workers.")
@click.argument("prompt")
@_where
@click.option("--type", "agent_type", default="general", show_default=True, help="Agent type.")
@click.option("--name", help="Name.  [default: its id]")
@click.option("--parent", "parent_id", metavar="REF", help="Id or name of the parent.")
@click.option("--token-budget", type=click.IntRange(1), help="Tokens that it may use.")
@click.option("--metadata", metavar="JSON", callback=_json_object, help="JSON object to keep.")
def spawn(workspace: str, state_dir: str, output: str, **arguments: Any) -> int:
    """Queue a sub-agent with PROMPT in a program that runs its type with run_workers().

    It is refused if no worker for the type is there. To add a command to `subagents run`, add a
    line to its file instead.
    """
    return _print(_changed(workspace, state_dir, "spawn", **arguments), output)


@click.command(short_help="Answer the question of a sub-agent.")
@_options
@click.argument("value")
@click.option("--json", "is_json", is_flag=True, help="VALUE is JSON, and not a text.")
def answer(ref: str, workspace: str, state_dir: str, output: str, value: str, is_json: bool) -> int:
    """Store VALUE as the answer to the question of the interrupted sub-agent REF.

    The question is its needs_input in `subagents show`. The program that runs the agent resumes it.
    """
    answered = _json(value, "VALUE") if is_json else value
    return _print(_changed(workspace, state_dir, "answer", ref=ref, value=answered), output)


@click.command(short_help="Remove sub-agents that have ended.")
@_optional_ref
@_where
@click.option(
    "--ended-for-s",
    type=click.FloatRange(0),
    callback=finite,
    help="Instead of REF: remove all sub-agents that ended at least this many seconds ago.",
)
def prune(
    ref: str | None, workspace: str, state_dir: str, output: str, ended_for_s: float | None
) -> int:
    """Remove the ended sub-agent REF and all below it, with what their commands have printed.

    A later run of the same file runs the command of a removed task again. With --ended-for-s, an
    agent stays as long as one below it stays.
    """
    if (ref is None) == (ended_for_s is None):
        raise click.UsageError("give REF, or --ended-for-s SECONDS")
    reply = _changed(workspace, state_dir, "prune", ref=ref, ended_for_s=ended_for_s)
    count = reply["pruned"]
    return _print(reply, output, f"{count} sub-agent{'' if count == 1 else 's'} pruned")


@click.command(short_help="Wait until a sub-agent has ended.")
@_options
@click.option(
    "--timeout-s",
    type=click.FloatRange(0),
    callback=finite,
    help="Time limit, in seconds.  [default: none]",
)
def wait(ref: str, workspace: str, state_dir: str, output: str, timeout_s: float | None) -> int:
    """Wait until the sub-agent REF has ended and its end is durable.

    The exit code is 0 if it has completed, 1 if it has ended in another way, or if no process runs
    that could end it, and 124 after --timeout-s.
    """
    from manager._cli.reach import waited

    reply = waited(state_path(workspace, state_dir), ref, timeout_s)
    return _print(reply, output) or int(reply["status"] != "completed")


VERBS = (spawn, cancel, retry, pause, resume, answer, wait, prune)


def _changed(workspace: str, state_dir: str, verb: str, **arguments: Any) -> dict[str, Any]:
    from manager._cli.reach import changed

    show_warnings()
    return changed(workspace, state_dir, verb, **arguments)


def _print(reply: dict[str, Any], output: str, text: str | None = None) -> int:
    if output == "json":
        return print_lines([json.dumps({"schema_version": 1} | reply, indent=2)])
    return print_lines([text or f"{escaped(reply['name'])}: {reply['status']}"])

"""Changes: the commands that change agents, of a run in another process, too."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import click
from _journal_console.text import escaped

from journal import LockedError
from manager._cli.completion import complete_ref
from manager._cli.options import (
    finite,
    form_option,
    state_dir_option,
    state_path,
    workspace_option,
)
from manager._cli.output import print_lines, say, show_warnings
from manager.agent import ENDED

Command = TypeVar("Command", bound=Callable[..., Any])

_LOCKED_FOR_S = 1.0  # a starting run holds the lock before it takes requests
_POLL_S = 0.05
_UNBOUNDED = 1 << 30


def _where(command: Command) -> Command:
    form = form_option(type=click.Choice(["text", "json"]))
    for option in (form, state_dir_option, workspace_option):
        command = option(command)
    return command


def _options(command: Command) -> Command:
    return click.argument("ref", shell_complete=complete_ref)(_where(command))


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


@click.command(short_help="Answer the question of a sub-agent.")
@_options
@click.argument("value")
@click.option("--json", "is_json", is_flag=True, help="VALUE is JSON, and not a text.")
def answer(ref: str, workspace: str, state_dir: str, output: str, value: str, is_json: bool) -> int:
    """Store VALUE as the answer to the question of the interrupted sub-agent REF.

    The question is its needs_input in `subagents show`. The program that runs the agent resumes it.
    """
    answered: Any = value
    if is_json:
        try:
            answered = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise click.BadParameter(f"not JSON: {error}", param_hint="VALUE") from error
    return _print(_changed(workspace, state_dir, "answer", ref=ref, value=answered), output)


@click.command(short_help="Remove sub-agents that have ended.")
@click.argument("ref", required=False, shell_complete=complete_ref)
@_where
@click.option(
    "--ended-for-s",
    type=click.FloatRange(0),
    callback=lambda context, option, value: finite(value),
    help="Instead of REF: remove all sub-agents that ended at least so many seconds ago.",
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
    callback=lambda context, option, value: finite(value),
    help="Time limit, in seconds.  [default: none]",
)
def wait(ref: str, workspace: str, state_dir: str, output: str, timeout_s: float | None) -> int:
    """Wait until the sub-agent REF has ended and its end is durable.

    The exit code is 0 if it has completed, 1 if it has ended in another way, or if no process runs
    that could end it, and 124 after --timeout-s.
    """
    reply = _waited(state_path(workspace, state_dir), ref, timeout_s)
    return _print(reply, output) or int(reply["status"] != "completed")


VERBS = (cancel, answer, prune, wait)


def _changed(workspace: str, state_dir: str, verb: str, **arguments: Any) -> dict[str, Any]:
    """Return the reply of the process that has the state open, or of this one if none has."""
    from manager._control.client import request

    path = state_path(workspace, state_dir)
    until_s = time.monotonic() + _LOCKED_FOR_S
    while True:
        reply = request(path, verb, **arguments)
        if reply is not None:
            return reply
        try:
            return _changed_here(workspace, state_dir, {"verb": verb, **arguments})
        except LockedError as error:
            if time.monotonic() > until_s:
                holder = "another process" if error.pid is None else f"process {error.pid}"
                say(
                    f"{path}: {holder} has it open and takes no requests; it would with "
                    "SubAgentManager.open(..., control=True)"
                )
                raise click.exceptions.Exit(5) from error
            time.sleep(_POLL_S)


def _changed_here(workspace: str, state_dir: str, request: dict[str, Any]) -> dict[str, Any]:
    from manager._control.requests import Requests
    from manager.limits import Limits
    from manager.manager import SubAgentManager

    path = state_path(workspace, state_dir)
    if not os.path.lexists(path):  # an open would make it
        raise FileNotFoundError(errno.ENOENT, "no state is there", path)
    show_warnings()
    limits = Limits(
        max_admitted=_UNBOUNDED,
        max_running=_UNBOUNDED,
        keep_ended_s=None,
        keep_ended_max=None,
    )
    with SubAgentManager.open(workspace, state_dir=state_dir, limits=limits) as manager:
        return asyncio.run(Requests(manager).fulfil(request))


def _waited(path: str, ref: str, timeout_s: float | None) -> dict[str, Any]:
    from manager._control.client import NoReplyError, request
    from manager._control.requests import RequestError, as_reply
    from manager.view import read_fleet

    until_s = time.monotonic() + _LOCKED_FOR_S
    while True:
        reply = None
        with suppress(NoReplyError):  # the process ends, perhaps because this was its last agent
            reply = request(path, "wait", timeout_s=timeout_s, ref=ref)
        if reply is not None:
            return reply
        agent = read_fleet(path).get(ref)
        if agent.status in ENDED:
            return as_reply(agent)
        # A run that starts takes no requests yet, and one that ends shows its last changes only
        # when it has closed the state.
        if time.monotonic() > until_s:
            raise RequestError(
                f"agent {agent.name} is {agent.status}, and no process takes requests that could "
                "end it; start one, such as: subagents run"
            )
        time.sleep(_POLL_S)


def _print(reply: dict[str, Any], output: str, text: str | None = None) -> int:
    if output == "json":
        return print_lines([json.dumps({"schema_version": 1} | reply, indent=2)])
    return print_lines([text or f"{escaped(reply['name'])}: {reply['status']}"])

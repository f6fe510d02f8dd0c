"""Reach: sends requests to the process that has a state open, or makes the change in this one."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from journal import JournalError, JournalReader, LockedError, MirrorError, MirrorReason
from manager._cli.giving_up import closing_in_time
from manager._cli.options import state_path
from manager._cli.states import fleet_at, naming_state
from manager._control.client import request
from manager._control.errors import (
    ClosedToRequestsError,
    NoReplyError,
    RefusedError,
    RequestError,
)
from manager._control.requests import NOBODY, Requests, as_reply
from manager.again import is_task
from manager.agent import ENDED
from manager.limits import Limits

_LOCKED_FOR_S = 1.0  # a starting run holds the lock before it takes requests
_POLL_S = 0.05
_UNBOUNDED = 1 << 30
KEEP_ALL = Limits(
    max_admitted=_UNBOUNDED,
    max_running=_UNBOUNDED,
    max_depth=_UNBOUNDED,
    keep_ended_s=None,
    keep_ended_max=None,
)
"""The limits of a manager that is opened for one command. It removes nothing by itself."""

_FOR_THE_LIVING = ("spawn", "pause", "resume")


def changed(workspace: str, state_dir: str, verb: str, **arguments: Any) -> dict[str, Any]:
    """Return the reply of the process that has the state open, or of this one if none has.

    Raises ClosedToRequestsError, RequestError, the errors of the manager, and OSError.
    """
    path = state_path(workspace, state_dir)
    until_s = time.monotonic() + _LOCKED_FOR_S
    while (reply := request(path, verb, **arguments)) is None:
        try:
            if verb not in _FOR_THE_LIVING:
                return _changed_here(workspace, state_dir, {"verb": verb, **arguments})
            if time.monotonic() > until_s:
                raise _nobody(path)
        except LockedError as error:
            if time.monotonic() > until_s:
                raise _closed(path, error.pid) from error
        time.sleep(_POLL_S)
    return reply


def _nobody(path: str) -> RequestError:
    """Return why a request that only a running program can fulfill was not fulfilled."""
    with suppress(JournalError, OSError), JournalReader.open(path) as reader:
        if reader.live:
            return _closed(path, reader.writer_pid)
    return RequestError(NOBODY)


def _closed(path: str, pid: int | None) -> ClosedToRequestsError:
    holder = f"process {pid}" if pid else "another process"
    return ClosedToRequestsError(
        f"{path}: {holder} has it open and takes no requests; stop it first, or if it is your own "
        "program, let it open the state with SubAgentManager.open(..., control=True)"
    )


def waited(path: str, ref: str, timeout_s: float | None) -> dict[str, Any]:
    """Wait until an agent has ended, and return the reply about it.

    Raises RequestError if no process that could end it takes requests, and TimeoutError.
    """
    until_s = time.monotonic() + _LOCKED_FOR_S
    while True:
        reply = None
        with suppress(NoReplyError):  # the process ends, perhaps because this was its last agent
            reply = request(path, "wait", timeout_s=timeout_s, ref=ref)
        if reply is not None:
            return reply
        agent = fleet_at(path).get(ref)
        if agent.status in ENDED:
            return as_reply(agent)
        # A run that starts takes no requests yet, and one that ends shows its last changes only
        # when it has closed the state.
        if time.monotonic() > until_s:
            start = "start one: subagents run"
            if not is_task(agent):
                start = (
                    f"start the program whose workers run agents of the type {agent.agent_type!r}, "
                    "and let it open the state with SubAgentManager.open(..., control=True)"
                )
            raise RequestError(
                f"agent {agent.name} is {agent.status}, and no process that could end it takes "
                f"requests; {start}"
            )
        time.sleep(_POLL_S)


def _changed_here(workspace: str, state_dir: str, request: dict[str, Any]) -> dict[str, Any]:
    from manager.manager import SubAgentManager

    path = state_path(workspace, state_dir)
    with naming_state(path):
        JournalReader.open(path).close()  # an open would make a state of a missing or an empty one
    try:
        manager = SubAgentManager.open(workspace, state_dir=state_dir, limits=KEEP_ALL)
    except MirrorError as error:
        if error.reason is not MirrorReason.NEEDED:
            raise
        raise RequestError(
            f"{path}: it has a mirror, which the change must reach, too; make the change while "
            "subagents run --mirror URL has the state open"
        ) from error
    doubt = "interrupted before the change was durable; look with: subagents list"
    with closing_in_time(manager, doubt):
        try:
            return asyncio.run(Requests(manager).fulfill(request))
        except (TypeError, ValueError) as error:  # as the other process would refuse it
            raise RefusedError(type(error).__name__, str(error)) from error

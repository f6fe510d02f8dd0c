"""Facts: the exit of an agent's command, and the amount of its output.

The runner journals them as the agent's checkpoint, together with the agent's end:

    {"exit_code": 3, "signal": null,
     "stdout": {"bytes": 9, "cut_bytes": 0},
     "stderr": {"bytes": 4, "cut_bytes": 0, "tail": "why\\n"}}

"timed_out", which is true, is there only if the command ran into its time limit.
`cut_bytes` counts the bytes of a stream that its files no longer have, or never had. The end of
stdout is the agent's result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from manager.again import is_task
from manager.agent import ENDED, Agent


class Exit(NamedTuple):
    """The exit of a command: its code, or the number of the signal that ended it."""

    code: int | None
    signal: int | None

    @classmethod
    def of(cls, returncode: int | None) -> Exit:
        """Return the exit for the returncode of a `Popen`. None: it has not exited."""
        if returncode is None:
            return cls(None, None)
        return cls(returncode, None) if returncode >= 0 else cls(None, -returncode)


@dataclass(frozen=True, slots=True)
class Printed:
    """The length and the end of what a command has printed to one stream."""

    bytes: int
    """The length of the whole stream."""

    cut_bytes: int
    """The number of bytes that are in no file."""

    tail: str
    """The end of the stream, after a line that says so if it is not all of it."""


def facts(
    exit: Exit, stdout: Printed, stderr: Printed, *, timed_out: bool = False
) -> dict[str, Any]:
    """Return the facts in the form in which they are journaled."""
    err = _lengths(stderr) | ({"tail": stderr.tail} if stderr.tail else {})
    return {
        "exit_code": exit.code,
        "signal": exit.signal,
        "stdout": _lengths(stdout),
        "stderr": err,
    } | ({"timed_out": True} if timed_out else {})


def exit_of(agent: Agent) -> Exit:
    """Return the exit of an ended agent's command. Both fields are None for every other agent."""
    known = agent.checkpoint
    if not is_task(agent) or agent.status not in ENDED or not isinstance(known, dict):
        return Exit(None, None)
    code, number = known.get("exit_code"), known.get("signal")
    return Exit(*(value if type(value) is int else None for value in (code, number)))


def has_timed_out(agent: Agent) -> bool:
    """Return whether an ended agent's command ran into its time limit."""
    known = agent.checkpoint
    if not isinstance(known, dict):
        return False
    # Of a command that exited with 0, older versions journaled only that it has failed.
    exited_late = known.get("exit_code") == 0 and agent.status != "completed"
    return known.get("timed_out") is True or exited_late


def printed(agent: Agent, stream: str) -> Mapping[str, Any]:
    """Return the journaled facts of a stream, "stdout" or "stderr". They are empty if unknown, as
    they are while the command runs: then the checkpoint may be of an earlier start."""
    if agent.status == "running":
        return {}
    known = agent.checkpoint.get(stream) if isinstance(agent.checkpoint, dict) else None
    return known if isinstance(known, dict) else {}


def _lengths(stream: Printed) -> dict[str, Any]:
    return {"bytes": stream.bytes, "cut_bytes": stream.cut_bytes}

"""Client: sends a request to the manager that has a state open, in whatever process that is."""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import Any

from manager._control.errors import NoReplyError, RefusedError, RequestError
from manager._control.place import DIRECTORY, connect
from manager._control.server import REQUEST_BYTES_MAX

_SEND_S = 10.0
_TIMEOUT_S_MIN, _TIMEOUT_S_MAX = 1e-3, 1e6
_REPLY_BYTES_MAX = 4 << 20


def request(
    state_path: str, verb: str, *, timeout_s: float | None = None, **arguments: Any
) -> dict[str, Any] | None:
    """Return the reply of the manager that has the state open, or None if none takes requests.

    `timeout_s` limits the wait for the reply. Raises RefusedError with what the manager raised,
    NoReplyError if it ended before it replied, TimeoutError, UnsafePathError and OSError.
    """
    line = json.dumps({"verb": verb, **arguments}).encode() + b"\n"
    if len(line) > REQUEST_BYTES_MAX:
        raise RequestError(f"the request has {len(line)} bytes, over {REQUEST_BYTES_MAX}")
    try:
        connection = connect(state_path)
    except BlockingIOError:  # Linux: so many clients wait that this one can't
        raise _no_reply(verb) from None
    if connection is None:
        return None
    with closing(connection):
        connection.settimeout(_SEND_S)
        try:
            connection.sendall(line)
            connection.settimeout(_allowed(timeout_s))
            with connection.makefile("rb") as replies:
                reply = replies.readline(_REPLY_BYTES_MAX)
        except TimeoutError:
            raise TimeoutError(
                f"{verb}: no reply within {_SEND_S if timeout_s is None else timeout_s:g} s"
            ) from None
        except (BrokenPipeError, ConnectionResetError):
            reply = b""
    if not reply.endswith(b"\n"):
        raise _no_reply(verb)
    try:
        answer = json.loads(reply)
        refusal = (answer["error"], answer["message"]) if "error" in answer else None
        done = {} if refusal else dict(answer["done"])
    except (ValueError, TypeError, LookupError) as error:
        what = "a program that is not a manager answers there; stop it"
        raise RequestError(f"{os.path.join(state_path, DIRECTORY)}: {what}") from error
    if refusal:
        raise RefusedError(*refusal)
    return done


def _no_reply(verb: str) -> NoReplyError:
    return NoReplyError(
        f"{verb}: the process that has the state open gave no reply, because it has ended or is "
        "busy; look with: subagents list"
    )


def _allowed(timeout_s: float | None) -> float | None:
    """Return a time limit that a socket takes: 0 would mean that it never waits."""
    if timeout_s is None or timeout_s > _TIMEOUT_S_MAX:
        return None
    return max(timeout_s, _TIMEOUT_S_MIN)

"""Helpers for tests of requests from other processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from manager import SubAgentManager
from manager._control import place
from manager._control.client import request
from tests.support import TIMEOUT_S

STATE = ".subagents"


def ask(workspace: Path, verb: str, **arguments: Any) -> dict[str, Any]:
    """Return the reply of the manager that has the state open in `workspace`."""
    reply = request(str(workspace / STATE), verb, timeout_s=TIMEOUT_S, **arguments)
    assert reply is not None
    return reply


@contextmanager
def controlled(workspace: Path, **options: Any) -> Iterator[SubAgentManager]:
    with SubAgentManager.open(workspace, control=True, **options) as manager:
        yield manager


@contextmanager
def client(workspace: Path, *sent: bytes) -> Iterator[socket.socket]:
    """Connect, and send these bytes as far as the server takes them."""
    connection = place.connect(str(workspace / STATE))
    assert connection is not None
    with connection:
        connection.settimeout(TIMEOUT_S)
        try:
            for part in sent:
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass
        yield connection


def received(connection: socket.socket) -> bytes:
    """Return all that the server sends until it closes the connection."""
    data = b""
    try:
        while part := connection.recv(1 << 16):
            data += part
    except ConnectionResetError:
        pass
    return data


def task(name: str, command: str, **more: object) -> str:
    return json.dumps({"name": name, "command": command, **more})


@contextmanager
def meanwhile(body: Callable[[], object]) -> Iterator[None]:
    """Run `body` in another thread, as another process would, while the block runs. If it fails, it
    stops the run of the block."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            body()
        except BaseException as error:
            errors.append(error)
            if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
                os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise errors[0]

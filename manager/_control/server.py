"""Server: the thread that answers requests of other processes.

A connection has one request and one reply, each a line of JSON. A client may be slow, send anything
or die at any moment; it only loses its own reply.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import socket
import threading
import weakref
from contextlib import suppress
from typing import Any

from manager._control.place import Listener, is_own
from manager._control.requests import EXPECTED, READS, Manager, Requests
from manager._control.runners import Runners
from manager.arguments import short_repr
from manager.waking import call_in_loop

REQUEST_BYTES_MAX = 1 << 20
CLIENTS_MAX = 64
_PART_BYTES = 64 << 10
_PATIENCE_S = 10.0  # for a request to arrive, and for a reply to be taken
_ACCEPT_PAUSE_S = 0.1
_DRAIN_S = 2.0
_JOIN_S = 5.0
_GONE = (errno.EAGAIN, errno.EINTR, errno.ECONNABORTED)  # a client that was about to connect

_servers: weakref.WeakSet[ControlServer] = weakref.WeakSet()
_log = logging.getLogger("manager")


class ControlServer:
    """Serves the socket of one state in a thread, until it is stopped."""

    requests: Requests
    """The requests that clients may send."""

    runners: Runners
    """The runners of the agents."""

    def __init__(self, listener: Listener, requests: Requests, runners: Runners) -> None:
        self.requests = requests
        self.runners = runners
        self._listener = listener
        self._clients: set[asyncio.Task[None]] = set()
        # Those that have sent no whole request, the oldest one first.
        self._silent: dict[asyncio.Task[None], None] = {}
        self._changing: set[asyncio.Task[None]] = set()  # those that a close waits for
        self._over: asyncio.Future[None]
        self._new_loop: asyncio.AbstractEventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # the same, once it runs
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="subagents-control", daemon=True)
        _servers.add(self)
        try:
            # Made here, where the caller gets its error, and of asyncio's own class: one of the
            # program's policy may run in the main thread only, or keep the socket open in forks.
            self._new_loop = asyncio.SelectorEventLoop()
            self._thread.start()
        except BaseException:  # of a signal handler, or because no thread can be started
            self.stop()
            if self._new_loop is not None and not self._thread.is_alive():
                self._new_loop.close()
            raise

    @classmethod
    def of(cls, manager: Manager, state_path: str, runners: Runners | None = None) -> ControlServer:
        """Start to serve the state of `manager`, which holds the writer's lock.

        Raises UnsafePathError and OSError.
        """
        runners = Runners() if runners is None else runners
        return cls(Listener.open(state_path), Requests(manager, runners), runners)

    def stop(self) -> None:
        """Complete the changes that were begun, remove the socket, and end all connections.

        A second call does nothing, unless a signal handler has cut off the first one.
        """
        self._is_stopped = True
        if self._loop is not None:
            call_in_loop(self._loop, self._end)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)
        self._listener.close()

    def forget(self) -> None:
        """Close the socket's handle in a forked child, which has no thread to serve it."""
        self._is_stopped, self._loop = True, None
        self._listener.forget()

    def _run(self) -> None:
        loop = self._new_loop
        assert loop is not None
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._serve_all())
        except BaseException:  # the loop can't run here, as after gevent has replaced `select`
            self._listener.socket.close()  # so that clients don't wait for replies
            _log.exception("requests from other processes are no longer answered")

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    async def _serve_all(self) -> None:
        loop = asyncio.get_running_loop()
        self._over = loop.create_future()
        self._loop = loop
        if self._is_stopped:  # before there was a loop to end
            return
        loop.add_reader(self._listener.socket, self._accept)
        await self._over
        loop.remove_reader(self._listener.socket)
        # A change may be what ended the run. Its client gets the reply, and others get none.
        if self._changing:
            await asyncio.wait(self._changing, timeout=_DRAIN_S)

    def _accept(self) -> None:
        loop, listening = asyncio.get_running_loop(), self._listener.socket
        try:
            connection, _ = listening.accept()
        except OSError as error:
            if error.errno not in _GONE:  # such as too many open files
                loop.remove_reader(listening)
                loop.call_later(_ACCEPT_PAUSE_S, loop.add_reader, listening, self._accept)
            return
        try:
            is_welcome = is_own(connection) and self._has_place()
        except OSError:  # the client has gone
            is_welcome = False
        if not is_welcome:
            connection.close()
            return
        connection.setblocking(False)
        task = loop.create_task(self._serve(connection))
        self._clients.add(task)
        self._silent[task] = None
        task.add_done_callback(self._clients.discard)
        task.add_done_callback(lambda task: self._silent.pop(task, None))
        # Not in the task, which may be cancelled before it begins.
        task.add_done_callback(lambda _: connection.close())

    def _has_place(self) -> bool:
        """Return whether another client can be served. If all places are taken, the oldest silent
        client gives way."""
        if len(self._clients) < CLIENTS_MAX:
            return True
        for task in self._silent:
            del self._silent[task]
            return task.cancel()
        return False

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        # The client has gone, or it is too slow, which is a TimeoutError and so an OSError.
        with suppress(OSError):
            async with asyncio.timeout(_PATIENCE_S):
                reply: Any = await _received(connection)
            task = asyncio.current_task()
            assert task is not None
            self._silent.pop(task, None)
            if isinstance(reply, dict):
                if reply.get("verb") not in READS:
                    self._changing.add(task)
                    task.add_done_callback(self._changing.discard)
                reply = await self._reply(reply, connection)
            if reply is not None:
                async with asyncio.timeout(_PATIENCE_S):
                    await loop.sock_sendall(connection, reply)

    async def _reply(self, request: dict[str, Any], connection: socket.socket) -> bytes | None:
        """Return the reply to a request, or None if its client has gone before."""
        loop = asyncio.get_running_loop()
        answering = asyncio.ensure_future(self.requests.fulfill(request))
        leaving = asyncio.ensure_future(loop.sock_recv(connection, 1))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            return _line({"done": answering.result()}) if answering.done() else None
        except Exception as error:
            if not isinstance(error, EXPECTED):
                _log.exception("a request from another process failed: %s", short_repr(request))
            return _failure(error)
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)


async def _received(connection: socket.socket) -> dict[str, Any] | bytes | None:
    """Return the request of a client, the reply to a line that is not a request, or None if no line
    came."""
    loop = asyncio.get_running_loop()
    line = bytearray()
    while not line.endswith(b"\n"):
        part = await loop.sock_recv(connection, _PART_BYTES)
        line += part
        if not part:
            return None
        if len(line) > REQUEST_BYTES_MAX:
            return _failure(ValueError(f"the request has over {REQUEST_BYTES_MAX} bytes"))
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _failure(ValueError(f"the request is not a line of JSON: {error}"))
    return request if isinstance(request, dict) else _failure(ValueError("not a JSON object"))


def _failure(error: Exception) -> bytes:
    return _line({"error": type(error).__name__, "message": str(error)})


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _forget_in_child() -> None:
    for server in list(_servers):
        server.forget()


os.register_at_fork(after_in_child=_forget_in_child)

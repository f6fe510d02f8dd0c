"""JetStreamConnection: a connection to NATS, whose requests are calls that end in time.

nats-py needs an event loop, and tells some errors only to a callback of the connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

from journal import _time as time
from journal._mirror.loop_calls import error_of
from journal._mirror.store import AbsentError, RefusedError, StoreError, UnreachableError
from journal._mirror.stream_settings import ENABLE_JETSTREAM, MAKE_STREAM
from journal._mutex import HandlerSafeLock, is_raised_by_call
from journal._waits import join

T = TypeVar("T")

_REFUSAL = re.compile(
    r"(?i)authorization|permissions violation|authentication (?:expired|revoked)|does not encrypt"
)
_DEFAULT: Any = object()
_NO_SUCH_MESSAGE = 10043, 10057  # errors of the server
_NO_JETSTREAM = 10039, 10076  # for the user's account; on this server
_PING_S = 5.0  # a server that misses two pings is left: its machine may be lost
_CANCEL_S = 0.1
CONNECT, OPEN, ASK_LAST = "connect", "open", "ask for the last sequence"


class JetStreamConnection:
    """A connection. It and its event loop live in a thread of their own."""

    def __init__(self, url: str, servers: list[str], open_s: float, timeout_s: float) -> None:
        """Prepare to connect. `open_s`: the time limit of each request, in seconds, until another
        one is set. Raises ImportError without nats-py."""
        import nats

        from journal._mirror.jetstream_client import JetStreamClient

        self.url = url
        self._nats: Any = nats
        self._timeout_s = open_s
        # Of asyncio's own class: one of the program's policy may run in the main thread only.
        self._loop = asyncio.SelectorEventLoop()
        self._closing = asyncio.Event()  # to be set in the loop; a second time does nothing
        self._thread = Thread(target=self._run, name="journal-nats", daemon=True)
        self._is_closed = False
        # The last refusal of the server, and the last other error of the connection, with its time.
        self._noted = {True: (0.0, ""), False: (0.0, "")}
        self._servers, self._connect_s = servers, max(1, int(timeout_s))
        self._reconnecting = HandlerSafeLock()
        self._new_client: Callable[[], Any] = JetStreamClient
        self._client = self._new_client()
        self._bucket: Any = None
        self._js: Any = None

    def _start_thread(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:  # too many threads, or the interpreter is exiting
            if not is_raised_by_call(error, "threading"):
                raise
            raise UnreachableError(f"{self.url}: connect: {error}") from error

    def _reconnect(self) -> None:
        """Connect anew. nats-py closes a connection for good once the server refuses its user, who
        may be admitted again."""
        with self._reconnecting.checked():
            if not self._client.is_closed:  # another thread was faster
                return
            client = self._new_client()
            self._call(CONNECT, lambda: self._connect(client))
            self._bucket = None
            self._client, self._js = client, client.jetstream(timeout=self._timeout_s)

    async def _connect(self, client: Any) -> None:
        async def note(error: Exception) -> None:
            """Note an error of the connection: the request that it concerns gets no answer."""
            self._noted[bool(_REFUSAL.search(str(error)))] = time.monotonic(), str(error)

        try:
            await client.connect(
                self._servers,
                connect_timeout=self._connect_s,
                max_reconnect_attempts=-1,
                allow_reconnect=True,
                reconnect_time_wait=0.2,
                ping_interval=_PING_S,
                max_outstanding_pings=2,
                error_cb=note,
            )
        except BaseException:
            if client is not self._client:
                await self._close_client(client)
            raise

    def _call(
        self,
        what: str,
        call: Callable[[], Coroutine[Any, Any, T]],
        *,
        timeout_s: float | None = _DEFAULT,
    ) -> T:
        """Run a coroutine in the store's thread, and turn the errors of nats-py into errors of the
        store. `timeout_s`: None for no limit."""
        limit_s = self._timeout_s if timeout_s is _DEFAULT else timeout_s
        where = f"{self.url}: {what}"
        if self._is_closed:
            raise UnreachableError(f"{where}: the store is closed")
        if what != CONNECT and self._client.is_closed:
            self._reconnect()
        began = time.monotonic()
        future = asyncio.run_coroutine_threadsafe(call(), self._loop)
        error = error_of(future, limit_s)
        if error is None:
            return future.result()
        if isinstance(error, StoreError) or not isinstance(error, Exception):
            raise error
        if isinstance(error, self._nats.js.errors.NotFoundError):
            if what in (OPEN, ASK_LAST):  # they only need the stream
                raise RefusedError(f"{where}: the stream does not exist. {MAKE_STREAM}") from error
            raise AbsentError(f"{where}: it does not exist") from error
        if getattr(error, "err_code", None) in _NO_SUCH_MESSAGE:
            raise AbsentError(f"{where}: it does not exist") from error
        is_silent = isinstance(error, TimeoutError)
        refusal, trouble = (
            text if is_silent and noted_at >= began else ""
            for noted_at, text in (self._noted[True], self._noted[False])
        )
        if isinstance(error, self._nats.errors.AuthorizationError) or refusal:
            advice = "check the address, its user and password, and the user's permissions"
            raise RefusedError(f"{where}: not permitted: {refusal or error}; {advice}") from error
        if isinstance(error, self._nats.js.errors.ServiceUnavailableError) and (
            error.err_code in (None, *_NO_JETSTREAM)  # None: no server has heard the request
        ):
            problem = "JetStream is not enabled there, or is just starting"
            raise UnreachableError(f"{where}: {problem}. {ENABLE_JETSTREAM}") from error
        no_text = "no answer" if is_silent else type(error).__name__
        raise UnreachableError(f"{where}: {trouble or str(error) or no_text}") from error

    def close(self) -> None:
        self._is_closed = True
        if not self._loop.is_closed():  # an earlier call may have been cut off
            self._loop.call_soon_threadsafe(self._closing.set)
            if join(self._thread, self._timeout_s):
                self._loop.close()

    def _run(self) -> None:
        """Run the event loop until the store is closed."""
        self._loop.run_until_complete(self._end())

    async def _end(self) -> None:
        """Wait for the close. Then cancel the requests under way, and close the connection."""
        await self._closing.wait()
        await self._cancel_all()
        await self._close_client(self._client)
        await self._cancel_all()

    async def _cancel_all(self) -> None:
        """Cancel the other tasks until they have ended."""
        requests = asyncio.all_tasks() - {asyncio.current_task()}
        until_s = self._loop.time() + self._timeout_s
        while requests and self._loop.time() < until_s:
            for request in requests:  # again: one that fails just then may lose a cancel
                request.cancel()
            _, requests = await asyncio.wait(requests, timeout=_CANCEL_S)

    async def _close_client(self, client: Any) -> None:
        # The connection is gone in any case. nats-py may raise the cancel of an earlier wait again.
        with suppress(Exception, asyncio.CancelledError):
            await asyncio.wait_for(client.close(), self._timeout_s)

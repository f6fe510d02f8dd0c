"""JetStreamClient: a client of NATS that outlasts lost servers, and encrypts a login for tls://.

It overrides methods that nats-py uses inside, by the same names in all its versions since 2.10.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import ceil
from typing import Any
from urllib.parse import unquote

import nats.aio.client
import nats.errors

_READS = "$JS.API.STREAM.INFO.", "$JS.API.STREAM.MSG.GET."
_ANSWER_S = 2.0  # a leader that was lost never answers


class JetStreamClient(nats.aio.client.Client):
    """A client that asks again if an answer is lost. It refuses a server that does not encrypt, if
    the address asks for TLS."""

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,
        headers: dict[str, Any] | None = None,
    ) -> Any:
        """Return the answer to a request. A read is made again while its answer seems lost."""

        def ask(left_s: float) -> Awaitable[Any]:
            return ask_once(subject, payload, left_s, old_style, headers)

        ask_once: Callable[..., Awaitable[Any]] = super().request
        return await (self.answered(ask, timeout) if subject.startswith(_READS) else ask(timeout))

    async def answered(self, ask: Callable[[float], Awaitable[Any]], timeout_s: float) -> Any:
        """Return the answer to a request that may be made several times: `ask` makes it once, and
        gets the seconds that are left. Raises nats.errors.Error after some `timeout_s` seconds.

        It is made again while its answer seems lost, but not while one may be on its way: the
        server's pong would come after it.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        while (left_s := until_s - loop.time()) > _ANSWER_S:
            asking = asyncio.ensure_future(ask(left_s))
            asking.add_done_callback(lambda done: done.cancelled() or done.exception())
            try:
                await asyncio.wait((asking,), timeout=_ANSWER_S)
                if not asking.done() and self.is_connected:
                    await self.flush(ceil(left_s))
                if asking.done():
                    return await asking
            finally:
                asking.cancel()
        return await ask(left_s)

    async def _process_op_err(self, e: Exception) -> None:
        """Connect again. nats-py would first wait until the server has taken everything, and would
        let each flush wait for its whole time."""
        for pong in self._pongs:
            if not pong.done():
                pong.set_result(False)
        if self.is_connected:
            self._abort()
        await super()._process_op_err(e)

    async def _process_connect_init(self) -> None:
        """Greet a server. Raises OSError or nats.errors.Error, after which another one is tried:
        nats-py would leave the connection open, and after other errors try no more."""
        try:
            await super()._process_connect_init()
        except BaseException as error:
            self._abort()
            self._transport = None  # one whose TLS has not begun would wait forever for its end
            for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
                if task is not None:
                    task.cancel()
            if isinstance(error, OSError | nats.errors.Error) or not isinstance(error, Exception):
                raise
            raise nats.errors.Error(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """End the connection. A silent server would take nothing, and confirm no end of TLS."""
        self._pending: list[bytes] = []
        self._pending_data_size = 0
        self._abort()
        await super().close()

    def _abort(self) -> None:
        """End the connection, and send nothing that still waits for that."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def _process_pong(self) -> None:
        """Take the answer to a ping. If nobody waits for it any more, nats-py would log a traceback
        and stop reading."""
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.Future()
        await super()._process_pong()

    def _connect_command(self) -> bytes:
        """Return the greeting, which has the login. Raises nats.errors.Error for such a server:
        nats-py encrypts only if the server asks for it."""
        server: Any = self._current_server
        if server.uri.scheme == "tls" and not self._server_info.get("tls_required"):
            raise nats.errors.Error("the server does not encrypt, as its tls:// asks for")
        self._finish_handshake()
        self._set_login(server)
        command: bytes = super()._connect_command()
        return command

    def _finish_handshake(self) -> None:
        """Tell the protocol of its transport of TLS. nats-py does not, so asyncio would log a
        warning at each end of a connection."""
        held: Any = self._transport
        transport = held._io_writer.transport
        if transport.get_extra_info("sslcontext") is not None:
            transport.get_protocol().connection_made(transport)

    def _set_login(self, server: Any) -> None:
        """Use the login of the server's address, or of another one: nats-py has none for a server
        that only another server has named, and takes what is encoded as it is."""
        for each in (server, *self._server_pool):
            if each.uri.username is not None:
                user, password = unquote(each.uri.username), each.uri.password
                names = ("token",) if password is None else ("user", "password")
                self.options |= dict.fromkeys(("user", "password", "token"))
                self.options |= zip(names, (user, unquote(password or "")), strict=False)
                return

"""LastingClient: a client of NATS that connects again after each error, and never waits forever.

It overrides methods that nats-py uses inside, by the same names in all its versions since 2.10.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats.aio.client
import nats.errors


class OpenServerError(nats.errors.Error):
    """The server does not encrypt, or asks for no login."""


class LastingClient(nats.aio.client.Client):
    """A client of NATS. Without this class, some errors would end it for good, or hold it up."""

    is_strict = False
    """True to refuse servers that do not encrypt or ask for no login, also when one was lost."""

    def abort(self) -> None:
        """End the connection to the server, and send nothing that still waits for that.

        To close it would take forever if the server takes nothing more.
        """
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def flush(self, timeout: int = 10) -> None:
        """Wait until the server has taken everything. Raises nats.errors.Error, also while there is
        no connection."""
        if not self.is_connected:
            raise nats.errors.ConnectionReconnectingError
        await super().flush(timeout)

    async def _process_pong(self) -> None:
        """Take the answer to a ping. If nobody waits for it any more, nats-py would log a traceback
        and stop reading."""
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.Future()
        await super()._process_pong()

    async def _process_connect_init(self) -> None:
        """Greet a server. Raises OSError or nats.errors.Error, after which another one is tried."""
        try:
            await super()._process_connect_init()
            if not self.is_connected:
                raise nats.errors.Error("nats: the server has closed the connection")
        except BaseException as error:
            self.abort()
            self._transport = None  # one whose TLS has not begun would wait forever for its end
            for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
                if task is not None:
                    task.cancel()
            if isinstance(error, OSError | nats.errors.Error) or not isinstance(error, Exception):
                raise
            raise nats.errors.Error(f"nats: {str(error) or type(error).__name__}") from error

    def _connect_command(self) -> bytes:
        """Return the greeting, which has the login. Raises OpenServerError, and nats.errors.Error
        if the URL asks for TLS and the server does not: nats-py would send it unencrypted."""
        server: Any = self._current_server
        is_encrypted = self._server_info.get("tls_required")
        if self.is_strict and not self._server_info.get("auth_required"):
            raise OpenServerError("asks for no login")
        if self.is_strict and not is_encrypted:
            raise OpenServerError("does not encrypt")
        if server.uri.scheme == "tls" and not is_encrypted:
            raise nats.errors.Error("nats: the server does not encrypt, as its tls:// asks for")
        if is_encrypted:
            self._finish_handshake()
        command: bytes = super()._connect_command()
        return command

    def _finish_handshake(self) -> None:
        """Tell the protocol of its transport of TLS. nats-py does not, so asyncio would log a
        warning at each end of a connection."""
        held: Any = self._transport
        transport = held._io_writer.transport
        transport.get_protocol().connection_made(transport)

    async def _process_err(self, err_msg: str) -> None:
        """Connect again after an error of the server, unless that concerns only one subject.

        nats-py would close the client, for example when the server expires its login.
        """
        if "permissions violation" in err_msg:
            await super()._process_err(err_msg)
        else:
            error = nats.errors.Error(f"nats: {err_msg}")
            await self._error_cb(error)
            await self._process_op_err(error)

    async def _process_op_err(self, e: Exception) -> None:
        if self.is_connected:
            self.abort()
        await super()._process_op_err(e)

    async def _attempt_reconnect(self) -> None:
        with suppress(asyncio.InvalidStateError):  # of a connection that was lost at its beginning
            await super()._attempt_reconnect()

    # A file without credentials would be read forever, or give an error that ends the client.

    def _read_creds_user_jwt(self, creds: Any) -> bytearray:
        _check(creds, b"BEGIN NATS USER JWT")
        jwt: bytearray = super()._read_creds_user_jwt(creds)
        return jwt

    def _read_creds_user_nkey(self, creds: Any) -> bytearray:
        _check(creds, b"BEGIN USER NKEY SEED")
        seed: bytearray = super()._read_creds_user_nkey(creds)
        return seed


def _check(path: str, needed: bytes) -> None:
    if needed not in Path(path).read_bytes():
        raise nats.errors.Error(f"{path}: is not a file with NATS credentials")

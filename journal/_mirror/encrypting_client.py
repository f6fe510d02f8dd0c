"""EncryptingClient: a client of NATS that sends no login unencrypted to a tls:// address."""

from __future__ import annotations

from typing import Any

import nats.aio.client
import nats.errors


class EncryptingClient(nats.aio.client.Client):
    """A client that refuses a server that does not encrypt, if the address asks for TLS.

    It overrides a method that nats-py uses inside, by the same name in all its versions since 2.10.
    """

    def _connect_command(self) -> bytes:
        """Return the greeting, which has the login. Raises nats.errors.Error for such a server:
        nats-py encrypts only if the server asks for it."""
        server: Any = self._current_server
        if server.uri.scheme == "tls" and not self._server_info.get("tls_required"):
            raise nats.errors.Error("the server does not encrypt, as its tls:// asks for")
        command: bytes = super()._connect_command()
        return command

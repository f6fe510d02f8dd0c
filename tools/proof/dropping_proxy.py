"""DroppingProxy: a TCP proxy that passes requests on and can drop their answers.

So a client can't tell whether the server has done what it was asked for.
"""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK_BYTES = 1 << 16


class DroppingProxy:
    """A proxy in front of a server on this machine. `port`: its own. `dropped`: how many answers
    it has dropped so far."""

    def __init__(self, server_port: int, generator: random.Random) -> None:
        self._server = "127.0.0.1", server_port
        self._random = generator
        self._share = 0.0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.dropped = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @contextmanager
    def dropping(self, share: float) -> Iterator[None]:
        """Drop this share of the answers, and end their connections."""
        self._share = share
        try:
            yield
        finally:
            self._share = 0.0

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                continue
            for source, target in ((client, server), (server, client)):
                is_answer = target is client
                arguments = source, target, is_answer
                threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                if is_answer and self._random.random() < self._share:
                    self.dropped += 1
                    break
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        if is_answer:
            source.close()
            target.close()

"""Link: a connection to the servers of a fleet, over which requests are sent and answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from importlib import import_module
from typing import Any, Protocol, TypeVar

from manager._remote.address import Address
from manager.errors import DispatchError

T = TypeVar("T")
Answer = Callable[[bytes], Awaitable[None]]
Handler = Callable[[str, bytes, Answer], None]
"""A function that receives the subject and the bytes of a request, and the function that answers
it. It must not block."""
Listener = Callable[[bytes], bytes | None]
"""A function that receives the bytes of a request, and returns its answer, or None for no answer.
It must not block."""

_SERVICE_VERSION = "1.0.0"
_CONNECT_S = 3.0
_SERVER_S = 1.0  # for each of several servers, of which some may be lost
_CLOSE_S = 2.0
_FLUSH_S = 1.0
_RECONNECT_S = 0.2
_REFUSALS_MAX = 16  # more than the subjects of a service


class UnansweredError(Exception):
    """No answer came. The request may have arrived, and may be repeated."""

    is_forbidden = False
    """True if the servers have refused to carry requests of this subject from this login."""


class Link(Protocol):
    """A connection to the servers of a fleet."""

    @property
    def message_bytes_max(self) -> int:
        """The size of the largest message that the servers take."""

    @property
    def is_connected(self) -> bool:
        """True while a server can be reached."""

    async def reaches_server(self) -> bool:
        """Return whether a server answers within a moment. Everything that it had sent before has
        come then."""

    async def ask(self, subject: str, data: bytes, timeout_s: float) -> bytes:
        """Send a request and return its answer. Raises UnansweredError."""

    async def serve(self, name: str, subjects: dict[str, str], handler: Handler) -> None:
        """Answer the requests of these subjects, which are given with names for statistics. Each
        request goes to one of the processes that serve its subject. Raises DispatchError if the
        servers do not confirm that."""

    async def listen(self, subject: str, handler: Listener) -> None:
        """Answer the requests of this subject, each of which goes to all processes that listen.
        Raises DispatchError if the servers do not confirm that."""

    async def stop_serving(self) -> None:
        """Answer no more requests. Their senders learn that nobody serves these subjects."""

    async def close(self) -> None:
        """End the connection."""


class NatsLink:
    """A link through NATS, with the services of `nats.micro`."""

    def __init__(self, client: Any, servers: str = "") -> None:
        self._client = client
        self._servers = servers
        self._services: list[Any] = []
        self._refusals: dict[str, None] = {}  # the texts, each once

    @classmethod
    async def connect(
        cls,
        address: Address,
        *,
        inbox: str,
        credentials: str | None = None,
        insecure: bool = True,
    ) -> NatsLink:
        """Connect to one of the servers. Later, the link reconnects by itself.

        Unless `insecure` is true, refuse a server that is not on this machine if it does not
        encrypt, or asks for no login. Raises DispatchError, and ImportError without nats-py, or
        with `credentials` and without nkeys.
        """
        import_packages(needs_keys=credentials is not None)
        import nats.errors

        from manager._remote.client import LastingClient, OpenServerError

        earlier = _cancellations()

        async def note(error: Exception) -> None:
            """Note an error of the connection. Later, the request that it concerns reports it."""
            _end_if_cancelled(earlier)  # else the client would go on connecting
            if isinstance(error, OpenServerError) and not has_connected:
                raise error
            if len(link._refusals) < _REFUSALS_MAX:
                link._refusals[str(error)] = None

        login = {"user": address.user, "password": address.password}
        if address.password is None and address.user is not None:
            login = {"token": address.user}
        client: Any = LastingClient()
        client.is_strict = not insecure and not address.is_loopback
        has_connected = False
        servers = ", ".join(address.servers)
        count = len(address.servers)
        connect_s = max(_CONNECT_S, _SERVER_S * count)
        link = cls(client, servers)
        try:
            async with asyncio.timeout(connect_s):
                # Once connected, the client tries forever to connect again.
                connecting = client.connect(
                    [*address.servers],
                    **{name: value for name, value in login.items() if value is not None},
                    user_credentials=credentials,
                    inbox_prefix=f"_INBOX.{inbox}",
                    connect_timeout=connect_s / count,
                    flush_timeout=_FLUSH_S,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=_RECONNECT_S,
                    ping_interval=5,
                    max_outstanding_pings=2,
                    error_cb=note,
                )
                await _ended(connecting)
            has_connected = True
        except BaseException as error:
            await link.close()
            if isinstance(error, OpenServerError):
                raise DispatchError(
                    f"{servers}: {error}, so anyone on the network could run commands here; "
                    "configure the server, or accept that with --insecure"
                ) from error
            if not isinstance(error, OSError | ValueError | nats.errors.Error):
                raise
            text = "; ".join(link._refusals) or str(error) or "no answer"
            raise DispatchError(
                f"{servers}: can't connect within {connect_s:g} s: {text}"
            ) from error
        return link

    @property
    def message_bytes_max(self) -> int:
        limit: int = self._client.max_payload
        return limit

    @property
    def is_connected(self) -> bool:
        connected: bool = self._client.is_connected
        return connected

    async def reaches_server(self) -> bool:
        import nats

        try:
            async with asyncio.timeout(_FLUSH_S):
                await _ended(self._client.flush())
        except (nats.errors.Error, TimeoutError, OSError):
            return False
        return True

    async def ask(self, subject: str, data: bytes, timeout_s: float) -> bytes:
        import nats

        try:
            message = await _ended(self._client.request(subject, data, timeout=timeout_s))
        except (nats.errors.Error, TimeoutError, OSError) as error:
            unanswered = UnansweredError(f"{subject}: {str(error) or type(error).__name__}")
            unanswered.is_forbidden = self._is_refused("publish", subject)
            raise unanswered from error
        answer: bytes = message.data
        return answer

    async def serve(self, name: str, subjects: dict[str, str], handler: Handler) -> None:
        await self._confirmed(self._add_service(name, subjects, handler), subjects.values())

    async def listen(self, subject: str, handler: Listener) -> None:
        async def receive(message: Any) -> None:
            if (answer := handler(message.data)) is not None:
                with suppress(Exception):  # nobody waits for it, or the connection has ended
                    await message.respond(answer)

        subscribing = self._client.subscribe(subject, cb=receive)
        await self._confirmed(_ended(subscribing), (subject,))

    async def _confirmed(self, work: Awaitable[object], subjects: Iterable[str]) -> None:
        """Do what subscribes to subjects. Raises DispatchError if the servers do not confirm it."""
        import nats

        try:
            async with asyncio.timeout(_CONNECT_S):
                await work
                await _ended(self._client.flush())  # its ping may be sent before the subscription
                await _ended(self._client.flush())
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise DispatchError(
                f"{self._servers}: can't serve within {_CONNECT_S:g} s: {str(error) or 'no answer'}"
            ) from error
        for subject in subjects:
            if self._is_refused("subscription", subject):
                raise DispatchError(
                    f"{self._servers}: the login may not subscribe to {subject}: its permissions, "
                    "or the name of the worker, are wrong"
                )

    def _is_refused(self, what: str, subject: str) -> bool:
        return any(f'{what} to "{subject.lower()}"' in text for text in self._refusals)

    async def _add_service(self, name: str, subjects: dict[str, str], handler: Handler) -> None:
        from nats.micro import add_service

        adding = add_service(self._client, name=name, version=_SERVICE_VERSION)
        service = await _ended(adding)
        self._services.append(service)

        async def receive(request: Any) -> None:
            async def answer(data: bytes) -> None:
                with suppress(Exception):  # nobody waits for it, or the connection has ended
                    await request.respond(data)

            handler(request.subject, request.data, answer)

        for verb, subject in subjects.items():
            await service.add_endpoint(name=verb, subject=subject, handler=receive)

    async def stop_serving(self) -> None:
        while self._services:
            with suppress(Exception):  # the connection has ended, or the server does not answer
                async with asyncio.timeout(_CLOSE_S):
                    await self._services.pop().stop()

    async def close(self) -> None:
        closing = asyncio.create_task(self._close())
        try:
            await asyncio.wait((closing,), timeout=_CLOSE_S)
        finally:
            self._client.abort()
            closing.cancel()

    async def _close(self) -> None:
        with suppress(Exception):  # the connection has ended
            await self._client.close()


def import_packages(*, needs_keys: bool) -> None:
    """Import nats-py, and nkeys, which it needs to log in with credentials. Raises ImportError."""
    what, package = "workers in other processes need the package nats-py", "journal-engine[nats]"
    try:
        import_module("nats")
        if needs_keys:
            what, package = "credentials need the package nkeys", "nats-py[nkeys]"
            import_module("nkeys")
    except ModuleNotFoundError as error:
        raise ImportError(f"{what}; run: pip install '{package}'") from error


async def _ended(call: Awaitable[T]) -> T:
    """Wait for a call of nats-py, and return its result, unless the task was cancelled meanwhile.

    Before Python 3.12, `asyncio.wait_for`, which nats-py uses, may lose a cancellation in favor of
    a result or an error, and the task would go on forever.
    """
    earlier = _cancellations()
    try:
        return await call
    finally:
        _end_if_cancelled(earlier)


def _end_if_cancelled(earlier: int) -> None:
    """End the running task if it was cancelled more often than `earlier`."""
    if _cancellations() > earlier:
        raise asyncio.CancelledError


def _cancellations() -> int:
    """Return how often the running task was cancelled."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()

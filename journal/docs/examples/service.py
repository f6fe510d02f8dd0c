"""An HTTP service whose state survives crashes: startup, readiness, SIGTERM and a failing disk.

    pip install aiohttp
    python service.py payments.d 8080

    curl -X PUT localhost:8080/payments/order-7 -d '{"account": "ada", "cents": 1999}'
    curl localhost:8080/accounts/ada

A reply with status 200 means that the payment survives a power cut. A client that gets no reply, or
a 503, sends the same request again, to this process or to the next one: a payment with a known id
is not made twice. Another payment with that id gets 409.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web

from journal import BufferFullError, CowTable, DurableState, FailedError, JournalError, RecordError

WAIT_S = 10  # the longest time that a request waits for the disk

State = DurableState["Payments"]
Handler = Callable[[State, web.Request], Awaitable[web.Response]]


class Payments:
    """The state: all payments, and the balance of each account."""

    application = "example-payments/1"

    def __init__(self) -> None:
        self.payments: CowTable[str, dict[str, Any]] = CowTable()
        self.cents: dict[str, int] = {}  # follows from the payments, so no checkpoint contains it

    def apply(self, lsn: int, record: Any) -> None:
        self.load(record)

    def load(self, item: Any) -> None:
        self.payments[item["id"]] = item
        self.cents[item["account"]] = self.cents.get(item["account"], 0) + item["cents"]

    def freeze(self) -> Iterable[Any]:
        return self.payments.freeze()


class Service:
    """The handlers. `state` is None until it has been recovered, and while the service stops."""

    def __init__(self) -> None:
        self.state: State | None = None
        self.stopping = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/live", self.live)
        app.router.add_get("/ready", self.guarded(self.ready))
        app.router.add_put("/payments/{id}", self.guarded(self.pay))
        app.router.add_get("/accounts/{name}", self.guarded(self.account))
        return app

    def guarded(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Return the handler with a reply for each way in which the journal can refuse."""

        async def handle(request: web.Request) -> web.Response:
            if self.state is None:
                return refused(503, "starting or stopping")
            try:
                async with asyncio.timeout(WAIT_S):
                    return await handler(self.state, request)
            except RecordError as error:  # such as an integer of more than 64 bits
                return refused(400, str(error))
            except (BufferFullError, TimeoutError):  # the payment may still become durable
                return refused(503, "the disk is full or slow")
            except FailedError:
                # Nothing more can be acknowledged. A new process recovers what was durable.
                self.stopping.set()
                return refused(503, "the disk failed")

        return handle

    async def live(self, request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def ready(self, state: State, request: web.Request) -> web.Response:
        state.check()
        return web.Response(text="ok")

    async def pay(self, state: State, request: web.Request) -> web.Response:
        try:
            body = await request.json()
            account, cents = body["account"], body["cents"]
        except (LookupError, TypeError, ValueError, RecursionError, web.RequestPayloadError):
            account, cents = None, None
        if not isinstance(account, str) or type(cents) is not int:
            return refused(400, "send an account and a whole number of cents")
        number = request.match_info["id"]
        payment = {"id": number, "account": account, "cents": cents}
        await state.room()  # in an event loop, `update` does not wait for room
        lsn = state.update(lambda m: None if number in m.payments else payment)
        # If the payment is known already, `lsn` is None. This then waits for all payments so far.
        await state.durable(lsn)
        if state.machine.payments[number] != payment:
            return refused(409, "another payment has this id")
        return web.json_response({"is_new": lsn is not None})

    async def account(self, state: State, request: web.Request) -> web.Response:
        cents = state.machine.cents.get(request.match_info["name"], 0)
        await state.durable()  # a crash must not undo what this reply says
        return web.json_response({"cents": cents})


def refused(status: int, reason: str) -> web.Response:
    headers = {"Retry-After": "1"} if status == 503 else None
    return web.json_response({"error": reason}, status=status, headers=headers)


async def main(path: str, port: int) -> None:
    service, loop = Service(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stopping.set)
    runner = web.AppRunner(service.app(), shutdown_timeout=WAIT_S)
    try:
        await runner.setup()
        # This comes first: while a large state is recovered, `/ready` replies with 503.
        await web.TCPSite(runner, "127.0.0.1", port).start()
        # The old process of a restart may still be closing the journal.
        state = await DurableState.aopen(path, Payments(), lock_timeout_s=WAIT_S)
        try:
            service.state = state
            print("ready at port", runner.addresses[0][1], flush=True)
            await service.stopping.wait()
            service.state = None  # `/ready` replies with 503, so that no new requests are sent here
            await runner.cleanup()  # finishes the requests that have begun
        finally:
            await state.aclose(timeout_s=WAIT_S)  # without a limit, it waits for a full disk
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    if len(sys.argv) != 3 or not sys.argv[2].isdecimal() or int(sys.argv[2][:6]) > 65535:
        sys.exit(__doc__)
    try:
        asyncio.run(main(sys.argv[1], int(sys.argv[2])))
    except (JournalError, OSError) as error:
        sys.exit(f"stopped: {error}")

"""Load: threads and coroutines that call at a fixed rate or at full speed, and competing work.

At a fixed rate, a call's latency is counted from the time when it was *due*, so that a stall shows
in every call that it delayed. However short a round, at least one call is made.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from manager import SubAgentManager

_LEAD_S = 0.05  # the time for the threads to start
_TICK_S = 0.001
_TURN = 1000  # steps of a computing thread between two checks whether to end
_STARTED_AT_ONCE = 100  # coroutines


def run_threads(threads: int, run: Callable[[int], None]) -> None:
    started = [threading.Thread(target=run, args=(index,)) for index in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def at_rate(calls: Sequence[Callable[[], object]], rate: float, seconds: float) -> list[int]:
    """Make `rate` calls per second in total, in a thread for each of `calls`.

    Return the latencies from due, in ns, of all calls that were due within `seconds`.
    """
    latencies: list[list[int]] = [[] for _ in calls]
    began = time.perf_counter() + _LEAD_S
    give_up = began + 3 * seconds

    def run(index: int) -> None:
        for number in range(index, _count(rate, seconds), len(calls)):
            due = began + number / rate
            remaining_s = due - time.perf_counter()
            if remaining_s > 0:
                time.sleep(remaining_s)
            if time.perf_counter() < give_up:
                calls[index]()
            # A call that could not even begin has waited for at least this time.
            latencies[index].append(int((time.perf_counter() - due) * 1e9))

    run_threads(len(calls), run)
    return [latency for each in latencies for latency in each]


def _count(rate: float, seconds: float) -> int:
    """Return the number of calls that are due within `seconds`, at least 1."""
    return max(1, int(rate * seconds))


def at_full_speed(calls: Sequence[Callable[[], object]], seconds: float) -> float:
    """Return the calls per second of all threads together, one thread for each of `calls`.

    The time begins when each thread has made its first call, because starting many threads may
    take as long. It ends when each has ended the call that it makes then, at least one.
    """
    counts = [0] * len(calls)
    started = threading.Semaphore(0)
    until: float | None = None
    before, began = 0, 0.0

    def run(index: int) -> None:
        try:
            calls[index]()
        finally:
            started.release()
        while until is None:
            calls[index]()
            counts[index] += 1
        is_running = True
        while is_running:
            calls[index]()
            counts[index] += 1
            is_running = time.perf_counter() < until

    def begin() -> None:
        nonlocal until, before, began
        for _ in calls:
            started.acquire()
        before, began = sum(counts), time.perf_counter()
        until = began + seconds

    beginning = threading.Thread(target=begin)
    beginning.start()
    run_threads(len(calls), run)
    beginning.join()
    return (sum(counts) - before) / (time.perf_counter() - began)


AsyncCalls = Sequence[Callable[[], Awaitable[object]]]


async def _tick(until: float, late_s: list[float]) -> None:
    """Add the lateness of each tick of a timer in the loop, in s, until a time; at least one."""
    is_running = True
    while is_running:
        began = time.perf_counter()
        await asyncio.sleep(_TICK_S)
        now = time.perf_counter()
        late_s.append(now - began - _TICK_S)
        is_running = now < until


async def coroutines_at_rate(
    calls: AsyncCalls, rate: float, seconds: float
) -> tuple[list[int], list[float]]:
    """Make calls as `at_rate` does, in a coroutine for each of `calls`.

    Return the latencies from due, in ns, and the lateness of each tick of a timer, in s.
    """
    latencies: list[int] = []
    late_s: list[float] = []
    began = time.perf_counter() + _LEAD_S
    give_up = began + 3 * seconds

    async def run(index: int) -> None:
        for number in range(index, _count(rate, seconds), len(calls)):
            due = began + number / rate
            await asyncio.sleep(max(0, due - time.perf_counter()))
            if time.perf_counter() < give_up:
                await calls[index]()
            latencies.append(int((time.perf_counter() - due) * 1e9))

    await asyncio.gather(_tick(began + seconds, late_s), *map(run, range(len(calls))))
    return latencies, late_s


async def coroutines_at_full_speed(calls: AsyncCalls, seconds: float) -> tuple[float, list[float]]:
    """Call in a coroutine for each of `calls`, as `at_full_speed` does in threads.

    Return the calls per second of all together, and the lateness of each tick of a timer, in s.
    """
    late_s: list[float] = []
    starting, count = len(calls), 0
    until: float | None = None

    async def run(call: Callable[[], Awaitable[object]]) -> None:
        nonlocal starting, count, until
        await call()
        starting -= 1
        if not starting:
            count = 0
            until = time.perf_counter() + seconds
            group.create_task(_tick(until, late_s))
        while until is None:
            await call()
            await asyncio.sleep(0)  # the call itself may never wait
        is_running = True
        while is_running:
            await call()
            count += 1
            is_running = time.perf_counter() < until

    async with asyncio.TaskGroup() as group:
        for index, call in enumerate(calls):
            group.create_task(run(call))
            if index % _STARTED_AT_ONCE == 0:
                # Making all first calls in one iteration would stall the loop.
                await asyncio.sleep(0)
    assert until is not None
    return count / (time.perf_counter() - until + seconds), late_s


@contextmanager
def burning(threads: int) -> Iterator[Callable[[], int]]:
    """Run threads that compute and never wait. Yield a function that counts their turns."""
    turns = [0] * threads
    stopping = threading.Event()

    def burn(index: int) -> None:
        while not stopping.is_set():
            for _ in range(_TURN):
                pass
            turns[index] += 1

    burners = [threading.Thread(target=burn, args=(index,)) for index in range(threads)]
    for burner in burners:
        burner.start()
    try:
        yield lambda: sum(turns)
    finally:
        stopping.set()
        for burner in burners:
            burner.join()


@contextmanager
def compacting(manager: SubAgentManager) -> Iterator[None]:
    """Run one compaction after the other, each paced like the manager's own."""
    stopping = threading.Event()

    def compact() -> None:
        while not stopping.is_set():
            manager.compact().close()

    compactor = threading.Thread(target=compact)
    compactor.start()
    try:
        yield
    finally:
        stopping.set()
        compactor.join()

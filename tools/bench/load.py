"""Load: threads and coroutines that call at a fixed rate or as fast as they can, and what else the
process does meanwhile.

At a fixed rate a call's latency is counted from when it was *due*, so that a stall shows in every
call that it held up.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from manager import SubAgentManager

_LEAD_S = 0.05  # for the threads to start
_TICK_S = 0.001
_TURN = 1000  # steps of a computing thread between two looks at whether it shall end
_BEGUN_AT_ONCE = 100  # coroutines


def run_threads(threads: int, run: Callable[[int], None]) -> None:
    started = [threading.Thread(target=run, args=(index,)) for index in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def at_rate(calls: Sequence[Callable[[], object]], rate: float, seconds: float) -> list[int]:
    """Latencies from due, in ns, of the calls that were due within `seconds`: a thread each."""
    latencies: list[list[int]] = [[] for _ in calls]
    began = time.perf_counter() + _LEAD_S
    give_up = began + 3 * seconds

    def run(index: int) -> None:
        for number in range(index, int(rate * seconds), len(calls)):
            due = began + number / rate
            left = due - time.perf_counter()
            if left > 0:
                time.sleep(left)
            if time.perf_counter() < give_up:
                calls[index]()
            # One that could not even begin by now has waited at least this long.
            latencies[index].append(int((time.perf_counter() - due) * 1e9))

    run_threads(len(calls), run)
    return [latency for each in latencies for latency in each]


def at_full_speed(calls: Sequence[Callable[[], object]], seconds: float) -> float:
    """Calls a second, all threads together."""
    counts = [0] * len(calls)
    began = time.perf_counter()

    def run(index: int) -> None:
        while time.perf_counter() < began + seconds:
            calls[index]()
            counts[index] += 1

    run_threads(len(calls), run)
    return sum(counts) / (time.perf_counter() - began)


AsyncCalls = Sequence[Callable[[], Awaitable[object]]]


async def _tick(until: float, late: list[float]) -> None:
    """How late a timer of the loop comes, in s, again and again."""
    while (began := time.perf_counter()) < until:
        await asyncio.sleep(_TICK_S)
        late.append(time.perf_counter() - began - _TICK_S)


async def coroutines_at_rate(
    calls: AsyncCalls, rate: float, seconds: float
) -> tuple[list[int], list[float]]:
    """As `at_rate`, a coroutine each; and how late each tick of a timer came, in s."""
    latencies: list[int] = []
    late: list[float] = []
    began = time.perf_counter() + _LEAD_S
    give_up = began + 3 * seconds

    async def run(index: int) -> None:
        for number in range(index, int(rate * seconds), len(calls)):
            due = began + number / rate
            await asyncio.sleep(max(0, due - time.perf_counter()))
            if time.perf_counter() < give_up:
                await calls[index]()
            latencies.append(int((time.perf_counter() - due) * 1e9))

    await asyncio.gather(_tick(began + seconds, late), *map(run, range(len(calls))))
    return latencies, late


async def coroutines_at_full_speed(calls: AsyncCalls, seconds: float) -> tuple[float, list[float]]:
    """Calls a second, all coroutines together; and how late each tick of a timer came, in s."""
    late: list[float] = []
    count = 0
    until = time.perf_counter() + seconds

    async def run(call: Callable[[], Awaitable[object]]) -> None:
        nonlocal count
        while time.perf_counter() < until:
            await call()
            count += 1

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(_tick(until, late))
        for index, call in enumerate(calls):
            group.create_task(run(call))
            if index % _BEGUN_AT_ONCE == 0:
                # All first calls in one turn of the loop would be a stall of our own making.
                await asyncio.sleep(0)
    return count / (time.perf_counter() - began), late


@contextmanager
def burning(threads: int) -> Iterator[Callable[[], int]]:
    """Threads that compute and never wait; what is yielded tells the turns they have taken."""
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
    """One compaction after the other, each paced as the manager paces its own."""
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

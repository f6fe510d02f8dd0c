"""The owner's lock: one holder at a time, no waiter forgotten, no wait for a thread that is
gone."""

from __future__ import annotations

import ctypes
import dis
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from journal import InterruptedCallError
from journal._mutex import HandlerSafeLock
from journal._state import owner_lock
from journal._state.owner_lock import OwnerLock
from tests.kernel.interrupt_support import MANY, in_other_thread, monitored, struck
from tests.support import until

__all__ = ["monitored"]  # a fixture
TIMEOUT_S = 20
# Instructions at which CPython handles signals and switches threads.
SWITCH_POINTS = ("CALL", "RESUME", "JUMP_BACKWARD")
BLOCK_EXITS = ("CALL", "RERAISE")  # instructions that leave a `with` block


@contextmanager
def held(lock: OwnerLock, pool: ThreadPoolExecutor) -> Iterator[threading.Event]:
    """Hold the lock in another thread until the event is set, or the block ends."""
    inside, may_release = threading.Event(), threading.Event()

    def hold(_: None) -> None:
        inside.set()
        assert may_release.wait(TIMEOUT_S)

    holding = pool.submit(lock.run, hold, None)
    assert inside.wait(TIMEOUT_S)
    try:
        yield may_release
    finally:
        may_release.set()
        holding.result(TIMEOUT_S)


@pytest.mark.usefixtures("frequent_switches")
def test_the_lock_excludes_other_threads() -> None:
    """Threads that are switched as often as possible lose no increment of a counter."""
    lock = OwnerLock()
    count = 0

    def step(_: None) -> None:
        nonlocal count
        before = count
        sum(range(20))  # calls, so that threads are switched in here
        count = before + 1

    with ThreadPoolExecutor(16) as pool:
        for each in [
            pool.submit(lambda: [lock.run(step, None) for _ in range(500)]) for _ in range(16)
        ]:
            each.result(TIMEOUT_S)
    assert count == 16 * 500
    assert lock.stats().hold.count == count


def test_waiting_threads_take_the_lock_in_turn() -> None:
    """Twenty threads that wait for a held lock all get it after its release, and all count as
    waits."""
    lock = OwnerLock()
    passed: list[int] = []
    with ThreadPoolExecutor(21) as pool:
        with held(lock, pool) as may_release:
            waiting = [pool.submit(lock.run, passed.append, number) for number in range(20)]
            until(lambda: len(lock._queue) == 20, "all threads wait in the queue")
            assert passed == []
            may_release.set()
        for each in waiting:
            each.result(TIMEOUT_S)
    assert sorted(passed) == list(range(20))
    assert lock.stats().wait.max > 0
    assert not lock._queue


def test_a_lost_wake_up_is_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiter that was never woken, as after an interrupt of the thread that should wake it, looks
    again by itself."""
    lock = OwnerLock()
    monkeypatch.setattr(OwnerLock, "_wake", lambda self: None)
    with ThreadPoolExecutor(2) as pool:
        with held(lock, pool):
            waiting = pool.submit(lock.run, int, 0)
            until(lambda: lock._queue, "a thread waits in the queue")
        assert waiting.result(TIMEOUT_S) == 0


def test_an_action_that_raises_releases_the_lock() -> None:
    """The error is raised, the hold is counted, and the lock is free."""
    lock = OwnerLock()
    with pytest.raises(ZeroDivisionError):
        lock.run(lambda _: 1 // 0, None)
    assert lock.run(int, 0) == 0
    assert lock.stats().hold.count == 2


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there it may be late, which is slower")
def test_no_thread_switch_between_check_and_hold() -> None:
    """No instruction that could switch threads or handle an interrupt is between the check of
    `_holder` and its assignment, nor between its clearing and the lock's release."""
    code = [i for i in dis.get_instructions(OwnerLock.run) if i.opname != "CACHE"]
    names = [i.opname for i in code]
    stores = [n for n, i in enumerate(code) if (i.opname, i.argval) == ("STORE_ATTR", "_holder")]
    set_at, *cleared_at = stores
    looked_at = max(n for n, name in enumerate(names[:set_at]) if "JUMP" in name)
    assert not [name for name in names[looked_at + 1 : set_at] if name.startswith(SWITCH_POINTS)]
    assert cleared_at
    for at in cleared_at:
        released_at = next(n for n in range(at, len(names)) if names[n].startswith(BLOCK_EXITS))
        assert not [name for name in names[at + 1 : released_at] if name.startswith(SWITCH_POINTS)]


# --- interrupts and other asynchronous exceptions ---


@pytest.mark.usefixtures("monitored")
def test_an_interrupt_during_a_hold_releases_the_lock() -> None:
    """After an interrupt at any point of a hold or of its end, the lock is free."""
    lock = OwnerLock()
    for nth in range(1000):
        where = struck(partial(lock.run, int, 0), nth)
        in_other_thread(partial(lock.run, int, 0))
        if not where:
            break
    assert nth > 5


@pytest.mark.usefixtures("monitored")
def test_an_interrupt_during_a_wait_loses_no_waiter(pool: ThreadPoolExecutor) -> None:
    """After an interrupt at any point of a wait, the other waiters get the lock, and the queue
    entries of interrupted waiters don't accumulate."""
    lock = OwnerLock()
    for nth in range(MANY):
        with held(lock, pool) as may_release:
            other = pool.submit(lock.run, int, 0)
            until(lambda: lock._queue, "the other thread waits in the queue")
            timer = threading.Timer(0.015, may_release.set)
            timer.start()
            where = struck(partial(lock.run, int, 0), nth)
            may_release.set()
            other.result(TIMEOUT_S)
            timer.cancel()
            timer.join()
        in_other_thread(partial(lock.run, int, 0))
        if not where:
            break
    assert nth > 10
    assert len(lock._queue) <= 1


class Injected(Exception):  # noqa: N818 stands for an exception of a debugger or a framework
    """An exception that another thread raises in this one."""


def test_asynchronous_exceptions_do_not_break_the_lock() -> None:
    """Exceptions that other threads raise at any moment never leave the lock held, nor let two
    threads hold it at once."""
    lock = OwnerLock()
    inside, most, over = 0, 0, False
    strike = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def step(_: None) -> None:
        nonlocal inside, most
        try:
            inside += 1
            most = max(most, inside)
            sum(range(20))
        finally:
            inside -= 1

    def hold_repeatedly(caught: SimpleQueue[None]) -> None:
        caught.put(None)
        while not over:
            lock.run(step, None)

    def work(caught: SimpleQueue[None]) -> None:
        while not over:
            with suppress(Injected):
                hold_repeatedly(caught)

    all_caught: list[SimpleQueue[None]] = [SimpleQueue() for _ in range(4)]
    threads = [threading.Thread(target=work, args=(each,), daemon=True) for each in all_caught]
    gc.collect()
    gc.disable()  # Python ignores an exception that strikes while garbage is removed
    try:
        for thread in threads:
            thread.start()
        for _ in range(100):
            for thread, caught in zip(threads, all_caught, strict=True):
                caught.get(timeout=TIMEOUT_S)
                strike(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Injected))
        for caught in all_caught:
            caught.get(timeout=TIMEOUT_S)
    finally:
        over = True
        gc.enable()
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive(), "a thread hangs"
    in_other_thread(partial(lock.run, int, 0))
    assert most == 1


def test_a_reentrant_call_is_refused() -> None:
    """A callback, or a signal handler during one, that asks for the lock again gets
    InterruptedCallError, does not hang, and leaves the lock free."""
    lock = OwnerLock()
    with pytest.raises(InterruptedCallError, match="already inside a call"):
        in_other_thread(partial(lock.run, partial(lock.run, int), 0))
    assert lock.run(int, 0) == 0


class WatchedLock:
    """A lock that calls `meanwhile` during each check of whether it is free."""

    def __init__(
        self, real: HandlerSafeLock | threading.Lock, meanwhile: Callable[[], None]
    ) -> None:
        self._real = real
        self._meanwhile = meanwhile

    def __enter__(self) -> None:
        self._real.acquire()

    def __exit__(self, *_: object) -> None:
        self._real.release()

    def locked(self) -> bool:
        is_locked = self._real.locked()
        self._meanwhile()
        return is_locked


def test_a_waiter_does_not_clear_a_new_holder(pool: ThreadPoolExecutor) -> None:
    """An heir takes the lock just as a waiter finds the lock free and reserved for a thread that
    never comes. The heir stays the holder, so that later waiters wait in the queue. They would form
    a convoy on the lock itself."""
    lock = OwnerLock()
    called, go, inside, may_release = (threading.Event() for _ in range(4))
    checks: SimpleQueue[None] = SimpleQueue()
    heir = 0

    def hold(_: None) -> None:
        inside.set()
        assert may_release.wait(TIMEOUT_S)

    def inherit() -> None:
        nonlocal heir
        heir = threading.get_ident()
        called.set()
        assert go.wait(TIMEOUT_S)
        lock.run(hold, None)

    def take() -> None:
        go.set()
        assert inside.wait(TIMEOUT_S)
        checks.put(None)

    inheriting = pool.submit(inherit)
    assert called.wait(TIMEOUT_S)
    lock._holder = lock._heir = -heir
    # All that OwnerLock needs.
    lock._lock = WatchedLock(lock._lock, take)  # type: ignore[assignment]
    waiting = pool.submit(lock.run, int, 0)
    try:
        for _ in range(3):
            checks.get(timeout=TIMEOUT_S)
            assert lock._holder == heir
    finally:
        may_release.set()
    inheriting.result(TIMEOUT_S)
    assert waiting.result(TIMEOUT_S) == 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Give the locks under test a clock that stands still, in ns."""
    clock = SimpleNamespace(now_ns=1)
    monkeypatch.setattr(owner_lock, "perf_counter_ns", lambda: clock.now_ns)
    return clock


def test_the_lock_is_left_to_the_thread_that_has_waited_longest(clock: SimpleNamespace) -> None:
    """The release after 10 ms leaves the lock to the first thread that waits, although one that
    runs could take it. The next heir comes later, the more threads wait."""
    lock, heirs = OwnerLock(), list[int]()
    lock._waiting = {7: 1, 8: 300_000, 9: 2_900_000}
    for clock.now_ns in (9_900_000, 10_600_000, 10_700_000, 10_800_000, 10_850_000, 11_000_000):
        lock.run(int, 0)
        heirs.append(-lock._heir)
        lock._heir = 0  # it has come
    assert heirs == [0, 7, 0, 8, 0, 0]
    assert lock._waiting == {9: 2_900_000}


def test_many_threads_do_not_delay_an_heir_for_long(clock: SimpleNamespace) -> None:
    """After at most 100 ms, there is a next heir, however many threads have waited before."""
    lock = OwnerLock()
    lock._waiting = dict.fromkeys(range(1, 1001), 0)
    clock.now_ns = 1
    lock.run(int, 0)
    lock._waiting = {7: 0}
    clock.now_ns = 100_000_002
    lock.run(int, 0)
    assert lock._heir == -7


def test_an_heir_is_not_replaced_before_it_comes(clock: SimpleNamespace) -> None:
    """The lock stays left to an heir, although another thread has waited for long, too."""
    lock = OwnerLock()
    lock._heir, lock._waiting = -7, {8: 1}
    clock.now_ns = 11_000_000
    lock.run(int, 0)
    assert (lock._heir, lock._waiting) == (-7, {8: 1})


def test_a_thread_that_has_waited_long_is_woken_before_the_others(
    clock: SimpleNamespace, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heir gets the lock before a thread that went to sleep before it did, which is next."""
    monkeypatch.setattr(owner_lock, "_LOST_WAKE_UP_S", TIMEOUT_S)
    lock, order = OwnerLock(), list[str]()
    with held(lock, pool) as may_release:
        pool.submit(lock.run, order.append, "first")
        until(lambda: len(lock._queue) == 1, "the first thread waits in the queue")
        pool.submit(lock.run, order.append, "second")
        until(lambda: len(lock._queue) == 2, "the second thread waits in the queue")
        first, second = (thread_id for thread_id, _ in lock._queue)
        lock._waiting = {second: 0, first: 1}  # the second one was woken before, and went back
        clock.now_ns = 11_000_000
        may_release.set()
        until(lambda: len(order) == 2, "both have had the lock")
        until(lambda: not lock._waiting, "no thread waits any more")
    assert order == ["second", "first"]


def test_a_thread_that_is_gone_becomes_the_heir_once() -> None:
    """P7: An interrupt may leave a thread among those that wait. Others wait for it once, and then
    the lock is free."""
    lock = OwnerLock()
    lock._waiting = {1: 0}
    for _ in range(3):
        lock.run(int, 0)
    assert (lock._waiting, lock._holder, lock._heir) == ({}, 0, 0)


def test_no_waiter_is_overtaken_forever() -> None:
    """Threads that take the lock again and again let another one through."""
    lock = OwnerLock()
    over = False

    def hold(_: None) -> None:
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:
            pass

    def greedy() -> None:
        while not over:
            lock.run(hold, None)

    def take_turns() -> None:
        for _ in range(10):
            time.sleep(0.001)
            lock.run(int, 0)

    threads = [threading.Thread(target=greedy, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        in_other_thread(take_turns)
    finally:
        over = True
        for thread in threads:
            thread.join(TIMEOUT_S)

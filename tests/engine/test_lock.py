"""The owner's lock: one at a time, nobody forgotten, nobody given it who does not run."""

from __future__ import annotations

import ctypes
import dis
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue

import pytest

from journal import InterruptedCallError
from journal._state.owner_lock import OwnerLock
from tests.kernel.interrupt_support import in_other_thread, monitored, struck
from tests.support import until

__all__ = ["monitored"]  # a fixture
TIMEOUT_S = 20
LOOKS = ("CALL", "RESUME", "JUMP_BACKWARD")  # instructions that look for signals, and switch
LEAVES = ("CALL", "RERAISE")  # how a `with` block is left


@contextmanager
def held(lock: OwnerLock, pool: ThreadPoolExecutor) -> Iterator[threading.Event]:
    """Another thread holds it until the event is set, or the block is left."""
    inside, let_go = threading.Event(), threading.Event()

    def hold(_: None) -> None:
        inside.set()
        assert let_go.wait(TIMEOUT_S)

    holding = pool.submit(lock.run, hold, None)
    assert inside.wait(TIMEOUT_S)
    try:
        yield let_go
    finally:
        let_go.set()
        holding.result(TIMEOUT_S)


def test_the_lock_excludes_other_threads() -> None:
    """Threads that are switched at every chance lose no step of a counter."""
    lock = OwnerLock()
    count = 0

    def step(_: None) -> None:
        nonlocal count
        before = count
        sum(range(20))  # calls, so that threads are switched in here
        count = before + 1

    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(16) as pool:
            for each in [
                pool.submit(lambda: [lock.run(step, None) for _ in range(500)]) for _ in range(16)
            ]:
                each.result(TIMEOUT_S)
    finally:
        sys.setswitchinterval(before_s)
    assert count == 16 * 500
    assert lock.stats().hold.count == count


def test_waiting_threads_take_the_lock_in_turn() -> None:
    """Each of twenty that found it held passes once it is let go, and all count as waits."""
    lock = OwnerLock()
    passed: list[int] = []
    with ThreadPoolExecutor(21) as pool:
        with held(lock, pool) as let_go:
            waiting = [pool.submit(lock.run, passed.append, number) for number in range(20)]
            until(lambda: len(lock._queue) == 20, "all wait beside it")
            assert passed == []
            let_go.set()
        for each in waiting:
            each.result(TIMEOUT_S)
    assert sorted(passed) == list(range(20))
    assert lock.stats().wait.max > 0
    assert not lock._queue


def test_a_lost_wake_up_is_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is never woken (an interrupt struck the one who should have) looks again by itself."""
    lock = OwnerLock()
    monkeypatch.setattr(OwnerLock, "_wake", lambda self: None)
    with ThreadPoolExecutor(2) as pool:
        with held(lock, pool):
            waiting = pool.submit(lock.run, int, 0)
            until(lambda: lock._queue, "one waits beside it")
        assert waiting.result(TIMEOUT_S) == 0


def test_an_action_that_raises_releases_the_lock() -> None:
    """An error comes out, the hold is counted, and the lock is free."""
    lock = OwnerLock()
    with pytest.raises(ZeroDivisionError):
        lock.run(lambda _: 1 // 0, None)
    assert lock.run(int, 0) == 0
    assert lock.stats().hold.count == 2


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there it may be late, which is slower")
def test_no_switch_between_the_look_and_the_hold() -> None:
    """In the bytecode nothing that could switch threads or interrupt stands between the look at
    `_holder` and where it is set, nor between where it is cleared and the lock's release."""
    code = [i for i in dis.get_instructions(OwnerLock.run) if i.opname != "CACHE"]
    names = [i.opname for i in code]
    stores = [n for n, i in enumerate(code) if (i.opname, i.argval) == ("STORE_ATTR", "_holder")]
    set_at, *cleared_at = stores
    looked_at = max(n for n, name in enumerate(names[:set_at]) if "JUMP" in name)
    assert not [name for name in names[looked_at + 1 : set_at] if name.startswith(LOOKS)]
    assert cleared_at
    for at in cleared_at:
        released_at = next(n for n in range(at, len(names)) if names[n].startswith(LEAVES))
        assert not [name for name in names[at + 1 : released_at] if name.startswith(LOOKS)]


# --- interrupts, and what else may come at any moment ---


@pytest.mark.usefixtures("monitored")
def test_an_interrupt_during_a_hold_releases_the_lock() -> None:
    """Struck at each point of a hold and of its end, it is free for the next one."""
    lock = OwnerLock()
    for nth in range(1000):
        where = struck(partial(lock.run, int, 0), nth)
        in_other_thread(partial(lock.run, int, 0))
        if not where:
            break
    assert nth > 5


@pytest.mark.usefixtures("monitored")
def test_an_interrupt_during_a_wait_loses_no_waiter(pool: ThreadPoolExecutor) -> None:
    """Struck at each point of waiting beside it: another who waits there gets through, and what
    the struck one leaves behind does not add up."""
    lock = OwnerLock()
    strikes = 0
    for nth in range(60):
        with held(lock, pool) as let_go:
            other = pool.submit(lock.run, int, 0)
            until(lambda: lock._queue, "it waits beside it")
            timer = threading.Timer(0.015, let_go.set)
            timer.start()
            strikes += bool(struck(partial(lock.run, int, 0), nth))
            let_go.set()
            other.result(TIMEOUT_S)
            timer.join()
        in_other_thread(partial(lock.run, int, 0))
    assert strikes > 10
    assert len(lock._queue) <= 1


class Struck(Exception):  # noqa: N818 it stands for what a debugger or a framework raises
    """Raised in a thread from outside."""


def test_exceptions_from_outside_lose_no_turn() -> None:
    """Threads in which exceptions are raised at any moment never leave it held, nor are two of
    them ever inside."""
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

    def hold_on(caught: SimpleQueue[None]) -> None:
        caught.put(None)
        while not over:
            lock.run(step, None)

    def work(caught: SimpleQueue[None]) -> None:
        while not over:
            with suppress(Struck):
                hold_on(caught)

    all_caught: list[SimpleQueue[None]] = [SimpleQueue() for _ in range(4)]
    threads = [threading.Thread(target=work, args=(each,), daemon=True) for each in all_caught]
    for thread in threads:
        thread.start()
    for _ in range(100):
        for thread, caught in zip(threads, all_caught, strict=True):
            caught.get(timeout=TIMEOUT_S)
            strike(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Struck))
    for caught in all_caught:
        caught.get(timeout=TIMEOUT_S)
    over = True
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive(), "hangs"
    in_other_thread(partial(lock.run, int, 0))
    assert most == 1


def test_a_reentrant_call_is_refused() -> None:
    """A callback, or a signal handler amid one, that asks for the lock again: RuntimeError, no
    hang; the lock is free afterwards."""
    lock = OwnerLock()
    with pytest.raises(InterruptedCallError, match="already inside a call"):
        in_other_thread(partial(lock.run, partial(lock.run, int), 0))
    assert lock.run(int, 0) == 0


class SlowLook:
    """A lock; `meanwhile` happens while somebody looks whether it is free."""

    def __init__(self, real: threading.Lock, meanwhile: Callable[[], None]) -> None:
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


def test_a_waiter_that_checks_the_lock_clears_no_holder(pool: ThreadPoolExecutor) -> None:
    """An heir takes the lock just as a waiter finds it free, and left to one who does not come: the
    heir stays the holder, so that others go on waiting beside the lock. For the lock itself they
    would wait in a convoy."""
    lock = OwnerLock()
    called, go, inside, let_go = (threading.Event() for _ in range(4))
    looked: SimpleQueue[None] = SimpleQueue()
    heir = 0

    def hold(_: None) -> None:
        inside.set()
        assert let_go.wait(TIMEOUT_S)

    def inherit() -> None:
        nonlocal heir
        heir = threading.get_ident()
        called.set()
        assert go.wait(TIMEOUT_S)
        lock.run(hold, None)

    def take() -> None:
        go.set()
        assert inside.wait(TIMEOUT_S)
        looked.put(None)

    inheriting = pool.submit(inherit)
    assert called.wait(TIMEOUT_S)
    lock._holder = lock._heir = -heir
    lock._lock = SlowLook(lock._lock, take)  # type: ignore[assignment]  # all that OwnerLock asks of one
    waiting = pool.submit(lock.run, int, 0)
    try:
        for _ in range(3):
            looked.get(timeout=TIMEOUT_S)
            assert lock._holder == heir
    finally:
        let_go.set()
    inheriting.result(TIMEOUT_S)
    assert waiting.result(TIMEOUT_S) == 0


def test_no_waiter_is_overtaken_forever() -> None:
    """Threads that hold it without a pause let another one through."""
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

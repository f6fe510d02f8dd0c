"""The owner's lock: one at a time, nobody forgotten, nobody given it who does not run."""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from journal.lock import OwnerLock
from tests.support import until

TIMEOUT_S = 20
LOOKS = ("CALL", "RESUME", "JUMP_BACKWARD")  # instructions that look for signals, and switch
LEAVES = ("CALL", "RERAISE")  # how a `with` block is left


@contextmanager
def held(lock: OwnerLock, pool: ThreadPoolExecutor) -> Iterator[threading.Event]:
    """Another thread holds it until the event is set, or the block is left."""
    inside, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        assert let_go.wait(TIMEOUT_S)

    holding = pool.submit(lock.run, hold)
    assert inside.wait(TIMEOUT_S)
    try:
        yield let_go
    finally:
        let_go.set()
        holding.result(TIMEOUT_S)


def test_one_at_a_time() -> None:
    """Threads that are switched at every chance lose no step of a counter."""
    lock = OwnerLock()
    count = 0

    def step() -> None:
        nonlocal count
        before = count
        sum(range(20))  # calls, so that threads are switched in here
        count = before + 1

    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(16) as pool:
            for each in [
                pool.submit(lambda: [lock.run(step) for _ in range(500)]) for _ in range(16)
            ]:
                each.result(TIMEOUT_S)
    finally:
        sys.setswitchinterval(before_s)
    assert count == 16 * 500
    assert lock.stats().hold.count == count


def test_who_waits_gets_through_one_after_the_other() -> None:
    """Each of twenty that found it held passes once it is let go, and all count as waits."""
    lock = OwnerLock()
    passed: list[int] = []
    with ThreadPoolExecutor(21) as pool:
        with held(lock, pool) as let_go:
            waiting = [pool.submit(lock.run, passed.append, number) for number in range(20)]
            until(lambda: len(lock._beside) == 20, "all wait beside it")
            assert passed == []
            let_go.set()
        for each in waiting:
            each.result(TIMEOUT_S)
    assert sorted(passed) == list(range(20))
    assert lock.stats().wait.max > 0
    assert not lock._beside


def test_a_lost_wake_up_is_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is never woken (an interrupt struck the one who should have) looks again by itself."""
    lock = OwnerLock()
    monkeypatch.setattr(OwnerLock, "_wake", lambda self: None)
    with ThreadPoolExecutor(2) as pool:
        with held(lock, pool):
            waiting = pool.submit(lock.run, int)
            until(lambda: lock._beside, "one waits beside it")
        assert waiting.result(TIMEOUT_S) == 0


def test_what_an_action_raises_lets_go() -> None:
    """An error comes out, the hold is counted, and the lock is free."""
    lock = OwnerLock()
    with pytest.raises(ZeroDivisionError):
        lock.run(lambda: 1 // 0)
    assert lock.run(int) == 0
    assert lock.stats().hold.count == 2


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there it may be late, which is slower")
def test_no_switch_between_the_look_and_the_hold() -> None:
    """In the bytecode nothing that could switch threads or interrupt stands between the look at
    `_is_held` and where it is set, nor between where it is cleared and the lock's release."""
    code = [i for i in dis.get_instructions(OwnerLock.run) if i.opname != "CACHE"]
    names = [i.opname for i in code]
    stores = [n for n, i in enumerate(code) if (i.opname, i.argval) == ("STORE_ATTR", "_is_held")]
    set_at, *cleared_at = stores
    looked_at = max(n for n, name in enumerate(names[:set_at]) if "JUMP" in name)
    assert not [name for name in names[looked_at + 1 : set_at] if name.startswith(LOOKS)]
    assert cleared_at
    for at in cleared_at:
        released_at = next(n for n in range(at, len(names)) if names[n].startswith(LEAVES))
        assert not [name for name in names[at + 1 : released_at] if name.startswith(LOOKS)]

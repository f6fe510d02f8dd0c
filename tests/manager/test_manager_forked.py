"""A manager whose process forks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.kernel.test_fork import FORK
from tests.support import run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks with threads")

# The fork happens in a second thread, while this one holds the lock of waiters and readers. In the
# child, nobody will ever release it.
CHILD_WATCH = """
from manager import SubAgentManager

async def first(changes):
    return await anext(changes)

manager = SubAgentManager.open(path)
agent = manager.spawn("work", name="a")
changes, reader = manager.changes(0), manager.changes()
asyncio.run(first(changes))
calls = dict(
    changes=lambda: manager.changes(),
    rest=lambda: asyncio.run(first(changes)),
    update=lambda: manager.progress("a", "half"),
    wait_ended=lambda: manager.wait_ended("a"),
    ended=lambda: asyncio.run(manager.ended("a")),
    capacity=lambda: asyncio.run(manager.capacity()),
    wait_capacity=lambda: manager.wait_capacity(),
    aclose=lambda: asyncio.run(reader.aclose()),
    close=lambda: manager.close(),
)
results = []
def fork():
    results.append(in_child(lambda: {name: outcome(call) for name, call in calls.items()}))
with manager._watch._lock.checked():
    forking = threading.Thread(target=fork)
    forking.start()
    forking.join()
print(results[0])
manager.progress("a", "done")
print(asyncio.run(first(reader)).name)
manager.close()
"""


def test_a_forked_child_cannot_use_the_manager(tmp_path: Path) -> None:
    """In the child, calls raise ClosedError, and closes do nothing. None waits for a lock that a
    thread of the parent held. The parent's manager continues."""
    process = run(FORK + CHILD_WATCH, tmp_path)
    names = ["changes", "rest", "update", "wait_ended", "ended", "capacity", "wait_capacity"]
    expected = {**dict.fromkeys(names, "ClosedError"), "aclose": None, "close": None}
    assert process.stdout.splitlines() == [repr(expected), "a"], process.stderr

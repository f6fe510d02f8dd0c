"""A fork inside a call of a state: in `decide`, `apply` or `freeze`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.kernel.test_fork import FORK
from tests.support import run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks with threads")

# The child goes on from inside the callback.
FORKING = """
where = "{where}"
parent, children = os.getpid(), []

def fork(place):
    if place == where and not children:
        children.append(os.fork())

class Forking(Machine):
    def apply(self, lsn, record):
        fork("apply")
        super().apply(lsn, record)

    def freeze(self):
        fork("freeze")
        return super().freeze()

def decide(machine):
    fork("decide")
    return 1

state = DurableState.open(path, Forking(), options=quiet)
result = outcome(lambda: state.compact() and 0 if where == "freeze" else state.update(decide))
if os.getpid() != parent:
    print("child", result, outcome(lambda: state.update(decide)), outcome(state.close), flush=True)
    os._exit(0)
os.waitpid(children[0], 0)
state.wait_durable(state.update(lambda machine: 2))
state.close()
print("parent", result, sorted(DurableState.open(path, Machine()).machine.table))
"""


@pytest.mark.parametrize(
    ("where", "result", "rows"), [("decide", 1, [1, 2]), ("apply", 1, [1, 2]), ("freeze", 0, [2])]
)
def test_a_child_forked_inside_a_call_is_refused(
    tmp_path: Path, where: str, result: int, rows: list[int]
) -> None:
    """The call raises ClosedError in the child, and goes on in the parent."""
    process = run(FORK + FORKING.format(where=where), tmp_path / "j")
    assert process.stdout.splitlines() == [
        "child ClosedError ClosedError None",
        f"parent {result} {rows}",
    ], process.stderr


IMPORTS = """
import sys, time
from journal import Journal

with Journal.open(sys.argv[1]) as journal:
    loaded = {*sys.modules}
    for _ in range(3):
        journal.append_and_wait(1)
    time.sleep(0.1)  # the log goes idle
    journal.compact(lambda: (journal.last_lsn, [1]))
print({*sys.modules} - loaded)
"""


def test_an_open_journal_imports_nothing(tmp_path: Path) -> None:
    """A child that is forked while another thread imports a module can never import it. So all that
    commits and compactions need is imported before the open returns, also that of a new journal."""
    process = run(IMPORTS, tmp_path / "j")
    assert process.stdout == "set()\n", process.stderr

"""The second runs of the explorer: from what a crash has left, with the records that it lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from proof.ledger import Ledger

from journal import DurableState
from journal.testing import Bounds, History, ManualOptions, SimulatedDisk
from journal.testing.explorer import _Explorer
from tests.support import PATH


def test_a_sequel_leaves_out_fillers() -> None:
    """A second run appends the records that a crash has lost, except the filler of a compaction: no
    owner appends one."""
    history = History(Ledger)
    history.add([["a", 0, ""]])
    history.add_filler()
    history.add([["a", 1, ""], ["a", 2, ""]])
    assert history._changes(0, 3) == [["a", 0, ""], ["a", 1, ""]]
    assert history._changes(1, 4) == [["a", 1, ""], ["a", 2, ""]]
    disk = SimulatedDisk()
    with DurableState.open(PATH, Ledger(), disk=disk) as state:
        state.update(lambda _: ["a", 0, ""])
    explorer = _Explorer(Ledger, ManualOptions(), Bounds(outcomes_max=2, deviations=0), PATH)
    image: Any = SimpleNamespace(medium=disk.snapshot())
    explorer._sequel(history, image, 1)
    assert explorer.report.moments > 10

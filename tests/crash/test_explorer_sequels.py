"""The second runs of the explorer: from what a crash has left, with the records that it lost."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from proof.ledger import Ledger

from journal import DurableState
from journal.testing import (
    Bounds,
    BrokenPromiseError,
    History,
    ManualOptions,
    Owner,
    SimulatedDisk,
    explore,
)
from journal.testing.explorer import _Explorer
from journal.testing.judge import Judge
from tests.support import PATH, Table


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


def work(owner: Owner[Table]) -> None:
    for number in range(6):
        owner.append(["a", number])
        owner.wait()


@pytest.mark.parametrize("interval", [5, 10])
@pytest.mark.parametrize(("bound", "part"), [("sequels", "_sequel"), ("rot", "rot")])
def test_a_failure_in_a_selected_image_is_repeated_alone(
    bound: str, part: str, interval: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`only` selects the images for sequels and rot as an exploration of all crash points does,
    although it leaves out the images of the points before it."""

    def fail_late(_: object, *arguments: Any) -> None:
        if arguments[-1] >= 3:
            raise BrokenPromiseError("P6: a late failure")

    monkeypatch.setattr(_Explorer if bound == "sequels" else Judge, part, fail_late)
    limits: Any = {"outcomes_max": 4, "deviations": 1, bound: interval}
    bounds = Bounds(**limits)
    with pytest.raises(BrokenPromiseError, match="a late failure") as caught:
        explore(Table, work, bounds=bounds)
    [only] = re.findall(r"only=(\d+)", str(caught.value))
    with pytest.raises(BrokenPromiseError, match="a late failure"):
        explore(Table, work, bounds=bounds, only=int(only))

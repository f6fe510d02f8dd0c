"""`python tools/proof crashsim --mirror`: crashes of a journal and its mirror, all of them."""

from __future__ import annotations

from typing import Any

import pytest
from proof.crashsim import explored
from proof.ledger import Ledger
from proof.mirrored_explorer import MirroredJudge, explore_mirrored

from journal.testing import Bounds, BrokenPromiseError, ManualOptions, Owner
from tests.tiers import sample

FEW = Bounds(outcomes_max=4, deviations=1)


def work(owner: Owner[Any]) -> None:
    owner.append(["a", 0, "f" * 40])
    owner.wait()
    owner.append(["b", 0, ""])
    owner.power_cut()
    owner.reopen()
    owner.append(["b", 1, ""])
    owner.compact()
    owner.close()


def test_no_crash_parts_a_journal_from_its_mirror() -> None:
    """P1, P2: After each crash, the directory and the mirror have not diverged, and each of them
    has what it promised."""
    report = explore_mirrored(Ledger, work, options=ManualOptions(segment_bytes=200), bounds=FEW)
    assert report.moments > 60
    assert report.images > 30


@pytest.mark.slow
@pytest.mark.parametrize("seed", sample(3, range(1, 7)))
def test_random_workloads_are_mirrored(seed: int) -> None:
    """P1, P2: That holds for random workloads, with both durabilities. More are run by hand."""
    result = explored(seed, 12, Bounds(outcomes_max=64), is_mirrored=True)
    assert result.failure is None


def test_a_failure_names_its_crash_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message lists all operations before the crash. It gives no number of the crash point,
    because `--mirror` has no option that takes one."""

    def recover(*_: object) -> None:
        raise BrokenPromiseError("P2: it is gone")

    monkeypatch.setattr(MirroredJudge, "_recover", recover)
    with pytest.raises(BrokenPromiseError) as caught:
        explore_mirrored(Ledger, work, options=ManualOptions(), bounds=FEW)
    message = str(caught.value)
    assert "P2: it is gone\na power cut before remove /journal/MIRROR.tmp leaves this:" in message
    assert message.endswith("Operations on the disk before it:\n    0 make_directory /journal")
    assert "only=" not in message

"""A real process, killed between any two pieces of a large value."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from journal import Tables
from tests.kernel.tables_child import AFTER, BEFORE, OPTIONS, PIECES, Rows, rows
from tests.support import TIMEOUT_S, logged
from tests.tiers import slow_but_every

ROOT = Path(__file__).resolve().parents[2]
OLD: tuple[Rows, Rows] = {"large": BEFORE}, {}
NEW: tuple[Rows, Rows] = {"large": AFTER}, {"beside": 1}
POINTS = PIECES + 3  # of which the last is after the transaction was acknowledged
QUICK = (0, 1, PIECES // 2, PIECES, PIECES + 1, PIECES + 2)


@pytest.mark.parametrize("syncs", slow_but_every(2, [True, False]), ids=["synced", "unsynced"])
@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=() if point in QUICK else pytest.mark.slow)
        for point in range(POINTS)
    ],
)
def test_a_kill_leaves_the_old_rows_or_the_new_ones(
    tmp_path: Path, point: int, syncs: bool
) -> None:
    """P2, P3: a large value and the rows beside it are all there or all absent, and no piece is
    left."""
    child = subprocess.run(
        [sys.executable, "-P", "-m", "tests.kernel.tables_child", str(tmp_path / "journal"),
         str(point), str(int(syncs))],
        env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip
    assert (child.returncode, child.stderr) == (-signal.SIGKILL, "")
    is_acknowledged = point == POINTS - 1
    assert child.stdout == "acknowledged\n" * is_acknowledged
    with Tables.open(tmp_path / "journal", options=OPTIONS) as app:
        if point <= PIECES:
            assert rows(app) == OLD
        elif syncs or is_acknowledged:
            assert rows(app) == NEW
        else:
            assert rows(app) in (OLD, NEW)
        assert app._machine.uploads.ids() == []
        app.sync(timeout_s=TIMEOUT_S)
        kinds = [record[0] for record in logged(app.journal)]
        if syncs and point <= PIECES:
            assert kinds == ["rows", *["piece"] * point, *["drop"] * bool(point)]
        app.table("t")["large"] = AFTER
    with Tables.open(tmp_path / "journal", options=OPTIONS) as app:
        assert app.table("t")["large"] == AFTER

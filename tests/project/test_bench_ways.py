"""The ways to persist a fleet that `python tools/bench fanout` compares, and what each may lose."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from bench.before import DebouncedSteps, OneWriter
from bench.fleet_load import whole_fleet
from bench.losses import longest_ns, rising

from manager import AgentResult


def file_of(directory: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((directory / "state" / "fleet.json").read_text())
    return document


def test_debounced_steps_are_not_written_at_once(tmp_path: Path) -> None:
    """A spawn and an end are written at once, each in full; the steps between them are not."""
    with whole_fleet(tmp_path, DebouncedSteps, 0) as (manager, state):
        ref = manager.spawn("find it").agent_id
        for turn in range(1, 5):
            manager.update_checkpoint(ref, {"turn": turn}, steps_taken=turn)
        state.settle()
        assert [version for version, _ in state.kept] == [1]
        manager.update_from_result(ref, AgentResult("found"))
    assert sorted(version for version, _ in state.kept) == [1, 6]
    assert [agent["status"] for agent in file_of(tmp_path)["agents"]] == ["completed"]


def test_one_writer_ends_with_the_newest_snapshot(tmp_path: Path) -> None:
    """The only writer writes no older snapshot over a newer one, and the newest one last. It has
    ended when the fleet has settled, and starts again with the next change."""
    with whole_fleet(tmp_path, OneWriter, 0) as (manager, state):
        for number in range(20):
            manager.spawn(f"find {number}")
        state.settle()
        assert len(file_of(tmp_path)["agents"]) == 20
        threads = threading.active_count()
        manager.spawn("find one more")
        assert threading.active_count() == threads + 1
    versions = [version for version, _ in state.kept]
    assert versions == sorted(versions)
    assert versions[-1] == 21
    assert len(file_of(tmp_path)["agents"]) == 21


def test_a_loss_is_as_old_as_the_oldest_change_that_is_not_on_disk() -> None:
    """A crash loses the acknowledged changes that are not on disk at that moment. An older file
    over a newer one takes changes away again."""
    assert longest_ns([], []) == 0
    assert longest_ns([(1, 100), (2, 130)], []) == 30  # nothing was ever written
    acknowledged = [(1, 100), (2, 110), (3, 150), (4, 300)]
    assert longest_ns(acknowledged, [(1, 90), (2, 105), (3, 140), (4, 290)]) == 0
    assert longest_ns(acknowledged, [(2, 160), (4, 320)]) == 150  # 3 was not on disk until the end
    assert longest_ns(acknowledged, [(3, 150), (1, 155), (4, 290)]) == 180  # 2 went away again


def test_a_log_loses_no_commit_again() -> None:
    """The durable LSN never falls, in whichever order its events were noted."""
    assert rising([(5, 3), (2, 1), (4, 4)]) == [(2, 1), (5, 3), (5, 4)]

"""A damaged fleet, read from outside: the result is the fleet that the next open would find, or the
same refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from shutil import rmtree
from typing import TypeVar

import pytest

from journal import CorruptionError
from journal.testing import ManualOptions, SimulatedDisk
from manager import Agent, AgentResult, SubAgentManager
from manager.view import read_fleet
from tests.crash.crash_support import PATH, image
from tests.crash.damage_kinds import (
    FILES,
    Damaged,
    Journal,
    duplicated,
    exchanged,
    flipped,
    foreign,
    removed,
    spliced,
    truncated,
    zeroed,
)
from tests.crash.damage_oracle import Evidence, verdict
from tests.crash.damaged_journal import SMALL, Files, is_segment
from tests.manager_support import MANY
from tests.tiers import slow_unless

T = TypeVar("T")
FOLDER = ".subagents"
FLEET = f"/w/{FOLDER}"
SEGMENTS = [
    "00000000000000000001-0000000001.seg",
    "00000000000000000007-0000000002.seg",
    "00000000000000000015-0000000003.seg",
]
CHECKPOINTS = ["checkpoint-00000000000000000005.json", "checkpoint-00000000000000000013.json"]
LAST_LSN = 17
Place = tuple[str, int, int]


def open_fleet(disk: SimulatedDisk) -> SubAgentManager:
    options = ManualOptions(segment_bytes=1200)
    return SubAgentManager.open("/w", limits=MANY, options=options, disk=disk)


@cache
def past_of_fleet(ids: int) -> tuple[Files, ...]:
    """Return a fleet's files after each step. `ids` makes the ids of journals differ."""
    disk, past = SimulatedDisk(), list[Files]()
    for _ in range(ids):
        disk.new_id()

    def record_files(manager: SubAgentManager) -> None:
        manager.wait_durable()
        files = disk.contents(FLEET)
        past.append({name: files[name] for name in files if name != "LOCK"})

    with open_fleet(disk) as manager:
        for number in range(4):
            manager.spawn("work", name=f"first {number}")
            record_files(manager)
        manager.compact()
        manager.update_from_result("first 0", AgentResult("done"))
        record_files(manager)
    with open_fleet(disk) as manager:
        for number in range(3):
            manager.spawn("work", name=f"second {number}", queued=True)
            record_files(manager)
        manager.compact()
        manager.cancel("second 1")
        record_files(manager)
    with open_fleet(disk) as manager:
        manager.spawn("work", name="third")
        record_files(manager)
        manager.update_checkpoint("third", {"at": 1}, steps_taken=1)
        record_files(manager)
    files = disk.contents(FLEET)
    return (*past, {name: files[name] for name in files if name != "LOCK"})


def fleet() -> Journal:
    *past, files = past_of_fleet(0)
    return Journal(files, tuple(past), past_of_fleet(1)[-1], SMALL)


def agents_or_refusal(agents: Callable[[], Iterable[Agent]]) -> list[Agent] | Place:
    """Return the agents without what a restart changes, or the place that a refusal names."""
    try:
        listed = agents()
    except CorruptionError as error:
        return error.path.rpartition("/")[2], error.offset, error.lsn
    return [replace(agent, updated_at_ms=0, lsn=0, boot_id="") for agent in listed]


def read(path: Path, damaged: Files) -> list[Agent] | Place:
    """Read a fleet from files on the real disk. Nothing may change there."""
    path.mkdir(mode=0o700)
    for name, data in damaged.items():
        (path / name).touch(mode=0o600)
        (path / name).write_bytes(data)
    result = agents_or_refusal(lambda: read_fleet(path).agents(include_archived=True))
    assert {each.name: each.read_bytes() for each in path.iterdir()} == damaged
    rmtree(path)
    return result


def opened(damaged: Files) -> list[Agent] | Place:
    def agents() -> list[Agent]:
        with open_fleet(image(damaged, FLEET)) as manager:
            return manager.agents(include_archived=True)

    return agents_or_refusal(agents)


def check_damages(path: Path, damages: Iterable[Damaged]) -> int:
    """Check that each fleet reads as it opens. Return how many are refused, each at the right
    place."""
    evidence, refused = Evidence.of(fleet().files), 0
    for damaged in damages:
        read_result, open_result = read(path / FOLDER, damaged.files), opened(damaged.files)
        assert read_result == open_result, damaged.description
        refusal, _ = verdict(damaged.files, evidence)
        if refusal:
            file, offset, lsn = refusal
            file = FOLDER if file == PATH else file.rpartition("/")[2]
            assert read_result == (file, offset, lsn), damaged.description
            refused += 1
    return refused


def test_the_fleet_contains_everything_that_can_be_damaged(tmp_path: Path) -> None:
    """P6: The fleet has several segments, epochs and checkpoints, and reads as it opens."""
    undamaged = fleet().files
    assert sorted(undamaged) == [*SEGMENTS, *CHECKPOINTS]
    assert verdict(undamaged, Evidence.of(undamaged)) == (None, LAST_LSN)
    agents = read(tmp_path / FOLDER, undamaged)
    assert agents == opened(undamaged)
    assert len(agents) == 8


@pytest.mark.parametrize(
    "name",
    slow_unless(lambda name: name in (SEGMENTS[-1], CHECKPOINTS[-1]), [*SEGMENTS, *CHECKPOINTS]),
)
def test_a_fleet_with_damaged_bytes_reads_as_it_opens(tmp_path: Path, name: str) -> None:
    """P4: A fleet with damaged bytes is read as it is opened, or is refused with the same place."""
    kinds = flipped, truncated, zeroed, spliced
    damages = (damaged for kind in kinds for damaged in kind(fleet(), name, 307))
    refused = check_damages(tmp_path, damages)
    assert bool(refused) == (name in SEGMENTS[1:])


@pytest.mark.parametrize("name", [*SEGMENTS, *CHECKPOINTS])
def test_a_fleet_with_damaged_files_reads_as_it_opens(tmp_path: Path, name: str) -> None:
    """P4: The same holds for a file that is missing, older or replaced by another."""
    kinds = [kind for kind in FILES if kind not in (foreign, duplicated, exchanged)]
    check_damages(tmp_path, (damaged for kind in kinds for damaged in kind(fleet(), name, 1)))
    swapped_files = (
        d for d in exchanged(fleet(), name, 1) if not {*CHECKPOINTS} <= changed_files(d.files)
    )
    check_damages(tmp_path, swapped_files)


def changed_files(damaged: Files) -> set[str]:
    undamaged = fleet().files
    return {name for name in undamaged if damaged.get(name) != undamaged[name]}


@pytest.mark.parametrize("name", [SEGMENTS[2], *CHECKPOINTS])
def test_a_file_of_another_fleet_is_refused(tmp_path: Path, name: str) -> None:
    """P4: Agents of another journal are never listed as ours."""
    assert check_damages(tmp_path, foreign(fleet(), name, 1)) == 1


def test_a_fleet_without_its_log_is_refused(tmp_path: Path) -> None:
    """P4: If the log is lost, no older fleet is shown instead."""
    without_log = {name: data for name, data in fleet().files.items() if not is_segment(name)}
    assert check_damages(tmp_path, [Damaged("no segments", without_log)]) == 1


def test_a_fleet_without_its_first_records_is_refused(tmp_path: Path) -> None:
    """P4: A log whose beginning was removed is not shown as a fleet without a checkpoint."""
    [damaged] = removed(fleet(), SEGMENTS[0], 1)
    only_segments = {name: data for name, data in damaged.files.items() if is_segment(name)}
    assert check_damages(tmp_path, [Damaged("no checkpoints", only_segments)]) == 1

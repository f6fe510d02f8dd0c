"""A damaged fleet, read from outside: what the next open would find, or the same refusal."""

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
    """The files of a fleet as they stood after each step; `ids` tells journals apart."""
    disk, past = SimulatedDisk(), list[Files]()
    for _ in range(ids):
        disk.new_id()

    def done(manager: SubAgentManager) -> None:
        manager.wait_durable()
        files = disk.contents(FLEET)
        past.append({name: files[name] for name in files if name != "LOCK"})

    with open_fleet(disk) as manager:
        for number in range(4):
            manager.spawn("work", name=f"first {number}")
            done(manager)
        manager.compact()
        manager.update_from_result("first 0", AgentResult("done"))
        done(manager)
    with open_fleet(disk) as manager:
        for number in range(3):
            manager.spawn("work", name=f"second {number}", queued=True)
            done(manager)
        manager.compact()
        manager.cancel("second 1")
        done(manager)
    with open_fleet(disk) as manager:
        manager.spawn("work", name="third")
        done(manager)
        manager.update_checkpoint("third", {"at": 1}, steps_taken=1)
        done(manager)
    files = disk.contents(FLEET)
    return (*past, {name: files[name] for name in files if name != "LOCK"})


def fleet() -> Journal:
    *past, files = past_of_fleet(0)
    return Journal(files, tuple(past), past_of_fleet(1)[-1], SMALL)


def agents_or_refusal(agents: Callable[[], Iterable[Agent]]) -> list[Agent] | Place:
    """Agents without the time of the interruption that a restart is."""
    try:
        found = agents()
    except CorruptionError as error:
        return error.path.rpartition("/")[2], error.offset, error.lsn
    return [replace(agent, updated_at_ms=0, lsn=0, boot_id="") for agent in found]


def read(path: Path, damaged: Files) -> list[Agent] | Place:
    """From files on the real disk; nothing changes there."""
    path.mkdir(mode=0o700)
    for name, data in damaged.items():
        (path / name).touch(mode=0o600)
        (path / name).write_bytes(data)
    found = agents_or_refusal(lambda: read_fleet(path).agents(include_archived=True))
    assert {each.name: each.read_bytes() for each in path.iterdir()} == damaged
    rmtree(path)
    return found


def opened(damaged: Files) -> list[Agent] | Place:
    def agents() -> list[Agent]:
        with open_fleet(image(damaged, FLEET)) as manager:
            return manager.agents(include_archived=True)

    return agents_or_refusal(agents)


def check(path: Path, damages: Iterable[Damaged]) -> int:
    """How many are refused; all of them where the format's rule says so."""
    evidence, refused = Evidence.of(fleet().files), 0
    for damaged in damages:
        seen, expected = read(path / FOLDER, damaged.files), opened(damaged.files)
        assert seen == expected, damaged.what
        refusal, _ = verdict(damaged.files, evidence)
        if refusal:
            file, offset, lsn = refusal
            file = FOLDER if file == PATH else file.rpartition("/")[2]
            assert seen == (file, offset, lsn), damaged.what
            refused += 1
    return refused


def test_the_fleet_has_what_damage_may_hit(tmp_path: Path) -> None:
    """P6: several segments, epochs and checkpoints; undamaged it is read as it is opened."""
    undamaged = fleet().files
    assert sorted(undamaged) == [*SEGMENTS, *CHECKPOINTS]
    assert verdict(undamaged, Evidence.of(undamaged)) == (None, LAST_LSN)
    agents = read(tmp_path / FOLDER, undamaged)
    assert agents == opened(undamaged)
    assert len(agents) == 8


@pytest.mark.parametrize("name", [*SEGMENTS, *CHECKPOINTS])
def test_damage_to_bytes(tmp_path: Path, name: str) -> None:
    """P4: refused as by open, with file, offset and LSN; or the fleet that open finds."""
    kinds = flipped, truncated, zeroed, spliced
    damages = (damaged for kind in kinds for damaged in kind(fleet(), name, 307))
    refused = check(tmp_path, damages)
    assert bool(refused) == (name in SEGMENTS[1:])


@pytest.mark.parametrize("name", [*SEGMENTS, *CHECKPOINTS])
def test_damage_to_files(tmp_path: Path, name: str) -> None:
    """P4: a file that is gone, older, another's, in another's place."""
    kinds = [kind for kind in FILES if kind not in (foreign, duplicated, exchanged)]
    check(tmp_path, (damaged for kind in kinds for damaged in kind(fleet(), name, 1)))
    swapped = (d for d in exchanged(fleet(), name, 1) if not {*CHECKPOINTS} <= lost(d.files))
    check(tmp_path, swapped)


def lost(damaged: Files) -> set[str]:
    undamaged = fleet().files
    return {name for name in undamaged if damaged.get(name) != undamaged[name]}


@pytest.mark.parametrize("name", [SEGMENTS[2], *CHECKPOINTS])
def test_a_file_of_another_fleet(tmp_path: Path, name: str) -> None:
    """P4: agents of another journal are never shown for ours."""
    assert check(tmp_path, foreign(fleet(), name, 1)) == 1


def test_a_log_that_is_gone(tmp_path: Path) -> None:
    """P4: no older fleet is shown for the one whose log is lost."""
    gone = {name: data for name, data in fleet().files.items() if not is_segment(name)}
    assert check(tmp_path, [Damaged("no segments", gone)]) == 1


def test_no_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    """P4: with its beginning dropped, a log alone is not shown for a fleet."""
    [damaged] = removed(fleet(), SEGMENTS[0], 1)
    alone = {name: data for name, data in damaged.files.items() if is_segment(name)}
    assert check(tmp_path, [Damaged("no checkpoints", alone)]) == 1

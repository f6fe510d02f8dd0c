"""Fleets as of several moments: read in one pass, they equal those that are read one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal import CompactedError, CorruptionError, JournalReader
from manager import FleetView, SubAgentManager, read_fleet, read_fleets
from tests.manager.test_view import populate


def _state_dir(tmp_path: Path, compactions: int) -> Path:
    """Return the path of a fleet with agents of each status and with removed agents."""
    with SubAgentManager.open(tmp_path) as manager:
        populate(manager)
    for number in range(compactions):
        with SubAgentManager.open(tmp_path) as manager:
            manager.resume("b")
            manager.update_checkpoint("b", {"at": number}, steps_taken=4 + number)
            manager.compact()
            name = "c" if number else "a"
            manager.cancel(name)
            manager.prune(name)
            manager.spawn("later", name="twice", queued=number == 0)
            manager.cancel("twice")
    return tmp_path / ".subagents"


def _content(fleet: FleetView) -> tuple[object, ...]:
    agents = fleet.agents(include_archived=True)
    return fleet.lsn, agents, fleet.agents(), [fleet.get(agent.name) for agent in agents]


@pytest.mark.parametrize("compactions", [0, 1, 2])
def test_fleets_read_together_equal_those_read_alone(tmp_path: Path, compactions: int) -> None:
    """P9: For LSNs in any order, also twice and after the end, each fleet is that of its LSN."""
    path = _state_dir(tmp_path, compactions)
    with JournalReader.open(path) as reader:
        first, last = reader.first_state_lsn, reader.last_lsn
    lsns = range(0 if first == 1 else first, last + 2)
    alone = {lsn: _content(read_fleet(path, at=lsn)) for lsn in lsns}
    for asked in ([*reversed(lsns)], [last, lsns[0], last], [lsns[0], last + 1], []):
        assert [_content(fleet) for fleet in read_fleets(path, asked)] == [
            alone[lsn] for lsn in asked
        ]
    if compactions == 2:
        with pytest.raises(CompactedError) as caught:
            read_fleets(path, [last, first - 1])
        assert caught.value.lsn == first - 1


def test_a_record_is_read_once_for_all_fleets(tmp_path: Path) -> None:
    """Two moments of a log cost one pass up to the later one."""
    path = _state_dir(tmp_path, 0)
    last, counts = read_fleet(path).lsn, list[int]()
    read_fleets(path, [last - 1, last // 2], progress=counts.append)
    assert sum(counts) == last - 1


def test_damage_before_a_checkpoint_spares_later_fleets(tmp_path: Path) -> None:
    """A fleet that a checkpoint holds can be read although records before it can't be."""
    with SubAgentManager.open(tmp_path) as manager:
        populate(manager)
        for step in range(4, 10):
            manager.update_checkpoint("b", {}, steps_taken=step)
            manager.wait_durable()
        manager.compact()
        manager.update_checkpoint("b", {}, steps_taken=10)
        last = manager.stats().last_lsn
    path = tmp_path / ".subagents"
    with JournalReader.open(path) as reader:
        base = reader.base()
        assert base is not None
        entry = next(reader.entries(base.lsn - 3))
    assert entry.path is not None
    assert entry.offset is not None
    file = Path(entry.path)
    data = bytearray(file.read_bytes())
    data[entry.offset + 40] ^= 1
    file.write_bytes(data)
    before, after = read_fleets(path, [entry.lsn - 1, last])
    assert (before.lsn, after.lsn) == (entry.lsn - 1, last)
    for lsns in ([entry.lsn, last], [last, entry.lsn]):
        with pytest.raises(CorruptionError):
            read_fleets(path, lsns)


@pytest.mark.parametrize(
    ("wrong", "error"), [(None, TypeError), (True, TypeError), (-1, ValueError)]
)
def test_each_moment_is_an_lsn(tmp_path: Path, wrong: object, error: type[Exception]) -> None:
    """A value that is no LSN is refused before the directory is opened."""
    with pytest.raises(error, match="ats must be an LSN"):
        read_fleets(tmp_path / "none", [1, wrong])  # type: ignore[list-item]

"""The open of a fleet with many rows: their lines are loaded together, and their text is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from journal import FormatVersionError
from manager import SubAgentManager
from manager.fleet import Fleet
from tests.crash.fleet_forge import forged, item

ROWS = 500
ROW = b'{"table":"t","key":%d,"value":{"n":%d}},\n'
LARGE = "large " * (1 << 20)


def test_rows_beside_agents_are_loaded_without_decoding_their_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The open of a fleet decodes the items of agents, and no value of a row."""
    with SubAgentManager.open(tmp_path) as manager:
        agent = manager.spawn("x")
        for n in range(ROWS):
            manager.tables.table("t")[n] = {"n": n}
        manager.tables.table("u")["large"] = LARGE
        manager.tables.table("u").set("expires", 1, expires_at=4e9)
        manager.compact()
    loaded: list[Any] = []
    load = Fleet.load_items

    def counted(fleet: Fleet, items: list[Any]) -> None:
        loaded.extend(items)
        load(fleet, items)

    monkeypatch.setattr(Fleet, "load_items", counted)
    with SubAgentManager.open(tmp_path) as manager:
        assert [item.get("agent_id") for item in loaded] == [agent.agent_id]
        table = manager.tables.table("t")
        assert dict(table.items()) == {n: {"n": n} for n in range(ROWS)}
        assert table._stored(7) == b'\xc1{"n":7}'
        assert manager.tables.table("u")["large"] == LARGE
        assert manager.tables.table("u")["expires"] == 1


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ([b'{"agent_id":1}\n'], 1),
        ([b'{"agent_id":1},\n', ROW % (1, 1)], 1),
        ([ROW % (1, 1), ROW % (2, 2)], 0),
        ([ROW % (1, 1), b'{"agent_id":1},\n'], 2),
        ([ROW % (1, 1), b'{"agent_id":1},\n', ROW % (2, 2)], 3),
    ],
)
def test_only_rows_after_all_agents_are_loaded_as_lines(lines: list[bytes], left: int) -> None:
    """Lines in an order that no manager writes are left to be loaded as items."""
    fleet = Fleet()
    assert fleet.load_lines_of_part(lines) == lines[:left]
    rows: Any = fleet.begin_tables()
    assert rows.count("t") == len(lines) - left


@pytest.mark.parametrize(
    "rows",
    [
        [{"table": "t", "key": 2, "value": 1}, {"table": "t", "key": 1, "value": 1}],
        [{"table": "", "key": 1, "value": 1}],
        [{"table": "t", "key": None, "value": 1}],
        [{"table": "t", "key": 1, "pieces": 1}],
    ],
)
def test_a_row_that_tables_never_write_is_refused_with_its_file(
    tmp_path: Path, rows: list[Any]
) -> None:
    """P4: Rows that tables never write are refused, with the path of the checkpoint."""
    path = tmp_path / ".subagents"
    path.mkdir(mode=0o700)
    for name, data in forged([item("a"), *rows], []).items():
        (path / name).write_bytes(data)
    with pytest.raises(FormatVersionError, match="load raised") as refused:
        SubAgentManager.open(tmp_path)
    assert str(refused.value.path).endswith(".json")

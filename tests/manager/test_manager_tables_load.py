"""The open of a fleet with many rows: their lines are loaded together, and their text is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from journal import FormatVersionError
from journal._format import checkpoint, items
from manager import Agent, SubAgentManager, read_fleet
from manager.columns import AGENT_ID
from manager.fleet import Fleet
from manager.typed_items import Agents
from tests.crash.fleet_forge import BASE_LSN, forged, item

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
    load = Fleet._load_agents

    def counted(fleet: Fleet, agents: Agents) -> None:
        loaded.extend(agents.rows)
        load(fleet, agents)

    monkeypatch.setattr(Fleet, "_load_agents", counted)
    monkeypatch.setattr(Fleet, "load", Mock(side_effect=AssertionError))
    with SubAgentManager.open(tmp_path) as manager:
        assert [row[AGENT_ID] for row in loaded] == [agent.agent_id]
        table = manager.tables.table("t")
        assert dict(table.items()) == {n: {"n": n} for n in range(ROWS)}
        assert table._stored(7) == b'\xc1{"n":7}'
        assert manager.tables.table("u")["large"] == LARGE
        assert manager.tables.table("u")["expires"] == 1


def opened(workspace: Path) -> list[Agent]:
    with SubAgentManager.open(workspace) as manager:
        return manager.agents(include_archived=True)


def read(workspace: Path) -> list[Agent]:
    return read_fleet(workspace / ".subagents").agents(include_archived=True)


@pytest.mark.parametrize("agents_of", [opened, read])
@pytest.mark.parametrize(
    ("least_bytes", "metadata", "is_text_loaded"),
    [
        (0, {"n": 1, "text": "é\n$5"}, True),
        (0, {"$bytes": "QQ=="}, False),
        (1 << 40, {"n": 1}, False),
    ],
)
def test_agents_are_decoded_by_msgspec_if_a_large_checkpoint_is_plain_json(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    agents_of: Callable[[Path], list[Agent]],
    least_bytes: int,
    metadata: dict[str, Any],
    is_text_loaded: bool,
) -> None:
    """P6: An open and a reader give the same agents. A small checkpoint does not import msgspec."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("x", metadata=metadata)
        manager.compact()
        expected = manager.agents()
    load_text = Mock(side_effect=Fleet.load_text, autospec=True)
    asked = Mock(side_effect=items._fast_decoder)
    monkeypatch.setattr(Fleet, "load_text", lambda *args: load_text(*args))
    monkeypatch.setattr(items, "_fast_decoder", asked)
    monkeypatch.setattr(checkpoint, "_FAST_FROM_BYTES", least_bytes)
    assert [agent.metadata for agent in agents_of(tmp_path)] == [
        agent.metadata for agent in expected
    ]
    assert load_text.called == is_text_loaded
    assert asked.called == (least_bytes == 0)


@pytest.mark.parametrize("least_bytes", [0, 1 << 40])
@pytest.mark.parametrize(
    ("states", "are_prior"),
    [(None, [False, True]), (True, [True, True]), (False, [True, False])],
)
def test_a_reader_guesses_the_session_if_an_older_checkpoint_does_not_state_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    least_bytes: int,
    states: bool | None,
    are_prior: list[bool],
) -> None:
    """P6: Without `from_prior_session`, the latest session is that of a running agent."""
    monkeypatch.setattr(checkpoint, "_FAST_FROM_BYTES", least_bytes)
    agents = [item("a"), item("b", boot_id="boot_2", status="completed", ended_at_ms=1)]
    for agent in agents:
        del agent["from_prior_session"]
        if states is not None:
            agent["from_prior_session"] = states
    for name, data in forged(agents, []).items():
        (tmp_path / name).write_bytes(data)
    view = read_fleet(tmp_path, at=BASE_LSN)
    found = view.agents(include_archived=True)
    assert [agent.from_prior_session for agent in found] == are_prior


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
    reader = Fleet(with_tables=False)
    assert reader.load_lines_of_part(lines) == lines[:left]
    assert reader.tables is None


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

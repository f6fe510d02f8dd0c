"""journal-inspect: the beginning of an id means an agent, and a narrow terminal shows records."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.inspect.inspect_support import ask, check_refused, fleet
from tests.inspect.test_inspect_terminal import on_columns


def test_a_unique_prefix_of_an_id_means_its_agent(tmp_path: Path) -> None:
    """`show` takes the beginning of an id, and names the ids if there are several."""
    with fleet(tmp_path) as manager:
        path = manager.path
        ids = [agent.agent_id for agent in manager.agents(include_archived=True)]
    for agent_id in ids:
        short = agent_id[:7]
        while sum(each.startswith(short) for each in ids) > 1:
            short = agent_id[: len(short) + 1]
        assert ask("show", path, short).out == ask("show", path, agent_id).out
    check_refused(ask("show", path, "agent_"), 1, f"{len(ids)} ids begin with 'agent_': {ids[0]}")
    check_refused(ask("show", path, "nobody"), 1, "nobody")


@pytest.mark.parametrize("columns", [60, 80])
def test_a_narrow_terminal_shows_records(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`log` gives a record a line of its own if few columns are left beside its time."""
    with fleet(tmp_path) as manager:
        path = str(manager.path)
    lines = on_columns(monkeypatch, columns, "log", path, "-k", "spawn")
    records = [line for line in lines if line.startswith("  spawn")]
    assert records
    assert all('{"at_ms":' in line for line in records)

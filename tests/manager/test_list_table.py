"""The table of `subagents list`: its columns, and how it fits a terminal."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from _journal_console.text import cut, width
from hypothesis import given
from hypothesis import strategies as st

from manager import Agent, SubAgentManager
from manager._cli.signs import Sign, signs_of
from manager._cli.table import cell, follow_line, table
from manager.agent import Lease


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    with SubAgentManager.open(tmp_path) as manager:
        return manager.spawn("p", name="one")


def shown(monkeypatch: pytest.MonkeyPatch, columns: int, *agents: Agent) -> list[str]:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    return list(table(agents))


def test_a_running_agent_shows_how_long_it_has_run(agent: Agent) -> None:
    """SECONDS of a running agent counts to now, not to its last change."""
    started_at_ms = int(time.time() * 1000) - 90_000
    head, line = table([replace(agent, started_at_ms=started_at_ms, updated_at_ms=started_at_ms)])
    assert 90 <= float(line[head.index("SECONDS") :].split()[0]) < 120


def test_no_duration_is_negative(agent: Agent) -> None:
    """An agent whose clock was set back while it ran shows 0 SECONDS."""
    late_ms = int(time.time() * 1000) + 5000
    running = replace(agent, started_at_ms=late_ms)
    for shown_agent in (running, replace(running, status="completed", ended_at_ms=late_ms - 5000)):
        head, line = table([shown_agent])
        assert line[head.index("SECONDS") :].split()[0] == "0.0"


def test_the_signs_of_many_workers_are_asked_for_in_parts(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request names a bounded number of workers, and each worker is in one of the requests."""
    asked: list[list[str]] = []

    def reply(path: str, verb: str, *, workers: list[str], **_: object) -> dict[str, object]:
        asked.append(workers)
        return {"workers": [[worker, "m", 1.5] for worker in workers]}

    monkeypatch.setattr("manager._control.client.request", reply)
    monkeypatch.setattr("manager._cli.signs._ASKED_MAX", 2)
    ids = [f"w.{number}" for number in range(5)]
    leases = [Lease(worker=each, epoch=1, lsn=2, sequence=0, lost=0) for each in ids]
    signs = signs_of("s", [replace(agent, lease=lease) for lease in leases])
    assert asked == [ids[:2], ids[2:4], ids[4:]]
    assert signs == dict.fromkeys(ids, Sign("m", 1.5))


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_a_table_fits_the_terminal(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """No line is wider than the terminal. The last columns are left out where there is no room."""
    long = replace(agent, prompt="a long prompt " * 9, reason="a reason " * 9, name="größe-日本")
    lines = shown(monkeypatch, columns, long, agent)
    assert max(map(width, lines)) <= columns
    assert ("NAME" in lines[0]) == (columns > 40)
    assert ("REASON" in lines[0]) == (columns > 60)
    if columns == 200:
        assert "größe-日本" in lines[1]


def test_a_followed_line_fits_the_terminal(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of `list --follow` is cut to the terminal, and whole in a file."""
    long = replace(agent, prompt="a long prompt " * 9, reason="a reason " * 9, name="größe-日本")
    assert width(follow_line(long)) > 100
    shown(monkeypatch, 60)
    assert width(follow_line(long)) <= 60
    assert "größe-日本" in follow_line(long)


def test_wide_characters_are_aligned(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns are aligned by the width of characters on a terminal, not by their number."""
    wide = replace(agent, name="日本-e\u0301")
    lines = shown(monkeypatch, 200, wide, agent)
    assert {width(line[: line.index("  p ")]) + 2 for line in lines[1:]} == {
        lines[0].index("PROMPT")
    }


def test_several_lines_are_shown_as_one() -> None:
    """A newline is shown as an escape, but not the one at the end."""
    assert (cell("one\ntwo"), cell("one\n")) == (r"one\ntwo", "one")


@given(st.text(st.characters(exclude_categories=["C", "Z"])), st.integers(0, 20))
def test_a_cut_text_takes_its_width(text: str, size: int) -> None:
    """A cut text has at most the given width, and one that fits is not cut."""
    assert width(cut(text, size)) <= size
    assert cut(text, width(text)) == text


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_workers_and_machines_fit_the_terminal(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """Workers, their machines and their last signs of life are shown where there is room. A
    machine's name may be anything."""
    worker = f"{'gpu-1' * 20}.0123456789ab"
    leased = replace(
        agent, lease={"worker": worker, "epoch": 1, "lsn": 1, "sequence": 0, "lost": 0}
    )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("host", "\x1b[31m" + "x" * 200, ""):
        lines = list(table([leased, agent], {worker: Sign(name, 3.14)}))
        assert max(map(width, lines)) <= columns
        assert "WORKER" in lines[0]
        if columns == 200:
            assert "3.1 s ago" in lines[1]
            assert (name or "gpu-1gpu-1")[1:4] in lines[1]
        assert "\x1b" not in "".join(lines)
    lines = list(table([replace(leased, status="completed")]))
    assert "MACHINE" not in lines[0]

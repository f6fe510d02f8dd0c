"""journal-inspect: how agents and kinds are given, and records on a narrow terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.inspect.inspect_support import ask, ask_child, check_refused, environment, fleet
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
    check_refused(ask("show", path, "agent_"), 1, f"{len(ids)} ids begin with 'agent_': {min(ids)}")
    check_refused(ask("show", path, "nobody"), 1, "nobody")


@pytest.mark.parametrize("verb", ["history", "log", "agents"])
def test_a_prefix_means_its_agent_in_every_verb(tmp_path: Path, verb: str) -> None:
    """`history`, `log -a` and `agents --parent` take the beginning of an id as `show` does."""
    with fleet(tmp_path) as manager:
        path, agent_id = manager.path, manager.get("lead").agent_id
    options = {"history": (), "log": ("-a",), "agents": ("--parent",)}[verb]
    assert ask(verb, path, *options, agent_id[:-1]) == ask(verb, path, *options, agent_id)
    check_refused(ask(verb, path, *options, "agent_"), 1, "ids begin with 'agent_'")


def test_log_names_what_there_is_no_entry_of(tmp_path: Path) -> None:
    """If no agent or kind is as given, `log` says so, and which kinds there are."""
    with fleet(tmp_path) as manager:
        path = manager.path
    check_refused(ask("log", path, "-a", "nosuch"), 1, "no agent 'nosuch'; see all of them: ")
    check_refused(ask("log", path, "-a", "x", "-a", "y"), 1, "no agent 'x' and no agent 'y'")
    check_refused(ask("log", path, "-k", "nosuch"), 1, "no kind 'nosuch'; there are ", "spawn")
    check_refused(ask("log", path, "-k", "spawn", "-g", "nosuch"), 1, "no entry matches")
    assert ask("log", path, "-a", "nosuch", "-a", "lead").code == 0
    check_refused(ask("show", path, "nosuch"), 1, "no agent 'nosuch'")


@pytest.mark.parametrize(
    ("words", "expected"),
    [("show {} le", "lead"), ("history {} le", "lead"), ("log {} -a le", "lead")],
)
def test_names_of_agents_are_completed(tmp_path: Path, words: str, expected: str) -> None:
    """A shell completes the names and ids of a journal's agents."""
    with fleet(tmp_path) as manager:
        path = manager.path
    line = f"journal-inspect {words.format(path)}"
    env = {
        "_JOURNAL_INSPECT_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    assert f"plain,{expected}" in ask_child(env=environment(**env)).lines


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
    assert all('{"boot_id":' in line for line in records)

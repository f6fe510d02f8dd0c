"""journal-inspect for a fleet that has tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal import Options
from manager import AgentResult, SubAgentManager
from tests.inspect.inspect_support import ask

SECRET = "s3cret"


@pytest.fixture(params=[False, True], ids=["in the log", "in a checkpoint"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Return the path of a closed fleet of one agent, with two rows."""
    with SubAgentManager.open(tmp_path, options=Options(record_bytes_max=512)) as manager:
        manager.spawn("x", name="lead")
        with manager.transaction() as t:
            users = t[manager.tables.table("users")]
            users["ada"] = {"name": "Ada", "password": SECRET}
            users["ida"] = {"password": SECRET * 100}
            t.update_from_result("lead", AgentResult("done"))
        if request.param:
            manager.compact()
    return manager.path


def test_the_tables_of_a_fleet_are_shown(path: str) -> None:
    """`tables`, `get` and `export` show the tables in the directory of a fleet."""
    assert ask("tables", path, "-o", "json").json[0]["rows"] == 2
    assert ask("get", path, "users", "ada", "-o", "json").json["value"]["name"] == "Ada"
    assert [row["key"] for row in ask("export", path, "users").jsonl] == ["ada", "ida"]
    before = ask("tables", path, "--at", "2")
    assert before.code == 1 or "users" not in before.out


def test_the_agents_of_a_fleet_with_tables_are_shown(path: str) -> None:
    """The verbs for agents leave the tables out."""
    assert [agent["name"] for agent in ask("agents", path, "-o", "json").json] == ["lead"]
    assert ask("show", path, "lead", "-o", "json").json["result"] == "done"
    assert ask("history", path, "lead").code == 0
    assert ask("verify", path).code == 0
    assert ask("stats", path).code == 0


def test_redaction_hides_fields_of_rows(path: str) -> None:
    """Redacted fields are hidden in the rows of a fleet, and what is not redacted is shown."""
    for verb in ("log", "export", "checkpoint"):
        for form in ("text", "json"):
            answer = ask(verb, path, "--redact", "password", "-o", form)
            assert SECRET not in answer.out, (verb, form)
    assert '"name": "Ada"' in ask("log", path, "--redact", "password").out

"""journal-inspect for tables that are a part of a Composite."""

from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path

import pytest

from journal import Composite, DurableState, Options, Tables
from tests.inspect.inspect_support import TIMEOUT_S, ask, check_refused
from tests.support import Table

SECRET = "s3cret"
LARGE = {"name": "Ida", "password": SECRET * 60}


@pytest.fixture(params=[False, True], ids=["in the log", "in a checkpoint"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return the path of a journal of jobs and tables."""
    machine = Composite(jobs=Table(), tables=Tables.machine())
    options = Options(record_bytes_max=256)
    with DurableState.open(tmp_path / "j", machine, options=options) as state:
        app = Tables.in_state(state, "tables")
        users = app.table("users")
        with app.transaction() as t:
            t[users]["lead"] = {"name": "Ada", "password": SECRET}
            t[users][7] = LARGE
            t.also("jobs", ["a", 1])
        app.sync(timeout_s=TIMEOUT_S)
        if request.param:
            state.compact()
    return tmp_path / "j"


def test_the_tables_of_a_part_are_shown(path: Path) -> None:
    """`tables`, `get` and `export` show the part that --part names, and so do the commands that
    they advise."""
    answer = ask("tables", path, "--part", "tables", "-o", "json")
    assert [(row["table"], row["rows"]) for row in answer.json] == [("users", 2)]
    assert "export" in answer.err
    assert "--part tables" in answer.err
    answer = ask("get", path, "users", "lead", "--part", "tables")
    assert answer.out == f'{{"name": "Ada", "password": "{SECRET}"}}\n'
    assert "--part tables" in answer.err
    rows = ask("export", path, "--part", "tables").jsonl
    assert [row["value"] for row in rows] == [LARGE, {"name": "Ada", "password": SECRET}]
    missing = ask("get", path, "users", "nobody", "--part", "tables")
    check_refused(missing, 1, "has no key", "--part tables")
    check_refused(ask("export", path, "users", "--part", "later"), 1, "tables", "--part later")


def test_a_composite_needs_the_name_of_its_part(path: Path) -> None:
    """A Composite without --part, and a part without tables, are refused."""
    words = "not a journal of tables that this version knows"
    for part in ([], ["--part", "jobs"]):
        check_refused(ask("tables", path, *part), 4, words)


def test_redaction_hides_the_packed_values_of_a_part(path: Path) -> None:
    """Redacted fields are hidden in the packed values of a part, also in pieces."""
    for verb, *more in (["log"], ["log", "-o", "json"], ["checkpoint"], ["frames"]):
        answer = ask(verb, path, *more, "--redact", "password")
        texts = [answer.out, *map(decoded, re.findall("[A-Za-z0-9+/=]{12,}", answer.out))]
        assert not any(SECRET in text for text in texts), (verb, *more)


def decoded(text: str) -> str:
    """Return the bytes that base64 text stands for, as far as they are ASCII."""
    return b64decode(text[: len(text) // 4 * 4]).decode("ascii", "ignore")

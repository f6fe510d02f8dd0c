"""journal-inspect for journals of tables: log, stats and checkpoint, and redacted fields."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from pathlib import Path

import pytest

from journal import Journal, Options, Tables
from tests.inspect.inspect_support import ask, compact, open_journal, put, tables

SECRET = "s3cr3t"
REVEALING = ("export", "get", "log", "checkpoint")


def reveals(text: str) -> bool:
    """Return whether the secret is in `text`, also in its base64."""
    encoded = re.findall(r"[A-Za-z0-9+/]{8,}=*", text)
    decoded = [b64decode(word[: len(word) // 4 * 4]) for word in encoded]
    return SECRET in text or any(SECRET.encode() in data for data in decoded)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tables(tmp_path / "j")


def test_log_shows_decoded_writes(path: Path) -> None:
    """A record of tables is shown as its writes; in JSON these are beside the record."""
    texts = [line.split("rows", 1)[1].strip() for line in ask("log", path).lines]
    assert texts == [
        'users "lead" = {"name": "Ada", "tags": ["a", null]}',
        'users ["de", 7] = "first"',
        'users {"$bytes": "AA=="} = {"$bytes": "/w=="}',
        'users ["de", 7] = {"map": [["name", "Ida"], [1, 2]]}; orders -5 = 1.5; '
        'users {"$bytes": "AA=="} removed',
        'users "late" = "x"',
    ]
    entry = ask("log", path, "-o", "json").json[3]
    assert entry["record"][0] == "rows"
    assert [write["change"] for write in entry["writes"]] == ["set", "set", "removed"]
    assert entry["writes"][1] == {"change": "set", "table": "orders", "key": -5, "value": 1.5}
    assert entry["writes"][2] == {"change": "removed", "table": "users", "key": {"$bytes": "AA=="}}
    assert ask("log", path, "--payload", "none").lines[3].endswith("rows        users, orders")
    assert len(ask("log", path, "-g", "Ada").lines) == 1


def test_log_shows_forms_of_a_newer_version(tmp_path: Path) -> None:
    """Kinds of records and forms of values that this version does not know are shown as far as
    possible."""
    pieces = ["rows", ["t", b"\x20a", [b"id", 2]], ["t", b"\x20b", b"\xc1\xff"]]
    with open_journal(tmp_path / "j") as journal:
        put(journal, pieces, ["piece", b"id", 0, b"x"])
    lines = ask("log", tmp_path / "j").lines
    assert 't "a" = (not in this record); t "b" = (not in this record)' in lines[0]
    assert '["piece", {"base64": "aWQ="}, 0, {"base64": "eA=="}]' in lines[1]
    writes = ask("log", tmp_path / "j", "-o", "json").json[0]["writes"]
    assert writes[0] == {"change": "other", "table": "t", "key": "a"}


def test_stats_counts_writes_by_table(path: Path) -> None:
    """The writes and their packed bytes are counted by table, the largest first."""
    stats = ask("stats", path, "-o", "json").json
    assert [(each["table"], each["writes"]) for each in stats["tables"]] == [
        ("users", 6),
        ("orders", 1),
    ]
    assert ["users", "6"] in [line.split()[:2] for line in ask("stats", path).lines]
    assert ask("stats", path, "--redact", "table", "-o", "json").json["tables"][0]["table"] == (
        "[redacted]"
    )
    assert len(ask("stats", path, "--top", 1, "-o", "json").json["tables"]) == 1


@pytest.mark.parametrize("form", ["text", "json", "jsonl"])
@pytest.mark.parametrize("is_compacted", [False, True])
def test_redacted_fields_are_nowhere(tmp_path: Path, form: str, is_compacted: bool) -> None:
    """A redacted field is hidden in decoded values, in packed ones, and in pieces."""
    path = tmp_path / "j"
    with Tables.open(path) as app:
        table = app.table("t")
        table["plain"] = [{"hidden": SECRET, "shown": 1}]
        table["packed"] = {1: {"hidden": SECRET}, "shown": 1}
        if is_compacted:
            app.compact()
    lines = [["export"], ["get", "t", "plain"], ["get", "t", "packed"], ["stats"], ["tables"]]
    lines += [["log"], ["log", "-r"], ["log", "--frames", "--payload", "full"]]
    if is_compacted:
        lines.append(["checkpoint"])
    for verb, *args in lines:
        redact = [] if verb == "tables" else ["--redact", "hidden"]
        answer = ask(verb, path, *args, *redact, "-o", form)
        assert not reveals(answer.out + answer.err), answer
        assert reveals(ask(verb, path, *args, "-o", form).out) == (verb in REVEALING), verb


def test_redacted_pieces_are_hidden(tmp_path: Path) -> None:
    """Bytes in records and items of unknown kinds are hidden in a journal of tables, too."""
    options = Options(application="journal.tables/1")
    with Journal.open(tmp_path / "j", options=options) as journal:
        put(journal, ["piece", b"id", 0, SECRET.encode()], ["rows", ["t", b"\x20a", [b"id", 1]]])
        compact(journal, {"piece": SECRET.encode()}, {"table": "t", "key": "a", "pieces": 1})
    secret = b64encode(SECRET.encode()).decode()
    for verb, *args in (["log"], ["log", "--frames", "--payload", "full"], ["checkpoint"]):
        for form in ("text", "json", "jsonl"):
            shown = ask(verb, tmp_path / "j", *args, "-o", form).out
            assert secret in shown or "pieces" in shown
            hidden = ask(verb, tmp_path / "j", *args, "-o", form, "--redact", "x").out
            assert secret not in hidden
            assert "[redacted]" in hidden


@pytest.mark.parametrize("field", ["table", "key", "value", "packed"])
def test_parts_of_a_row_can_be_redacted(path: Path, field: str) -> None:
    """The names of a row's parts are fields, in rows and in writes."""
    for row in ask("export", path, "--redact", field, "-o", "json").json:
        assert row.get(field, "[redacted]") == "[redacted]"
        assert field != "value" or "packed" not in row
    for entry in ask("log", path, "--redact", field, "-o", "json").json:
        assert all(write.get(field, "[redacted]") == "[redacted]" for write in entry["writes"])
    shown = {"table": "users", "key": "lead", "value": "Ada"}.get(field, "Ida")
    assert shown not in ask("log", path, "--redact", field).out

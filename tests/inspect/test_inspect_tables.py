"""journal-inspect for journals of tables: tables, get and export."""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_inspect.commands.keys import parse_key

from journal import DurableDict, Key, Options, Tables, row_as_json
from tests.inspect.inspect_support import (
    TIMEOUT_S,
    ask,
    checkpoints,
    tables,
)

ELEMENTS = st.integers(-(1 << 63), (1 << 64) - 1) | st.text(max_size=5) | st.binary(max_size=5)
KEYS = ELEMENTS | st.lists(ELEMENTS, min_size=1, max_size=3).map(tuple)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tables(tmp_path / "j")


def test_tables_lists_rows_and_bytes(path: Path) -> None:
    """Each table that has rows is listed by name; a compaction changes neither rows nor bytes."""
    expected = [
        {"schema_version": 1, "table": "orders", "rows": 1, "bytes": 10},
        {"schema_version": 1, "table": "users", "rows": 3, "bytes": 48},
    ]
    assert ask("tables", path, "-o", "json").json == expected
    assert ask("tables", path, "-o", "jsonl").jsonl == expected
    assert [line.split() for line in ask("tables", path).lines] == [
        ["TABLE", "ROWS", "SIZE"],
        ["orders", "1", "10", "B"],
        ["users", "3", "48", "B"],
    ]
    with Tables.open(path) as app:
        app.compact()
    assert ask("tables", path, "-o", "json").json == expected


def test_get_prints_one_value(path: Path) -> None:
    """`get` prints the value alone in text, and with its table, key and LSN in JSON."""
    answer = ask("get", path, "users", "lead")
    assert (answer.code, answer.out) == (0, '{"name": "Ada", "tags": ["a", null]}\n')
    assert "as of LSN 5" in answer.err
    row = {"table": "users", "key": "lead", "value": {"name": "Ada", "tags": ["a", None]}}
    assert ask("get", path, "users", "lead", "-o", "json").json == {
        "schema_version": 1,
        "lsn": 5,
        **row,
    }
    missing = ask("get", path, "users", '["de", 8]')
    assert (missing.code, missing.out) == (1, "")
    assert "table 'users' has no key [\"de\", 8] as of LSN 5" in missing.err


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("7", 7),
        ("-5", -5),
        ('"7"', "7"),
        ('"a"', "a"),
        ("a", "a"),
        ("de la", "de la"),
        ("NaN", "NaN"),
        ("-1x", "-1x"),
        ('["de", 7]', ("de", 7)),
        ("[7]", (7,)),
        ('{"$bytes": "AAE="}', b"\0\1"),
        ('{"base64": "AAE="}', b"\0\1"),
        ('[{"$bytes": ""}, "a"]', (b"", "a")),
    ],
)
def test_a_key_is_json_or_a_bare_word(tmp_path: Path, text: str, key: Key) -> None:
    """Numbers, strings, bytes and lists of them are keys; any other word is a string."""
    with Tables.open(tmp_path / "j") as app:
        app.table("t")[key] = "found"
    assert ask("get", tmp_path / "j", "t", text).out == '"found"\n'
    assert ask("export", tmp_path / "j", "--from", text).code == 0
    assert ask("export", tmp_path / "j", "--to", text).code == 1


@pytest.mark.parametrize(
    "text", ['{"$bytes": "!!"}', '["a", {"base64": "AA="}]', '{"$bytes": "é"}']
)
def test_bytes_that_are_not_base64_are_named(text: str) -> None:
    """Bytes in another form are refused like any other wrong key: with it, and the forms."""
    message = f'\'{text}\' has bytes that are not base64; a key is 7, "a", {{"$bytes": "AA=="}}'
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_key(text)


@given(KEYS)
def test_any_key_that_is_printed_can_be_given(key: Key) -> None:
    """A key as export prints it is parsed to the same key."""
    assert parse_key(json.dumps(row_as_json("t", key, None)["key"])) == key


def test_export_prints_rows_in_order(path: Path) -> None:
    """Rows are in the order of tables and keys, as in a checkpoint, in text as in JSON Lines."""
    packed = b64encode(msgpack.packb({"name": "Ida", 1: 2})).decode()
    rows: list[dict[str, Any]] = [
        {"table": "orders", "key": -5, "value": 1.5},
        {"table": "users", "key": "late", "value": "x"},
        {"table": "users", "key": "lead", "value": {"name": "Ada", "tags": ["a", None]}},
        {"table": "users", "key": ["de", 7], "packed": {"$bytes": packed}},
    ]
    expected = [{"schema_version": 1, **row} for row in rows]
    assert ask("export", path).jsonl == expected
    assert ask("export", path, "-o", "jsonl").out == ask("export", path).out
    assert ask("export", path, "-o", "json").json == expected
    assert ask("export", path, "users").jsonl == expected[1:]
    with Tables.open(path) as app:
        app.compact()
    lines = checkpoints(path)[-1].read_text().splitlines()
    items = [json.loads(line.removesuffix(",")) for line in lines if '"table":' in line]
    assert sorted(items, key=str) == sorted(rows, key=str)


def test_export_selects_rows_by_key(tmp_path: Path) -> None:
    """A prefix, a range and a limit select rows of one table or of each table."""
    keys: list[Key] = [-7, 1, 2, "de", "den", "x", ("de", 1), ("de", 2), ("en", 1)]
    with Tables.open(tmp_path / "j") as app:
        for key in keys:
            app.table("t")[key] = 0
        app.table("u")["den"] = 1

    def exported_keys(*options: str) -> list[Any]:
        return [row["key"] for row in ask("export", tmp_path / "j", *options).jsonl]

    assert exported_keys("t", "--prefix", "de") == ["de", "den"]
    assert exported_keys("--prefix", "de") == ["de", "den", "den"]
    assert exported_keys("t", "--prefix", '["de"]') == [["de", 1], ["de", 2]]
    assert exported_keys("t", "--from", "1", "--to", "den") == [1, 2, "de"]
    assert exported_keys("t", "--to", "-6") == [-7]
    assert exported_keys("t", "--limit", "2") == [-7, 1]
    assert exported_keys("t", "--limit", str(1 << 80)) == exported_keys("t")
    assert exported_keys("t", "--from", "x", "--limit", "2") == ["x", ["de", 1]]
    assert exported_keys("--from", "den", "--to", "dent", "--limit", "1") == ["den"]
    assert ask("export", tmp_path / "j", "t", "--from", "z", "--to", "y").code == 1
    assert ask("export", tmp_path / "j", "t", "--prefix", "q").code == 1


def test_at_shows_an_earlier_moment(path: Path) -> None:
    """`--at` shows the rows as of an LSN or a time; other moments are a negative answer."""
    assert ask("get", path, "users", '["de", 7]', "--at", 3).out == '"first"\n'
    assert [row["table"] for row in ask("tables", path, "--at", 3, "-o", "json").json] == ["users"]
    assert len(ask("export", path, "--at", 4).lines) == 3
    assert ask("export", path, "--at", "now").out == ask("export", path).out
    for at, words in (
        ("-1h", "the log does not reach back to -1h"),
        ("99", "the log ends at LSN 5"),
    ):
        answer = ask("tables", path, "--at", at)
        assert answer.code == 1
        assert f"{words}" in answer.err
        assert "the tables are known from LSN 1 to 5: journal-inspect tables" in answer.err
    answer = ask("get", path, "orders", "1", "--at", 3)
    assert f"see the tables: journal-inspect tables {path} --at 3" in answer.err


def test_moments_that_are_compacted_away_are_no_longer_kept(tmp_path: Path) -> None:
    """A moment before the oldest checkpoint is refused, with the first that is kept."""
    with Tables.open(tmp_path / "j", options=Options(segment_bytes=4096)) as app:
        for number in range(60):
            app.table("t")[number] = "x" * 200
            app.sync(timeout_s=TIMEOUT_S)
            if number in (20, 40):
                app.compact()
    answer = ask("tables", tmp_path / "j", "--at", 3)
    assert answer.code == 1
    assert "the tables as of LSN 3 are no longer kept; the tables are known from" in answer.err


def test_values_that_json_cannot_hold(tmp_path: Path) -> None:
    """A value that JSON can't hold is msgpack in JSON output, and readable in text."""
    values: dict[Key, Any] = {"nan": math.nan, "map": {1: 2}, "ext": msgpack.ExtType(5, b"x")}
    with DurableDict.open(tmp_path / "j") as kept:
        kept.update(values)
    texts = {key: ask("get", tmp_path / "j", "items", key).out for key in values}
    assert texts == {
        "nan": '{"float": "nan"}\n',
        "map": '{"map": [[1, 2]]}\n',
        "ext": '{"ext": 5, "base64": "eA=="}\n',
    }
    for key, value in values.items():
        row = ask("get", tmp_path / "j", "items", key, "-o", "json").json
        assert "value" not in row
        packed = b64encode(msgpack.packb(value)).decode()
        assert row["packed"] == {"$bytes": packed}

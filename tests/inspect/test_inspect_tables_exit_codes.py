"""journal-inspect for journals of tables: each exit code of `tables`, `get` and `export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from journal import Journal, Options
from tests.inspect.inspect_support import (
    ARGS,
    TABLE_VERBS,
    Answer,
    ask,
    ask_child,
    check_refused,
    compact,
    damage_all_frames,
    fleet,
    make,
    put,
    segments,
    set_version,
    tables,
    tear,
)

COMMANDS = [(verb, ARGS.get(verb, ())) for verb in TABLE_VERBS]


@pytest.mark.parametrize(
    "inspect", [ask, pytest.param(ask_child, marks=pytest.mark.slow)], ids=["inside", "child"]
)
def test_0_success(tmp_path: Path, inspect: Callable[..., Answer]) -> None:
    """A command that finds the tables or rows exits with 0, even with a torn tail."""
    path = tables(tmp_path / "j")
    tear(path)
    for verb, args in COMMANDS:
        answer = inspect(verb, path, *args)
        assert answer.code == 0, verb
        assert answer.out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["tables"], "the journal has no tables as of LSN 0"),
        (["tables", "--at", "1"], "the log ends at LSN 0, before LSN 1"),
        (["get", "users", "lead"], "no table 'users' has rows as of LSN 0"),
        (["export"], "no row matches, as of LSN 0"),
        (["export", "users"], "no table 'users' has rows as of LSN 0"),
    ],
)
def test_1_nothing_found(tmp_path: Path, args: list[str], words: str) -> None:
    """A negative answer exits with 1, like that of grep."""
    verb, *options = args
    path = make(tmp_path / "j", [], application="journal.tables/1")
    check_refused(ask(verb, path, *options), 1, words)


def test_1_a_fleet_without_tables(tmp_path: Path) -> None:
    """A manager's journal without tables exits with 1, because a manager may have tables."""
    with fleet(tmp_path) as manager:
        path = manager.path
    check_refused(ask("tables", path), 1, "the journal has no tables as of LSN")


@pytest.mark.parametrize(
    "args",
    [
        ["tables"],
        ["tables", "PATH", "--part", "no name"],
        ["tables", "PATH", "users"],
        ["tables", "PATH", "--at", "soon"],
        ["get", "PATH", "users"],
        *(["get", "PATH", "users", key] for key in ("true", "1.5", "[]", "[[1]]", "[1", "{}")),
        ["get", "PATH", "users", str(1 << 64)],
        ["get", "PATH", "users", '{"$bytes": "?"}'],
        ["get", "PATH", "users", "\udc80"],
        ["get", "PATH", "users", '"\\ud800"'],
        ["export", "PATH", "users", "more"],
        ["export", "PATH", "--prefix", "7"],
        ["export", "PATH", "--prefix", "a", "--from", "b"],
        ["export", "PATH", "--to", "null"],
        ["export", "PATH", "--limit", "0"],
    ],
)
def test_2_usage(tmp_path: Path, args: list[str]) -> None:
    """A wrong call prints its usage to stderr, whatever the path is."""
    path = make(tmp_path / "j")
    answer = ask(*[str(path) if arg == "PATH" else arg for arg in args])
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("Usage: ")


def test_3_corruption(tmp_path: Path) -> None:
    """P4: Corruption of the log is reported, and no rows are shown."""
    path = tables(tmp_path / "j")
    damage_all_frames(path)
    for verb, args in COMMANDS:
        check_refused(ask(verb, path, *args), 3, str(path))


def test_4_no_tables(tmp_path: Path) -> None:
    """Another program's journal is refused, by its records and by its checkpoint."""
    path = make(tmp_path / "j", [["rows", ["t", b"x", 1]]])
    for _ in range(2):
        for verb, args in COMMANDS:
            words = "not a journal of tables that this version knows"
            check_refused(ask(verb, path, *args), 4, str(path), words, "journal-inspect log")
        with Journal.open(path) as journal:
            compact(journal)


@pytest.mark.parametrize(
    "item",
    [None, "x", {"table": "t"}, {"table": "t", "key": [], "value": 1}, {"table": 1, "key": 1}],
)
def test_4_items_that_are_no_rows(tmp_path: Path, item: object) -> None:
    """A checkpoint of our application with other items is refused, and is no internal error."""
    with Journal.open(tmp_path / "j", options=Options(application="journal.tables/1")) as journal:
        put(journal, 1)
        compact(journal, item)
    for verb, args in COMMANDS:
        words = "not a journal of tables that this version knows"
        check_refused(ask(verb, tmp_path / "j", *args), 4, words)


def test_4_a_symlink_and_a_newer_version(tmp_path: Path) -> None:
    """P9: A symlink is refused, and so is a newer format."""
    path = tables(tmp_path / "j")
    (tmp_path / "link").symlink_to(path)
    for verb, args in COMMANDS:
        check_refused(ask(verb, tmp_path / "link", *args), 4, "link: is a symlink")
    set_version(segments(path)[-1], version=2)
    for verb, args in COMMANDS:
        check_refused(ask(verb, path, *args), 4, "format version 2 is newer than 1")

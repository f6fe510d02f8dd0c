"""journal-inspect: every flag of every command, in each spelling, on a real journal."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from journal_inspect.commands.cli import cli

from tests.inspect.inspect_support import ARGS, TABLE_VERBS, ask, fleet, tables

ENDS = ("-f", "--timeout-s", "0.2")
FOUND = ("-f", "--until-match", "spawn")
PAGE = ("-o", "{}/page.html")
CUT = ("--cut-at", "4")
# A flag's value, where it makes a difference, or None if it takes none; then the arguments that it
# needs beside it, and the arguments of the run without it, if they differ.
Case = tuple[str | None, tuple[str, ...], tuple[str, ...]]


def case(value: str | None = None, *beside: str, instead: tuple[str, ...] | None = None) -> Case:
    return value, beside, beside if instead is None else instead


SHARED = {
    "utc": case(),
    "form": case("json"),
    "redact": case("prompt"),
    "at": case("3"),
    "part": case("tables"),
}
RANGE = {
    "from_lsn": case("5"),
    "to_lsn": case("5"),
    "since": case("now"),
    "until": case("2001-01-01"),
}
CASES: dict[str, dict[str, Case]] = {
    "info": {},
    "verify": {"from_lsn": case("99")},
    "log": {
        **RANGE,
        "count": case("2"),
        "reverse": case(),
        "follow": case(None, "--until-match", "spawn", instead=()),
        "agents": case("lead"),
        "kinds": case("spawn"),
        "grep": case("broke"),
        "frames": case(),
        "payload": case("none"),
        "until_match": case("spawn", *ENDS),
        "timeout_s": case("0.2", "-f", "--until-match", "no such", instead=FOUND),
        "decode": case("builtins:repr"),
        "memory_max": case("1M"),  # refused as too little
    },
    "stats": {**RANGE, "top": case("1"), "redact": case("name")},
    "checkpoint": {"lsn": case("99"), "out": case("-"), "at": case("3", "--write", "-")},
    "tables": {},
    "get": {"redact": case("name")},
    "export": {
        "prefix": case('["de"]'),
        "start": case("le"),
        "stop": case("le"),
        "limit": case("2"),
        "redact": case("name"),
    },
    "agents": {
        "statuses": case("failed"),
        "names": case("l*d"),
        "parent": case("lead"),
        "grep": case("broke"),
        "tree": case(),
        "redact": case("name"),
    },
    "show": {},
    "history": {},
    "diff": {},
    "report": {
        "out": case("{}/other.html", instead=PAGE),
        "utc": case(None, *PAGE),
        "redact": case("prompt", *PAGE),
        "memory_max": case("1M", *PAGE),  # refused as too little
    },
    "backup": {"with_output": case()},
    "repair": {
        "apply": case(None, *CUT),
        "cut_at": case("4"),
        "salvage": case(None, *CUT),
        "save_to": case("{}/..", *CUT, "--salvage", "--apply"),
        "restore": case(),
        "as_is": case(),  # refused without --restore
        "redact": case("name", *CUT, "-o", "json"),
    },
}
OF_MIRRORS = {"restore", "follow"}  # tests/inspect/test_inspect_mirrors.py tests its flags
TIMELESS = {
    "verify",
    "backup",
    "repair",
    *TABLE_VERBS,
}  # these show no time, so --utc changes nothing


def flags() -> Iterator[tuple[str, str, str]]:
    for verb, command in cli.commands.items():
        if verb in OF_MIRRORS:
            continue
        for option in command.params:
            if isinstance(option, click.Option):
                yield from ((verb, str(option.name), spelling) for spelling in option.opts)


@pytest.fixture(scope="module")
def journals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a journal for each command: a fleet's or one of tables."""
    with fleet(tmp_path_factory.mktemp("fleet")) as manager:
        path = Path(manager.path)
    of_tables = tables(tmp_path_factory.mktemp("tables") / "j")
    return {verb: of_tables if verb in TABLE_VERBS else path for verb in cli.commands}


def answer(tmp_path: Path, journal: Path, verb: str, options: list[str]) -> tuple[object, ...]:
    """Run a command on a copy, always at the same path. Return its answer and the files left."""
    place = tmp_path / "place"
    shutil.copytree(journal, place / "j")
    more = (place / "copy",) if verb == "backup" else ARGS.get(verb, ())
    try:
        result = ask(verb, place / "j", *more, *(option.format(place) for option in options))
        files = {file.name: file.read_bytes() for file in place.rglob("*") if file.is_file()}
        return result, files
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize(("verb", "name"), list(dict.fromkeys(flag[:2] for flag in flags())))
def test_every_flag_does_something(
    verb: str, name: str, journals: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flag changes the output, and all its spellings do the same.

    A new flag fails here until the table has a value for it.
    """
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        value, beside, instead = {**SHARED, **CASES[verb]}[name]
        journal = journals[verb]
        without = answer(tmp_path, journal, verb, list(instead))
        answers = [
            answer(
                tmp_path, journal, verb, [spelling, *([] if value is None else [value]), *beside]
            )
            for other_verb, option, spelling in flags()
            if (other_verb, option) == (verb, name)
        ]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert all(one[0] == answers[0][0] for one in answers)
    does_nothing = name == "utc" and verb in TIMELESS
    assert (answers[0] == without) == does_nothing


@pytest.mark.parametrize("verb", ["completion", "schema"])
def test_every_choice_of_an_argument_is_accepted(verb: str) -> None:
    """Each choice of a command without flags is accepted and prints its own output."""
    (argument,) = cli.commands[verb].params
    assert isinstance(argument.type, click.Choice)
    answers = [ask(verb, word) for word in argument.type.choices]
    assert {answer.code for answer in answers} == {0}
    assert len({answer.out for answer in answers}) == len(answers)

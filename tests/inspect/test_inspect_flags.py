"""journal-inspect: every flag of every verb, in each of its spellings, on a real journal."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from journal_inspect.commands.cli import cli

from tests.inspect.inspect_support import ARGS, ask, fleet

ENDS = ("-f", "--timeout-s", "0.2")
FOUND = ("-f", "--until-match", "spawn")
PAGE = ("-o", "{}/page.html")
CUT = ("--cut-at", "4")
# What a flag is given, in a place where it makes a difference; None: it is alone. Then what
# stands beside it, if it needs that, and instead of it where it is left out, if that differs.
Case = tuple[str | None, tuple[str, ...], tuple[str, ...]]


def case(value: str | None = None, *beside: str, instead: tuple[str, ...] | None = None) -> Case:
    return value, beside, beside if instead is None else instead


SHARED = {"utc": case(), "form": case("json"), "redact": case("prompt"), "at": case("3")}
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
    },
    "stats": {**RANGE, "top": case("1"), "redact": case("name")},
    "checkpoint": {"lsn": case("99"), "out": case("-"), "at": case("3", "--write", "-")},
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
    },
    "backup": {},
    "repair": {
        "apply": case(None, *CUT),
        "cut_at": case("4"),
        "salvage": case(None, *CUT),
        "redact": case("name", *CUT, "-o", "json"),
    },
}
TIMELESS = {"verify", "backup", "repair"}  # which show no time, so that --utc changes nothing


def flags() -> Iterator[tuple[str, str, str]]:
    for verb, command in cli.commands.items():
        for option in command.params:
            if isinstance(option, click.Option):
                yield from ((verb, str(option.name), spelling) for spelling in option.opts)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with fleet(tmp_path_factory.mktemp("fleet")) as manager:
        return Path(manager.path)


def answer(tmp_path: Path, journal: Path, verb: str, options: list[str]) -> tuple[object, ...]:
    """Of a copy, always in the same place: what it says, and what it leaves there."""
    place = tmp_path / "place"
    shutil.copytree(journal, place / "j")
    more = (place / "copy",) if verb == "backup" else ARGS.get(verb, ())
    try:
        found = ask(verb, place / "j", *more, *(it.format(place) for it in options))
        left = {it.name: it.read_bytes() for it in place.rglob("*") if it.is_file()}
        return found, left
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize(("verb", "name"), list(dict.fromkeys(it[:2] for it in flags())))
def test_every_flag_does_something(
    verb: str, name: str, journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each of its spellings the same, and not what comes without it. A new one fails here
    until the table says what it is given."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        value, beside, instead = {**SHARED, **CASES[verb]}[name]
        without = answer(tmp_path, journal, verb, list(instead))
        found = [
            answer(
                tmp_path, journal, verb, [spelling, *([] if value is None else [value]), *beside]
            )
            for one_verb, option, spelling in flags()
            if (one_verb, option) == (verb, name)
        ]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert all(one[0] == found[0][0] for one in found)
    does_nothing = name == "utc" and verb in TIMELESS
    assert (found[0] == without) == does_nothing


@pytest.mark.parametrize("verb", ["completion", "schema"])
def test_every_word_that_a_verb_takes_is_taken(verb: str) -> None:
    """Of those that have no flags: each says something of its own."""
    (argument,) = cli.commands[verb].params
    assert isinstance(argument.type, click.Choice)
    answers = [ask(verb, word) for word in argument.type.choices]
    assert {it.code for it in answers} == {0}
    assert len({it.out for it in answers}) == len(answers)

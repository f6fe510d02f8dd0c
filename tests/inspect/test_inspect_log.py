"""journal-inspect log: its range, order, formats, and following."""

from __future__ import annotations

import base64
import json
import re
import shutil
import signal
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import msgpack
import pytest

from journal import Entry, JournalReader
from tests.golden.journal_v1 import LOG
from tests.inspect.inspect_support import (
    ask,
    checkpoints,
    compact,
    flip,
    make,
    open_journal,
    put,
    running,
    segments,
)
from tests.support import until

FIRST_LSN, LAST_LSN = 9, len(LOG)  # the LSNs that the golden journal keeps


def lsns(*args: object) -> list[int]:
    return [entry["lsn"] for entry in ask("log", *args, "-o", "jsonl").jsonl]


def test_log_shows_every_type_as_json(path: Path) -> None:
    """Each entry has its field names; bytes, ext types and odd maps have the documented form."""
    entries = ask("log", path, "-o", "jsonl").jsonl
    assert [entry["lsn"] for entry in entries] == list(range(FIRST_LSN, LAST_LSN + 1))
    for entry, (epoch, record) in zip(entries, LOG[FIRST_LSN - 1 :], strict=True):
        assert list(entry) == ["schema_version", *Entry.__dataclass_fields__]
        assert entry["schema_version"] == 1
        assert entry["epoch"] == epoch
        assert from_json(entry["record"]) == record
    assert ask("log", path, "-o", "json").json == entries


def from_json(value: Any) -> Any:
    """Return the record whose JSON form is `value`."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"ext": -1, "base64": data}:
            return msgpack.Timestamp.from_bytes(base64.b64decode(data))
        case {"ext": int(code), "base64": data}:
            return msgpack.ExtType(code, base64.b64decode(data))
        case {"base64": data}:
            return base64.b64decode(data)
        case {"float": text}:
            return float(text)
        case {"map": pairs}:
            return {from_json(key): from_json(item) for key, item in pairs}
    return {key: from_json(item) for key, item in value.items()}


def test_log_as_text_has_a_line_for_each_entry(path: Path) -> None:
    """A line has LSN, epoch, an ISO 8601 time with its zone, and the record as JSON."""
    lines = ask("log", path).lines
    assert len(lines) == LAST_LSN - FIRST_LSN + 1
    lsn, epoch, time, record = lines[-1].split(maxsplit=3)
    assert (lsn, epoch, json.loads(record)) == ("60", "4", LOG[-1][1])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", time)
    assert {line.index(" 2026-01-01T") for line in lines} == {lines[-1].index(f" {time}")}


@pytest.mark.parametrize("reverse", [False, True])
def test_log_shows_the_requested_range(path: Path, reverse: bool) -> None:
    """--from-lsn and --to-lsn choose the range, -n its last entries, and -r the order."""
    everything = list(range(FIRST_LSN, LAST_LSN + 1))
    for first, last, count in product(
        (None, FIRST_LSN, 45, 58, 60, 61), (None, 8, 9, 53, 60, 99), (None, 0, 1, 7, 1000)
    ):
        if first and last and first > last:
            continue
        expected = [lsn for lsn in everything if (first or 1) <= lsn <= (last or LAST_LSN)]
        expected = expected if count is None else expected[max(0, len(expected) - count) :]
        args = [*(["-r"] * reverse), *(["-n", count] * (count is not None))]
        args += [*(["--from-lsn", first] * (first is not None))]
        args += [*(["--to-lsn", last] * (last is not None))]
        answer = ask("log", path, *args, "-o", "jsonl")
        assert [entry["lsn"] for entry in answer.jsonl] == (expected[::-1] if reverse else expected)
        assert answer.code == (0 if expected else 1), args
        assert bool(answer.err) == (not expected)


@pytest.mark.parametrize("reverse", [[], ["-r"]])
def test_log_names_the_first_kept_lsn(path: Path, reverse: list[str]) -> None:
    """A request for removed entries is answered with the first LSN that is kept."""
    answer = ask("log", path, "--from-lsn", 3, *reverse)
    assert (answer.code, answer.out) == (1, "")
    assert "LSN 3 is no longer kept; the first LSN that is kept is 9; the journal" in answer.err
    assert answer.err.endswith(f"journal-inspect log {path} --from-lsn 9\n")
    for verb, *args in (["log", "--frames"], ["log"], ["stats"]):
        answer = ask(
            verb, path, *args, *(reverse if args == [] and verb == "log" else []), "--from-lsn", 61
        )
        assert (answer.code, answer.out) == (1, "")
        assert (
            "; the journal holds LSN 9 to 60; see what is in it: journal-inspect info" in answer.err
        )


def test_log_of_a_journal_without_its_beginning_exits_with_3(tmp_path: Path) -> None:
    """P4: If the first segment is missing and no checkpoint covers it, any request exits with 3.

    What exists is shown. The same holds for `stats`.
    """
    path = make(tmp_path / "j", [[number, "x" * 400] for number in range(30)])
    segments(path)[0].unlink()
    first = int(segments(path)[0].name[:20])
    assert first > 1
    for args, expected in [
        ([], list(range(first, 31))),
        (["-n", 2], [29, 30]),
        (["-r", "-n", 2], [30, 29]),
        (["--from-lsn", 29], [29, 30]),
        (["--from-lsn", 1], []),
        (["--to-lsn", 1], []),
        (["-f", "-n", 1, "--until-match", "29"], [30]),
    ]:
        answer = ask("log", path, *args, "-o", "jsonl")
        assert ([entry["lsn"] for entry in answer.jsonl], answer.code) == (expected, 3), args
        assert f"damaged: the log begins at LSN {first}" in answer.err
        assert f"journal-inspect verify {path}" in answer.err
    stats = ask("stats", path, "-o", "json")
    assert (stats.code, stats.json["first_lsn"]) == (3, first)
    assert f"damaged: the log begins at LSN {first}" in stats.err


def test_following_a_damaged_journal_exits_with_3(path: Path) -> None:
    """P4: A follower that begins after damage exits with 3, like other commands."""
    checkpoints(path)[-1].unlink()
    with JournalReader.open(path) as reader:
        offset = next(entry.offset for entry in reader.entries() if entry.lsn == 40)
    assert offset
    follow = ("log", path, "-f", "-n", 1, "--until-match", ".")
    assert (ask(*follow).code, ask(*follow).err) == (0, "")
    flip(segments(path)[0], offset + 44)
    answer = ask(*follow)
    assert (answer.code, len(answer.lines)) == (3, 1)
    assert "the log is damaged after LSN 39" in answer.err


def test_log_needs_one_whole_checkpoint_for_a_removed_beginning(path: Path) -> None:
    """The newest checkpoint covers a removed beginning, as for an open, unless it is damaged."""
    assert ask("log", path).code == 0
    newest, first = checkpoints(path)[-1], int(segments(path)[0].name[:20])
    checkpoints(path)[0].unlink()
    assert ask("log", path).code == 0
    flip(newest, 300)
    answer = ask("log", path, "-n", 1)
    assert (answer.code, len(answer.lines)) == (3, 1)
    assert f"the log begins at LSN {first}, and no checkpoint" in answer.err


def test_log_of_a_damaged_journal_shows_both_ends(path: Path) -> None:
    """P4: Entries are shown forward up to the damage, and backward down to it; both exit with 3."""
    with JournalReader.open(path) as reader:
        offset = next(entry.offset for entry in reader.entries() if entry.lsn == 40)
    assert offset
    flip(segments(path)[0], offset + 44)  # in its payload
    forward = ask("log", path, "-o", "json")
    assert [entry["lsn"] for entry in forward.json] == list(range(9, 40))
    backward = ask("log", path, "-r", "-o", "jsonl")
    assert [e["lsn"] for e in backward.jsonl] == [*range(60, 40, -1), *range(39, 8, -1)]
    counted = ask("log", path, "-r", "-n", 22, "-o", "jsonl")
    assert ([e["lsn"] for e in counted.jsonl], counted.code) == ([*range(60, 40, -1), 39, 38], 3)
    undamaged = ask("log", path, "-r", "-n", 20, "-o", "jsonl")
    assert ([e["lsn"] for e in undamaged.jsonl], undamaged.code) == ([*range(60, 40, -1)], 0)
    for answer in (forward, backward):
        assert answer.code == 3
        assert "LSN 40" in answer.err
        assert f"journal-inspect verify {path}" in answer.err


def test_the_last_entries_end_before_the_damage(path: Path) -> None:
    """P4: -n shows the last entries that an open would keep, and exits with 3."""
    checkpoints(path)[-1].unlink()
    with JournalReader.open(path) as reader:
        offset = next(entry.offset for entry in reader.entries() if entry.lsn == 40)
    assert offset
    assert lsns(path, "-n", 5) == [56, 57, 58, 59, 60]
    flip(segments(path)[0], offset + 44)  # in its payload
    for args, expected, code in [
        (["-n", 5], [35, 36, 37, 38, 39], 3),
        (["-n", 2, "--to-lsn", 50], [38, 39], 3),
        (["-n", 2, "--to-lsn", 30], [29, 30], 0),
        (["-n", 1, "-k", "no such"], [], 3),
        (["-n", 2, "--from-lsn", 39], [39], 3),
        (["-r", "-n", 2], [60, 59], 3),
        (["--from-lsn", 59], [59, 60], 3),
        (["--from-lsn", 59, "-n", 1], [60], 3),
    ]:
        answer = ask("log", path, *args, "-o", "jsonl")
        assert ([entry["lsn"] for entry in answer.jsonl], answer.code) == (expected, code), args
        assert ("damaged after LSN 39" in answer.err) == (code == 3), args


def test_the_end_of_a_large_journal_is_shown_without_a_check(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a large journal the log before the last entries is not checked, and a message says so."""
    monkeypatch.setattr("journal_inspect.diagnosis.log_end._SCAN_BYTES_MAX", 1)
    flip(segments(path)[0], 100)
    answer = ask("log", path, "-n", 2, "-o", "jsonl")
    assert ([entry["lsn"] for entry in answer.jsonl], answer.code) == ([59, 60], 0)
    assert "not checked for damage" in answer.err


def test_log_prints_entries_as_it_reads_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries read before an interrupt have been printed, and a JSON array is complete."""

    def entries(reader: JournalReader, after: int | None, **_: Any) -> Iterator[Entry]:
        yield from (Entry(lsn, 1, 0, "x") for lsn in (1, 2, 3))
        raise KeyboardInterrupt

    monkeypatch.setattr(JournalReader, "entries", entries)
    for form in ("text", "jsonl"):
        answer = ask("log", path, "-o", form)
        assert (answer.code, len(answer.lines), answer.err) == (130, 3, "")
    assert [entry["lsn"] for entry in ask("log", path, "-o", "json").json] == [1, 2, 3]


def test_log_follows_a_live_writer(tmp_path: Path) -> None:
    """-f shows each entry once it is durable, across segments and a restart of the writer."""
    path = tmp_path / "j"
    record = "x" * 500  # eight of these fill a segment
    journal = open_journal(path)
    put(journal, *[record] * 20)
    with running("log", path, "-f", "-o", "jsonl") as child:
        assert [json.loads(child.line())["lsn"] for _ in range(10)] == list(range(11, 21))
        for lsn in range(21, 41):
            if lsn == 30:
                journal.close()
                journal = open_journal(path)
            put(journal, record)
            assert json.loads(child.line())["lsn"] == lsn
        answer = child.end(signal.SIGINT)
    journal.close()
    assert (answer.code, answer.out, answer.err) == (130, "", "")


def test_log_follows_the_requested_range(tmp_path: Path) -> None:
    """With -f, -n and --from-lsn set the beginning, and --to-lsn the end."""
    path = make(tmp_path / "j", range(15))
    for args, first in (([], 6), (["-n", 2], 14), (["--from-lsn", 3], 3)):
        assert lsns(path, "-f", "--to-lsn", 15, *args) == list(range(first, 16))
    answer = ask("log", path, "-f", "--to-lsn", 15, "-n", 0)
    assert (answer.code, answer.out) == (1, "")
    with running("log", path, "-f", "-n", 0, "-o", "jsonl") as child, open_journal(path) as journal:
        until(lambda: put(journal, "new") and child.has_line(), "an entry appended meanwhile")
        assert json.loads(child.line())["lsn"] > 15


def test_the_reader_knows_where_the_log_ends(path: Path, tmp_path: Path) -> None:
    """The reader takes the first LSNs from names, and the last one from the newest segment.

    Damage before that segment does not matter. Damage in it ends the log where `entries` ends. If
    there is no segment, only a checkpoint states the journal's id.
    """
    with JournalReader.open(path) as reader:
        assert reader.first_lsns == [9, 45, 54, 58, 59]
        assert (reader.last_lsn, reader.format_version) == (60, 1)
        assert reader.journal_id == f"{1:032x}"
        flip(segments(path)[0], 0)
        assert reader.last_lsn == 60
        flip(segments(path)[-1], 64 + 44 + 20)  # the payload of the first of two frames
        assert reader.last_lsn == 58
        flip(segments(path)[-1], 0)  # now also its header
        assert (reader.last_lsn, reader.journal_id) == (58, f"{1:032x}")
    with JournalReader.open(make(tmp_path / "empty", [], application="")) as reader:
        assert (reader.first_lsns, reader.last_lsn, reader.journal_id) == ([], 0, None)
    with JournalReader.open(make(tmp_path / "owned", [])) as reader:
        stated = json.loads(checkpoints(tmp_path / "owned")[0].read_text())["journal_id"]
        assert (reader.first_lsns, reader.last_lsn, reader.journal_id) == ([], 0, stated)


def test_leftovers_of_a_removal_are_not_shown(tmp_path: Path) -> None:
    """Segments that no kept checkpoint needs, left by a crash, are not part of the log."""
    path, aside = tmp_path / "j", tmp_path / "aside"
    with open_journal(path) as journal:
        put(journal, *["x" * 500] * 30)
        shutil.copytree(path, aside)
        for _ in range(2):
            put(journal, "x")
            compact(journal, 1)
    assert lsns(path)[0] > 8
    kept_lsns = lsns(path)
    for file in segments(aside):
        if not (path / file.name).exists():
            shutil.copy(file, path)
    assert lsns(path) == kept_lsns
    assert lsns(path, "-r") == kept_lsns[::-1]
    assert lsns(path, "-n", 100) == kept_lsns


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--from-lsn", 1], 1)])
def test_compaction_may_overtake_a_backward_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[object], code: int
) -> None:
    """A compaction while -r reads ends the output, with exit code 1 if LSN 1 was requested."""
    printed: list[str] = []

    def put_lines(lines: Iterator[str]) -> int:
        printed.append(next(lines))
        for number in (1, 2):
            put(journal, number)
            compact(journal, number)
        printed.extend(lines)
        return len(printed)

    monkeypatch.setattr("journal_inspect.commands.log.put_lines", put_lines)
    with open_journal(tmp_path / "j") as journal:
        put(journal, *["x" * 500] * 30)
        assert ask("log", tmp_path / "j", "-r", *options).code == code
    assert 1 <= len(printed) < 20

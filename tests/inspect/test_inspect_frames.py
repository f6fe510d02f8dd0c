"""journal-inspect log --frames: what stands in the files, byte by byte."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from journal import JournalReader
from tests.inspect.inspect_support import (
    ask,
    flip,
    golden,
    open_journal,
    put,
    segments,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with segments of four epochs, a torn tail, two checkpoints and every type."""
    return golden(tmp_path / "golden")


def test_frames_are_all_that_stands_in_the_files(path: Path) -> None:
    """Frame by frame, with what the headers say and where they stand, marks and torn ends too."""
    shown = ask("log", path, "--frames", "-o", "json").json
    for file in segments(path):
        inside = [it for it in shown if it["path"] == str(file)]
        assert inside[0]["offset"] == 64
        for one, two in pairwise(inside):
            assert one["offset"] + one["size_bytes"] == two["offset"]
        data = file.read_bytes()
        for it in inside:
            if it["state"] != "garbage":
                header = data[it["offset"] : it["offset"] + 44]
                assert it["header_crc32c"] == f"{int.from_bytes(header[:4], 'little'):08x}"
                assert it["payload_crc32c"] == f"{int.from_bytes(header[4:8], 'little'):08x}"
                assert it["first_lsn"] == int.from_bytes(header[8:16], "little")
                assert it["count"] == int.from_bytes(header[36:40], "little")
    assert {it["state"] for it in shown} == {"log", "mark", "damaged"}
    of_log = (it for it in shown if it["state"] == "log")
    in_log = [lsn for it in of_log for lsn in range(it["first_lsn"], it["last_lsn"] + 1)]
    assert in_log == list(range(9, 61))


def test_frames_of_a_part_of_the_log(path: Path) -> None:
    """-n, a range of LSNs, a range of times; text tells the same as JSON."""
    shown = ask("log", path, "--frames", "-o", "json").json
    assert ask("log", path, "--frames", "-n", 3, "-o", "json").json == shown[-3:]
    assert ask("log", path, "--frames", "-n", 999, "-o", "jsonl").jsonl == shown
    count_of = ask("log", path, "--frames", "--from-lsn", 54, "--to-lsn", 57, "-o", "json").json
    assert count_of[0]["first_lsn"] == 54
    assert all(54 <= it["first_lsn"] <= 58 for it in count_of if it["state"] != "garbage")
    late = ask("log", path, "--frames", "-S", "now", "-o", "json").json
    assert late == []
    lines = ask("log", path, "--frames").lines
    assert [line for line in lines if line.startswith("/")] == list(map(str, segments(path)))
    assert sum(line.lstrip()[0].isdigit() for line in lines) == len(shown)


def test_frames_show_records_if_they_are_asked_for(path: Path) -> None:
    """--payload full has them, also of frames that the log can't reach."""
    with JournalReader.open(path) as reader:
        offset = next(entry.offset for entry in reader.entries() if entry.lsn == 40)
    assert offset
    flip(segments(path)[0], offset)
    answer = ask("log", path, "--frames", "--payload", "full", "-o", "json")
    states = [it["state"] for it in answer.json if it["path"].endswith(segments(path)[0].name)]
    assert "dead" in states
    assert answer.code == 1
    dead = [it for it in answer.json if it["state"] == "dead"]
    assert [len(it["records"]) for it in dead] == [it["count"] for it in dead]
    assert "journal-inspect verify" in answer.err


def test_frames_of_a_live_journal_end_where_it_is_written(tmp_path: Path) -> None:
    """Zeros that were allocated ahead are no garbage."""
    with open_journal(tmp_path / "j") as journal:
        put(journal, 1, 2)
        answer = ask("log", tmp_path / "j", "--frames", "-o", "json")
    assert answer.code == 0
    assert {it["state"] for it in answer.json} <= {"log", "mark"}


def test_the_reader_yields_the_last_entries(path: Path) -> None:
    """As many as are asked for, over segments, not before what is wanted or kept."""

    def ask_last(after: int | None = None, *, last: int) -> list[int]:
        return [entry.lsn for entry in reader.entries(after, last=last)]

    with JournalReader.open(path) as reader:
        for count in (0, 1, 2, 3, 7, 20, 52, 99):
            assert ask_last(last=count) == list(range(9, 61))[max(0, 52 - count) :]
            assert ask_last(57, last=count) == [58, 59, 60][max(0, 3 - count) :]
        with pytest.raises(ValueError, match="last must be"):
            next(reader.entries(last=-1))
        assert reader.application == "golden/1"
    bare = path.with_name("bare")
    shutil.copytree(path, bare)
    for file in bare.glob("checkpoint-*"):
        file.unlink()
    with JournalReader.open(bare) as reader:
        assert reader.application is None


def test_the_records_of_frames(tmp_path: Path) -> None:
    """--payload shows them below their frame, in text too; what is to be left out is."""
    path = tmp_path / "j"
    with open_journal(path) as journal:
        journal.append_batch([["a", "x" * 200], {"k": 7}])
    assert len(ask("log", path, "--frames").lines) == 4
    assert len(ask("log", path, "--frames", "--payload", "none").lines) == 4
    full = ask("log", path, "--frames", "--payload", "full", "--redact", "k").lines
    assert [line.split(maxsplit=1)[0] for line in full[2:]] == ["64", "1", "2", full[5].split()[0]]
    assert full[3].endswith(f'  ["a", "{"x" * 200}"]')
    assert full[4].endswith('  {"k": "[redacted]"}')
    short = ask("log", path, "--frames", "--payload", "short").lines
    assert (len(short[3]), short[3][-3:]) == (120, "...")
    answer = ask("log", path, "--frames", "--decoder", "builtins:repr")
    assert (answer.code, answer.out) == (2, "")
    assert "it takes no -r -f -a -k -g --decoder" in answer.err

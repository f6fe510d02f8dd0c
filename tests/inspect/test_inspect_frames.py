"""journal-inspect log --frames: the contents of the files, byte by byte."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from journal import JournalReader
from tests.inspect.inspect_support import (
    ask,
    flip,
    open_journal,
    put,
    segments,
)


def test_frames_cover_every_byte_of_the_files(path: Path) -> None:
    """Every frame, mark and torn tail is shown with its place and header fields."""
    frames = ask("log", path, "--frames", "-o", "json").json
    for file in segments(path):
        inside = [frame for frame in frames if frame["path"] == str(file)]
        assert inside[0]["offset"] == 64
        for one, two in pairwise(inside):
            assert one["offset"] + one["size_bytes"] == two["offset"]
        data = file.read_bytes()
        for frame in inside:
            if frame["state"] != "garbage":
                header = data[frame["offset"] : frame["offset"] + 44]
                assert frame["header_crc32c"] == f"{int.from_bytes(header[:4], 'little'):08x}"
                assert frame["payload_crc32c"] == f"{int.from_bytes(header[4:8], 'little'):08x}"
                assert frame["first_lsn"] == int.from_bytes(header[8:16], "little")
                assert frame["count"] == int.from_bytes(header[36:40], "little")
    assert {frame["state"] for frame in frames} == {"log", "mark", "damaged"}
    of_log = (frame for frame in frames if frame["state"] == "log")
    in_log = [lsn for frame in of_log for lsn in range(frame["first_lsn"], frame["last_lsn"] + 1)]
    assert in_log == list(range(9, 61))


def test_frames_are_chosen_by_range(path: Path) -> None:
    """Frames are chosen by -n, LSNs or times; text shows the same as JSON."""
    frames = ask("log", path, "--frames", "-o", "json").json
    assert ask("log", path, "--frames", "-n", 3, "-o", "json").json == frames[-3:]
    assert ask("log", path, "--frames", "-n", 999, "-o", "jsonl").jsonl == frames
    ranged = ask("log", path, "--frames", "--from-lsn", 54, "--to-lsn", 57, "-o", "json").json
    assert ranged[0]["first_lsn"] == 54
    assert all(54 <= frame["first_lsn"] <= 58 for frame in ranged if frame["state"] != "garbage")
    late = ask("log", path, "--frames", "-S", "now", "-o", "json").json
    assert late == []
    lines = ask("log", path, "--frames").lines
    assert [line for line in lines if line.startswith("/")] == list(map(str, segments(path)))
    assert sum(line.lstrip()[0].isdigit() for line in lines) == len(frames)


def test_frames_show_records_on_request(path: Path) -> None:
    """--payload full shows the records, even of frames that the log can't reach."""
    with JournalReader.open(path) as reader:
        offset = next(entry.offset for entry in reader.entries() if entry.lsn == 40)
    assert offset
    flip(segments(path)[0], offset)
    answer = ask("log", path, "--frames", "--payload", "full", "-o", "json")
    states = [
        frame["state"] for frame in answer.json if frame["path"].endswith(segments(path)[0].name)
    ]
    assert "dead" in states
    assert answer.code == 1
    dead = [frame for frame in answer.json if frame["state"] == "dead"]
    assert [len(frame["records"]) for frame in dead] == [frame["count"] for frame in dead]
    assert "journal-inspect verify" in answer.err


def test_preallocated_space_is_not_shown_as_frames(tmp_path: Path) -> None:
    """Preallocated zeros are not shown as garbage."""
    with open_journal(tmp_path / "j") as journal:
        put(journal, 1, 2)
        answer = ask("log", tmp_path / "j", "--frames", "-o", "json")
    assert answer.code == 0
    assert {frame["state"] for frame in answer.json} <= {"log", "mark"}


def test_the_reader_yields_the_last_entries(path: Path) -> None:
    """`entries(last=n)` yields the last n entries, across segments, but none before `after`."""

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


def test_records_are_shown_below_their_frame(tmp_path: Path) -> None:
    """--payload shows records below their frame in text too, with redaction."""
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

"""The reader as journal-inspect uses it: following, and reading the end, are cheap."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from journal import CorruptionError, Entry, Journal, JournalReader, Options, SegmentInfo
from tests.inspect.damage_support import add_foreign, damage_frame, history, segment
from tests.inspect.inspect_support import flip, make, open_journal, put, segments

SEGMENT_BYTES = 16 << 20
POLLS = 50


def drain(entries: Iterable[Entry], seen: list[Any]) -> None:
    """Append each record to `seen` as it comes."""
    for entry in entries:
        seen.append(entry.record)


class EnoughError(Exception):
    """The signal that the reader has waited often enough."""


def read_bytes() -> int:
    """Return the bytes that this process has read since its start."""
    facts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(facts["rchar"])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system counts no reads")
def test_a_waiting_follower_does_not_reread_the_preallocated_segment(tmp_path: Path) -> None:
    """P8: The cost of a poll depends on new records, not on the segment's size.

    The whole segment is read only now and then.
    """
    polls = 0

    def wait() -> None:
        nonlocal polls
        polls += 1
        if polls > POLLS:
            raise EnoughError

    with Journal.open(tmp_path / "j", options=Options(segment_bytes=SEGMENT_BYTES)) as journal:
        put(journal, *range(10))
        assert segments(tmp_path / "j")[0].stat().st_size >= SEGMENT_BYTES
        with JournalReader.open(tmp_path / "j") as reader:
            before = read_bytes()
            with pytest.raises(EnoughError):
                drain(reader.entries(follow=True, wait=wait), [])
    assert read_bytes() - before < SEGMENT_BYTES * POLLS / 4


def test_a_follower_waits_after_the_last_entry(tmp_path: Path) -> None:
    """`wait` is called after all entries; those that come during it are yielded next."""
    seen: list[Any] = []

    def wait() -> None:
        seen.append("wait")
        if seen.count("wait") == 1:
            with open_journal(tmp_path / "j") as journal:
                put(journal, "new")
        elif "new" in seen:
            raise EnoughError

    path = make(tmp_path / "j", ["a", "b"])
    with JournalReader.open(path) as reader, pytest.raises(EnoughError):
        drain(reader.entries(follow=True, wait=wait), seen)
    assert seen[:3] == ["a", "b", "wait"]
    assert seen.count("new") == 1


def test_the_last_entries_are_read_without_those_before(tmp_path: Path) -> None:
    """Damage in an older segment does not matter for the last entries.

    Damage in the newest one is raised after the entries before it. Skipped records are not decoded.
    """
    path = make(tmp_path / "j", [[lsn, "x" * 500] for lsn in range(1, 31)])
    flip(segments(path)[0], 70)
    with JournalReader.open(path) as reader:
        assert [entry.lsn for entry in reader.entries(last=3)] == [28, 29, 30]
        (last,) = reader.entries(last=1)
        assert last.offset
        flip(segments(path)[-1], last.offset + 50)
        good_records: list[Any] = []
        with pytest.raises(CorruptionError) as caught:
            drain(reader.entries(last=2), good_records)
        assert ([record[0] for record in good_records], caught.value.lsn) == ([28, 29], 30)


def test_verify_reports_on_each_segment_that_it_reads(tmp_path: Path) -> None:
    """The reports of `verify` are those of `segments`: of whole, damaged and stray ones."""
    path = history(tmp_path / "j")
    damage_frame(path, 25)
    add_foreign(segment(path, 31), lambda other: segment(other, 31))
    with JournalReader.open(path) as reader:
        infos: list[SegmentInfo] = []
        assert list(reader.verify(segments=infos)) == list(reader.verify())
        assert infos == reader.segments()
        assert {"sealed", "damaged", "stray"} <= {info.state for info in infos}


def test_log_and_verify_import_no_writer(tmp_path: Path) -> None:
    """`log` and `verify` start fast, because they import no engine, no manager and no tables."""
    path = make(tmp_path / "j")
    code = "import sys; from journal_inspect.__main__ import main\n"
    code += "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    for verb in ("log", "verify"):
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, verb, path],
            capture_output=True,
            text=True,
            check=True,
        )
        imported = set(done.stderr.split())
        assert "journal._offline.reader" in imported
        assert imported.isdisjoint(
            {
                "journal._engine.journal",
                "journal._state.durable_state",
                "journal._engine.compactor",
                "manager",
                "rich",
                "asyncio",
            }
        )

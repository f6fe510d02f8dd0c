"""The example of an event log: its writer and its readers are killed again and again."""

from __future__ import annotations

import io
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from journal import DurableDict, Journal, JournalReader, Options
from journal.docs.examples import events
from journal.docs.examples.events import OPTIONS, write
from tests.examples.examples_support import started
from tests.support import TIMEOUT_S, until

KILLS = 4
EVENTS = 200


def lines_of(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout
    return [process.stdout.readline() for _ in range(count)]


def test_the_events_survive_sigkill(tmp_path: Path) -> None:
    """P2: However often the writer and a reader are killed, the reader gets each event whose LSN
    the writer printed, in order, and repeats only the last ones before a kill."""
    path, acknowledged, read = tmp_path / "events.d", 0, 0
    for kill in range(1, KILLS + 1):
        with started("events.py", tmp_path, "write", path) as writer:
            assert writer.stdin
            writer.stdin.write("".join(f"event {number}\n" for number in range(EVENTS)))
            writer.stdin.flush()
            lsns = [int(line) for line in lines_of(writer, 10 * kill)]
            with started("events.py", tmp_path, "read", path, "mail") as reader:
                lines = lines_of(reader, 5 * kill)
                reader.kill()
                assert reader.stdout
                lines += reader.stdout.read().splitlines(keepends=True)  # it was ahead of the test
            writer.kill()
        found = [int(line.split()[0]) for line in lines if line.endswith("\n")]
        assert found == [*range(found[0], found[-1] + 1)]
        assert 1 <= found[0] <= read + 1  # no event is skipped
        acknowledged, read = lsns[-1], found[-1]
        with JournalReader.open(path) as log:
            on_disk = [entry.lsn for entry in log.entries(after=0)]
        assert on_disk == [*range(1, len(on_disk) + 1)]
        assert len(on_disk) >= acknowledged


def test_a_late_reader_continues_at_the_oldest_event(tmp_path: Path) -> None:
    """A reader that was away for longer than events are kept reports that, and continues."""
    path = tmp_path / "events.d"
    with Journal.open(path, options=Options(segment_bytes=4096)) as journal:
        for number in range(EVENTS):
            journal.wait_durable(journal.append(f"event {number} {'x' * 100}"))
        first_lsn = journal.trim(EVENTS // 2)
        assert first_lsn > 1
    with started("events.py", tmp_path, "read", path, "mail") as reader:
        (line,) = lines_of(reader, 1)
        assert re.match(rf"{first_lsn} event {first_lsn - 1} ", line)
        assert reader.stderr
        assert reader.stderr.readline() == f"events before {first_lsn} are gone\n"


def test_old_events_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log does not grow without limit, and the options that limit it are the example's."""
    assert OPTIONS.retain_s == 24 * 3600
    path = tmp_path / "events.d"
    options = Options(segment_bytes=4096, retain_bytes=8192)
    monkeypatch.setattr(sys, "stdin", io.StringIO(("x" * 99 + "\n") * 1000))
    write(str(path), options)
    assert len(capsys.readouterr().out.splitlines()) == 1000
    with Journal.open(path, options=options) as journal:
        until(lambda: journal.first_lsn > 800, "the oldest events are removed")


def test_a_reader_begins_anew_with_a_new_log(tmp_path: Path) -> None:
    """A position is one in its own log. A log that replaced it is read from its first event."""
    path = tmp_path / "events.d"
    for records in (["a", "b"], ["  c "]):
        with Journal.open(path, options=OPTIONS) as journal:
            journal.append_batch(records)
        with started("events.py", tmp_path, "read", path, "mail") as reader:
            assert lines_of(reader, len(records)) == [
                f"{lsn} {record}\n" for lsn, record in enumerate(records, 1)
            ]
            reader.send_signal(signal.SIGINT)  # saves the position
            reader.communicate(timeout=TIMEOUT_S)
        shutil.rmtree(path)


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_running_reader_goes_on_with_a_new_log(tmp_path: Path, is_moved: bool) -> None:
    """A reader that runs while its log is removed or moved, and another one takes its place, reads
    that from its first event."""
    path = tmp_path / "events.d"
    with Journal.open(path, options=OPTIONS) as journal:
        journal.append_batch(["a", "b"])
    with started("events.py", tmp_path, "read", path, "mail") as reader:
        assert lines_of(reader, 2) == ["1 a\n", "2 b\n"]
        if is_moved:
            path.rename(tmp_path / "old.d")
        else:
            shutil.rmtree(path)
        with Journal.open(path, options=OPTIONS) as journal:
            journal.append_batch(["c", "d", "e"])
        assert lines_of(reader, 3) == ["1 c\n", "2 d\n", "3 e\n"]


def test_a_reader_waits_for_the_first_file_of_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reader that finds a log in the making saves its position under that log's own id."""
    path = tmp_path / "events.d"
    path.mkdir(mode=0o700)
    (path / "LOCK").touch()

    def make_the_log(_: float) -> None:
        if saved:
            raise KeyboardInterrupt
        with Journal.open(path, options=OPTIONS) as journal:
            journal.append("a")

    monkeypatch.setattr(events, "time", SimpleNamespace(sleep=make_the_log))
    with DurableDict.open(tmp_path / "positions") as saved:
        with pytest.raises(KeyboardInterrupt):
            events.follow(str(path), saved)
        assert capsys.readouterr().out == "1 a\n"
        with JournalReader.open(path) as log:
            assert dict(saved) == {log.journal_id: 1}


def test_an_event_is_its_whole_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """White space at either end of a line is a part of the event."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("  indented \n"))
    write(str(tmp_path / "events.d"))
    with JournalReader.open(tmp_path / "events.d") as log:
        assert [entry.record for entry in log.entries(after=0)] == ["  indented "]
    assert capsys.readouterr().out == "1\n"


def test_no_other_example_writes_to_the_log(tmp_path: Path) -> None:
    """The queue refuses a log of events, and leaves it as it is."""
    with Journal.open(tmp_path / "events.d", options=OPTIONS) as journal:
        journal.append_and_wait("an event")
    with started("jobs.py", tmp_path, "events.d") as queue:
        out, err = queue.communicate("good\n", timeout=TIMEOUT_S)
    assert (queue.returncode, out) == (1, "")
    assert err.startswith("stopped: ")
    assert OPTIONS.application in err

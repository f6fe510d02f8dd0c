"""Golden journals: released versions are always readable, and the engine writes what the page
says."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import FailedError, Journal, JournalReader, Options
from journal.testing import SimulatedDisk
from tests.golden import journal_v1, journal_v2
from tests.independent_reader import (
    Checkpoint,
    Record,
    decode,
    decode_checkpoint,
    decode_files,
    decode_segment,
    encode_checkpoint,
)

FIRST_KEPT_LSN = 9  # first LSN of the segment with the older checkpoint's LSN


def copied(folder: Path, to: Path) -> Path:
    """Copy a golden journal, and set the mode, which a checkout does not keep."""
    copy = copytree(folder, to / folder.name)
    copy.chmod(0o700)
    return copy


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    return copied(journal_v1.FOLDER, tmp_path)


def in_log(epoch: int, lsn: int, record: object) -> bool:
    """Return whether the golden log has that record there. `==` would take 1 for True."""
    return repr(journal_v1.LOG[lsn - 1]) == repr((epoch, record))


def test_the_engine_still_opens_version_1(golden: Path) -> None:
    """P1, P2, P6: The golden journal opens with its newest checkpoint and every record after it."""
    with Journal.open(golden, options=Options(application="golden/1")) as journal:
        checkpoint = journal.checkpoint
        assert checkpoint is not None
        assert checkpoint.lsn == journal_v1.CHECKPOINTS[-1]
        assert list(checkpoint.items()) == journal_v1.items(checkpoint.lsn)
        entries = list(journal.replay())
        assert all(in_log(entry.epoch, entry.lsn, entry.record) for entry in entries)
        assert [e.lsn for e in entries] == [*range(checkpoint.lsn + 1, len(journal_v1.LOG) + 1)]
        assert (journal.epoch, journal.last_lsn) == (5, len(journal_v1.LOG))


def test_the_engines_reader_reads_all_of_version_1(golden: Path) -> None:
    """P4: A reader reads the whole golden journal, and verify reports only its torn tail."""
    with JournalReader.open(golden) as reader:
        entries = list(reader.entries(FIRST_KEPT_LSN - 1))
        assert all(in_log(entry.epoch, entry.lsn, entry.record) for entry in entries)
        assert [e.lsn for e in entries] == [*range(FIRST_KEPT_LSN, len(journal_v1.LOG) + 1)]
        assert [finding.kind for finding in reader.verify()] == ["torn_tail"]


def test_the_independent_reader_reads_all_of_version_1() -> None:
    """The page alone is enough to read the checkpoints and records of the golden journal."""
    checkpoints, records = decode(journal_v1.FOLDER)
    assert [c.lsn for c in checkpoints] == [*journal_v1.CHECKPOINTS]
    for checkpoint in checkpoints:
        assert (checkpoint.version, checkpoint.application) == (1, "golden/1")
        assert checkpoint.items == tuple(journal_v1.items(checkpoint.lsn))
    assert all(in_log(epoch, lsn, record) for epoch, lsn, record, _ in records)
    assert [record.lsn for record in records] == [*range(FIRST_KEPT_LSN, len(journal_v1.LOG) + 1)]


def test_the_golden_journal_covers_the_format() -> None:
    """The golden journal has every part of the format, so that no part can change unnoticed.

    It has a full segment, several epochs, both durabilities, a batch, marks and a torn tail.
    """
    segments = [decode_segment(p.read_bytes()) for p in sorted(journal_v1.FOLDER.glob("*.seg"))]
    assert [s.header.epoch for s in segments] == [1, 1, 2, 3, 4]
    assert [s.header.flags for s in segments] == [0, 0, 0, 0, 1]
    assert max(len(frame.records) for s in segments for frame in s.frames) == 3
    assert [not s.frames[-1].records for s in segments] == [False, True, True, False, True]
    assert [any(s.rest) for s in segments] == [False, False, False, True, False]


def test_the_engine_writes_the_segments_of_version_1() -> None:
    """The same inputs, clock and ids give the bytes of version 1.

    Only the version number in checkpoints differs, which is 2 now.
    """
    golden = {path.name: path.read_bytes() for path in journal_v1.FOLDER.iterdir()}
    for name, data in golden.items():
        if name.endswith(".json"):
            golden[name] = encode_checkpoint(replace(decode_checkpoint(data), version=2))
    assert journal_v1.write() == golden


def test_the_engine_continues_a_journal_of_version_1(golden: Path) -> None:
    """P6, P7: The next checkpoint is added to one of version 1, and a second one replaces it."""
    with Journal.open(golden, options=Options(application="golden/1")) as journal:
        journal.wait_durable(journal.append(b"new"))
        journal.compact(lambda: (journal.last_lsn, [b"new"])).close()
        assert [checkpoint.version for checkpoint in decode(golden)[0]] == [1, 2]
        journal.wait_durable(journal.append(b"newer"))
        journal.compact(lambda: (journal.last_lsn, [b"newer"])).close()
        assert [checkpoint.version for checkpoint in decode(golden)[0]] == [2, 2]
    with JournalReader.open(golden) as reader:
        assert list(reader.verify()) == []


# --- checkpoints of version 2 ---


def test_the_engine_opens_version_2(tmp_path: Path) -> None:
    """P1, P6: Items are loaded as they were frozen, even bytes and keys that look like bytes."""
    golden = copied(journal_v2.FOLDER, tmp_path)
    with Journal.open(golden, options=Options(application="golden/1")) as journal:
        checkpoint = journal.checkpoint
        assert checkpoint is not None
        assert checkpoint.lsn == journal_v2.CHECKPOINTS[-1]
        assert repr(list(checkpoint.items())) == repr(journal_v2.items(checkpoint.lsn))
        records = [entry.record for entry in journal.replay()]
        assert repr(records) == repr(journal_v2.LOG[checkpoint.lsn :])
    with JournalReader.open(golden) as reader:
        assert list(reader.verify()) == []


def test_the_independent_reader_reads_version_2() -> None:
    """The page alone is enough to read items with bytes."""
    checkpoints, records = decode(journal_v2.FOLDER)
    assert [c.lsn for c in checkpoints] == [*journal_v2.CHECKPOINTS]
    for checkpoint in checkpoints:
        assert (checkpoint.version, checkpoint.application) == (2, "golden/1")
        assert repr(list(checkpoint.items)) == repr(journal_v2.items(checkpoint.lsn))
    assert repr([r.record for r in records]) == repr(journal_v2.LOG[records[0].lsn - 1 :])


def test_the_engine_writes_version_2() -> None:
    """The same inputs, clock and ids give the bytes of version 2."""
    golden = {path.name: path.read_bytes() for path in journal_v2.FOLDER.iterdir()}
    assert journal_v2.write() == golden


# --- the page and the engine agree about any journal ---

_INTEGERS = st.integers(-(2**63), 2**64 - 1)
_SCALARS = (
    st.none()
    | st.booleans()
    | _INTEGERS
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=40)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
    | st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**9 - 1))
)
_KEYS = _INTEGERS | st.text(max_size=10) | st.binary(max_size=10)
RECORDS = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4)
)
STEPS = (
    st.tuples(st.just("append"), RECORDS)
    | st.tuples(st.just("batch"), st.lists(RECORDS, min_size=1, max_size=5))
    | st.tuples(st.sampled_from(["wait", "compact", "large", "reopen", "kill"]), st.none())
)


@given(steps=st.lists(STEPS, max_size=30), durability=st.sampled_from(["disk", "os"]))
def test_the_independent_reader_reads_any_journal_of_the_engine(
    steps: list[tuple[str, Any]], durability: Any
) -> None:
    """P1, P2, P3: A reader written from the page reads each record with its LSN and epoch.

    It does so after appends, batches, full segments, compactions, kills and reopenings in any
    order, and finds the end of the log.
    """
    disk = SimulatedDisk()
    options = Options(durability=durability, segment_bytes=4096, application="any/1")
    log: list[tuple[int, Any]] = []
    todo = iter([*steps, ("close", None)])
    while True:
        journal = Journal.open("/any", options=options, disk=disk)
        assert journal.last_lsn == len(log)
        step = next((step for step in todo if not carry_out(journal, log, *step)), None)
        acknowledged_lsn = journal.durable_lsn
        if step == ("kill", None):
            disk.kill()
            with suppress(FailedError):
                journal.close()
        else:
            journal.close()
            acknowledged_lsn = len(log)
        check_decoded(decode_files(disk.contents("/any")), log, acknowledged_lsn)
        if step == ("close", None):
            break


def carry_out(journal: Journal, log: list[tuple[int, Any]], step: str, value: Any) -> bool:
    """Carry out a step. Return False if the step ends this opening."""
    if step == "append":
        assert journal.append(value) == len(log) + 1
        log.append((journal.epoch, value))
    elif step == "batch":
        assert journal.append_batch(value) == len(log) + len(value)
        log.extend((journal.epoch, record) for record in value)
    elif step == "large":  # fills segments
        journal.append(b"x" * 1500)
        log.append((journal.epoch, b"x" * 1500))
    elif step == "wait":
        journal.wait_durable()
    elif step == "compact":
        journal.compact(lambda: (journal.last_lsn, range(1, journal.last_lsn + 1)))
    else:
        return False
    return True


def check_decoded(
    decoded: tuple[list[Checkpoint], list[Record]],
    log: list[tuple[int, Any]],
    acknowledged_lsn: int,
) -> None:
    """Check that the decoded records are a prefix of `log`, and cut `log` to that prefix.

    The rest was never acknowledged.
    """
    checkpoints, records = decoded
    for checkpoint in checkpoints:
        assert checkpoint.items == tuple(range(1, checkpoint.lsn + 1))
    # Two checkpoints must verify before records up to the older one are removed.
    kept_lsn = checkpoints[-2].lsn if len(checkpoints) > 1 else 0
    first_lsn = records[0].lsn if records else kept_lsn + 1
    last_lsn = records[-1].lsn if records else kept_lsn
    assert first_lsn <= kept_lsn + 1
    assert acknowledged_lsn <= last_lsn <= len(log)
    del log[last_lsn:]
    assert [r.lsn for r in records] == [*range(first_lsn, last_lsn + 1)]
    assert repr([(r.epoch, r.record) for r in records]) == repr(log[first_lsn - 1 :])

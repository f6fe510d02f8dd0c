"""Damage on the real disk: readers, and an open that refuses, change nothing at all.

The tests compare everything that a directory can show: the names, bytes, times, modes and inodes of
its files, and its own time, which changes when any name is added or removed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest

from journal import (
    CompactedError,
    CorruptionError,
    Journal,
    JournalError,
    JournalReader,
    repair,
)
from journal.testing import ManualOptions
from tests.crash.crash_support import PATH
from tests.crash.damage_kinds import (
    BYTES,
    FILES,
    Damaged,
    Kind,
    deleted,
    duplicated,
    foreign,
    journal_that_is,
)
from tests.crash.damage_oracle import Evidence, base_lsn, verdict
from tests.crash.damaged_journal import NAMES, Files, is_segment

LONG_AGO_NS = 10**18
EVERY = 41  # every 41st place is damaged


class FileState(NamedTuple):
    data: bytes
    mtime_ns: int
    mode: int
    inode: int


def write(path: Path, contents: Files) -> dict[str, FileState]:
    path.mkdir(mode=0o700)
    for name, data in {"LOCK": b"", **contents}.items():
        file = path / name
        file.write_bytes(data)
        file.chmod(0o600)
        os.utime(file, ns=(LONG_AGO_NS, LONG_AGO_NS))
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return file_states(path)


def file_states(path: Path) -> dict[str, FileState]:
    """Return the state of each file, and of the directory itself as ""."""
    states = {}
    for each in (path, *path.iterdir()):
        status = each.stat()
        name = "" if each == path else each.name
        data = each.read_bytes() if name else b""
        states[name] = FileState(data, status.st_mtime_ns, status.st_mode, status.st_ino)
    return states


@cache
def cases(kind: Kind, name: str) -> list[Damaged]:
    """Return one damage of this kind that open refuses and one that it accepts, if they exist."""
    undamaged = journal_that_is(closed=True)
    evidence, by_refusal = Evidence.of(undamaged.files), dict[bool, Damaged]()
    for damaged in kind(undamaged, name, EVERY):
        by_refusal.setdefault(bool(verdict(damaged.files, evidence)[0]), damaged)
    return list(by_refusal.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_refused_open_and_readers_change_nothing(tmp_path: Path, name: str) -> None:
    """P4: Verify, a reader, a dry run of repair and an open that refuses change nothing.

    The refusal names the predicted place. An open that succeeds rewrites nothing.
    """
    evidence = Evidence.of(journal_that_is(closed=True).files)
    kinds = [kind for kind in (*BYTES, *FILES) if kind not in (deleted, duplicated, foreign)]
    for number, damaged in enumerate(chain.from_iterable(cases(kind, name) for kind in kinds)):
        path = tmp_path / str(number)
        before = write(path, damaged.files)
        expected, last_lsn = verdict(damaged.files, evidence)
        with JournalReader.open(path) as reader:
            list(reader.verify())
            with suppress(CorruptionError, CompactedError):
                list(reader.entries(base_lsn(damaged.files)))
        with suppress(JournalError):  # no checkpoint and no first segment is left
            repair(path)
        assert file_states(path) == before, damaged.description
        if expected:
            with pytest.raises(CorruptionError) as raised:
                Journal.open(path, options=ManualOptions())
            assert file_states(path) == before, damaged.description
            assert place(raised.value) == expected
        else:
            with Journal.open(path, options=ManualOptions()) as journal:
                assert journal.last_lsn == last_lsn
            check_rewrites_nothing(before, file_states(path))


def place(error: CorruptionError) -> tuple[str, int, int]:
    return f"{PATH}/{error.path.rpartition('/')[2]}", error.offset, error.lsn


def check_rewrites_nothing(before: dict[str, FileState], after: dict[str, FileState]) -> None:
    """Check that every file is left, and that none was written to except LOCK.

    Zeros may be trimmed from the last segment.
    """
    last = max(filter(is_segment, before))
    for name in set(before) - {"", "LOCK", last}:
        assert after[name] == before[name]
    assert after[last].data.rstrip(b"\0") == before[last].data.rstrip(b"\0")
    assert after.keys() == before.keys()

"""Damage on the real disk: who looks at it, and an opening that refuses, change nothing at all.

Compared is all that a directory can show: names, bytes, times, modes and inodes of its files, and
its own time, which any name that came or went would have changed.
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
EVERY = 41  # places


class Seen(NamedTuple):
    data: bytes
    mtime_ns: int
    mode: int
    inode: int


def write(path: Path, contents: Files) -> dict[str, Seen]:
    path.mkdir(mode=0o700)
    for name, data in {"LOCK": b"", **contents}.items():
        file = path / name
        file.write_bytes(data)
        file.chmod(0o600)
        os.utime(file, ns=(LONG_AGO_NS, LONG_AGO_NS))
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return look(path)


def look(path: Path) -> dict[str, Seen]:
    """Each file, and the directory itself as ""."""
    found = {}
    for each in (path, *path.iterdir()):
        status = each.stat()
        name = "" if each == path else each.name
        data = each.read_bytes() if name else b""
        found[name] = Seen(data, status.st_mtime_ns, status.st_mode, status.st_ino)
    return found


@cache
def cases(kind: Kind, name: str) -> list[Damaged]:
    """Of one kind of damage to a file: one that is refused and one that is not, if there are."""
    undamaged = journal_that_is(closed=True)
    evidence, found = Evidence.of(undamaged.files), dict[bool, Damaged]()
    for damaged in kind(undamaged, name, EVERY):
        found.setdefault(bool(verdict(damaged.files, evidence)[0]), damaged)
    return list(found.values())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_on_disk_is_changed(tmp_path: Path, name: str) -> None:
    """P4: by verify, a reader, a repair that is not applied, and an opening that refuses and names
    the place. One that succeeds rewrites nothing."""
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
        with suppress(JournalError):  # nothing is left to go on from
            repair(path)
        assert look(path) == before, damaged.what
        if expected:
            with pytest.raises(CorruptionError) as raised:
                Journal.open(path, options=ManualOptions())
            assert look(path) == before, damaged.what
            assert place(raised.value) == expected
        else:
            with Journal.open(path, options=ManualOptions()) as journal:
                assert journal.last_lsn == last_lsn
            keeps(before, look(path))


def place(error: CorruptionError) -> tuple[str, int, int]:
    return f"{PATH}/{error.path.rpartition('/')[2]}", error.offset, error.lsn


def keeps(before: dict[str, Seen], after: dict[str, Seen]) -> None:
    """Every file is there, none was written to but LOCK, at most zeros are trimmed off the last
    segment."""
    last = max(filter(is_segment, before))
    for name in set(before) - {"", "LOCK", last}:
        assert after[name] == before[name]
    assert after[last].data.rstrip(b"\0") == before[last].data.rstrip(b"\0")
    assert after.keys() == before.keys()

"""Checkpoints stay readable while they are held, and are verified before they are used."""

from __future__ import annotations

import pytest

from journal import ClosedError, CorruptionError, FormatVersionError
from journal._format.crc32c import checksum
from journal.testing import SimulatedDisk
from tests.engine.compaction_support import checkpoint_lsns, compact
from tests.support import PATH, findings, logged, names, open_on, put


def test_a_replaced_checkpoint_can_still_be_read(disk: SimulatedDisk) -> None:
    """A checkpoint's file stays open, so `items()` works until close, even after the file was
    removed."""
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, "old")
    with open_on(disk) as journal:
        started_from = journal.checkpoint
        assert started_from is not None
        put(journal, 2)
        first = compact(journal, "first")
        half = first.items()
        for n in range(4):
            put(journal, n)
            compact(journal, n)
        assert checkpoint_lsns(disk) == [5, 6]
        assert list(started_from.items()) == ["old"]
        assert list(half) == ["first"] == list(first.items())
    with pytest.raises((OSError, ValueError, ClosedError)):
        list(first.items())


def test_a_rotten_item_is_corruption(disk: SimulatedDisk) -> None:
    """P4: An item that can't be decoded, in a file that verified, raises CorruptionError with its
    offset."""
    with open_on(disk) as journal:
        put(journal, 1)
        checkpoint = compact(journal, {"id": "a"}, {"id": "b"})
        name = checkpoint.path.rpartition("/")[2]
        offset = disk.contents(PATH)[name].index(b'{"id":"b"}')
        disk.open_directory(PATH, write=True).open(name, "update").write(b"!", offset)
        items = checkpoint.items()
        assert next(items) == {"id": "a"}
        with pytest.raises(CorruptionError, match="item 1") as caught:
            next(items)
        assert (caught.value.path, caught.value.offset) == (checkpoint.path, offset)


@pytest.mark.parametrize(
    "damage", ["flip", "cut", "extra", "count", "crc", "name", "empty", "json"]
)
def test_a_checkpoint_that_does_not_verify_is_skipped(disk: SimulatedDisk, damage: str) -> None:
    """P4: Recovery uses the older checkpoint if the newer one has a wrong byte, is shorter or
    longer, is of another LSN, or is not JSON."""
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, "one")
        put(journal, 2)
        compact(journal, "two", "items")
    old, name = names(disk, ".json")
    data = disk.contents(PATH)[name]
    lines = data.splitlines(keepends=True)
    damaged = {
        "flip": data.replace(b"two", b"twp"),
        "cut": data[:-1],
        "extra": data + b"\n",
        "count": data.replace(b'"count":2', b'"count":1'),
        "crc": data.replace(b'"crc32c":"', b'"crc32c":"0'),
        "name": disk.contents(PATH)[old],
        "empty": b"",
        "json": b"".join(lines[1:]),
    }[damage]
    assert damaged != data
    directory = disk.open_directory(PATH, write=True)
    file = directory.open(name, "update")
    file.truncate(0)
    file.write(damaged, 0)
    assert [(f.kind, f.path) for f in findings(disk)] == [("bad_checkpoint", f"{PATH}/{name}")]
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert (journal.checkpoint.lsn, logged(journal, None)) == (1, [2])


def test_a_newer_checkpoint_version_is_refused(disk: SimulatedDisk) -> None:
    """A checkpoint of a newer version is not damage: open raises FormatVersionError, and does not
    fall back to an older state."""
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, 1)
    (name,) = names(disk, ".json")
    body, _, _ = disk.contents(PATH)[name].rpartition(b'"count"')
    body = body.replace(b'"version":2', b'"version":3')
    data = body + b'"count":1,"crc32c":"%08x"}\n' % checksum(body)
    disk.open_directory(PATH, write=True).open(name, "update").write(data, 0)
    with pytest.raises(FormatVersionError, match=rf"{name}: checkpoint version 3 is newer than 2"):
        open_on(disk)


def test_another_application_is_refused(disk: SimulatedDisk) -> None:
    """A checkpoint of another application, or of an older version of it, does not open unless the
    caller accepts it."""
    with open_on(disk, application="jobs/1") as journal:
        put(journal, 1)
        compact(journal, 1)
    with pytest.raises(FormatVersionError, match="'jobs/1', not for 'jobs/2'") as caught:
        open_on(disk, application="jobs/2")
    assert "open it with the program that wrote it" in str(caught.value)
    with open_on(disk) as journal:  # an opening without an application accepts any
        assert journal.checkpoint is not None
        assert journal.checkpoint.application == "jobs/1"
    open_on(disk, application="jobs/1").close()

"""Restoring for users: `restore` from an address, what it refuses, and what opens afterwards."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from journal import (
    CompactedError,
    Journal,
    JournalReader,
    Mirror,
    MirrorError,
    MirrorReason,
    Options,
    restore,
)
from journal._engine import mirroring
from journal._mirror.blobs import checkpoint_names
from tests.mirror.stores import SilentStore, crash, opened, write

SMALL = Options(segment_bytes=4096)


def filled(path: Path, url: str, count: int) -> list[int]:
    """Make a mirrored journal with a number of commits, and return their times."""
    with Journal.open(path, options=SMALL, mirror=Mirror(url, interval_s=0.01)) as journal:
        times = []
        for _ in range(count):
            journal.wait_durable(journal.append(b"x" * 100))
            times.append(time.time_ns())
    return times


def lsn_in(path: Path) -> int:
    with JournalReader.open(path) as reader:
        return reader.last_lsn


def test_a_mirror_is_restored_from_its_address(tmp_path: Path) -> None:
    """The restored directory has every record, reports its progress, and continues the mirror."""
    url, done = f"file://{tmp_path}/m", list[int]()
    filled(tmp_path / "a", url, 50)
    report = restore(url, tmp_path / "b", progress=done.append)
    assert (report.lsn, report.mirrored_lsn, lsn_in(tmp_path / "b")) == (50, 50, 50)
    assert sum(done) >= report.size_bytes
    with Journal.open(tmp_path / "b", mirror=url) as journal:
        assert journal.append("next") == 51
    assert restore(url, tmp_path / "c").lsn == 51


def test_a_restore_to_an_earlier_lsn_needs_a_new_mirror(tmp_path: Path) -> None:
    """A directory that was restored to an earlier LSN is refused on the same mirror, with that
    advice, and opens without a mirror and with a new one."""
    url = f"file://{tmp_path}/m"
    times = filled(tmp_path / "a", url, 50)
    assert restore(url, tmp_path / "b", lsn=20).lsn == 20
    with pytest.raises(MirrorError, match=r"restored to LSN 20, .*Give the directory a new") as e:
        Journal.open(tmp_path / "b", mirror=url)
    assert e.value.reason is MirrorReason.RESTORED
    with Journal.open(tmp_path / "b", mirror=f"file://{tmp_path}/m2") as journal:
        assert journal.append("next") == 21
    assert restore(f"file://{tmp_path}/m2", tmp_path / "c").lsn == 21
    at = times[29] / 1e9
    local, utc = datetime.fromtimestamp(at), datetime.fromtimestamp(at, UTC)
    moments: tuple[float | datetime, ...] = (at, local, utc)
    for number, moment in enumerate(moments):
        assert restore(url, tmp_path / f"d{number}", at=moment).lsn == 30
    assert restore(url, tmp_path / "e", at=local.isoformat()).lsn == 30
    assert restore(url, tmp_path / "f", at="now").lsn == restore(url, tmp_path / "g", lsn=50).lsn
    with Journal.open(tmp_path / "f", mirror=False) as journal:
        assert journal.last_lsn == 50
    with pytest.raises(CompactedError, match="the first record was written later, at 2"):
        restore(url, tmp_path / "h", at="-5d")


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({"lsn": 1, "at": "now"}, ValueError, "lsn or at, not both"),
        ({"lsn": -1}, ValueError, "an LSN"),
        ({"lsn": True}, ValueError, "an LSN"),
        ({"at": "noon"}, ValueError, "is not a time"),
        ({"at": b"now"}, ValueError, "a datetime"),
        ({"at": float("nan")}, ValueError, "at=nan is out of range"),
        ({"at": 10**400}, ValueError, "at=10000.* is out of range"),
        ({"at": "0001-01-01"}, ValueError, "at='0001-01-01' is out of range"),
        ({"at": "-9000000w"}, ValueError, "at='-9000000w' is out of range"),
        ({"at": datetime.min}, ValueError, r"at=datetime.datetime\(1.* range"),
        ({"lsn": 9}, CompactedError, "it ends at LSN 3"),
        ({"url": "ftp://x/y"}, ValueError, "ftp"),
        ({"url": Mirror("file:///m")}, TypeError, "must be text, not Mirror"),
        ({"url": "file:///dev/null"}, MirrorError, "can't be opened"),
        ({"url": "file:///no/such/directory"}, FileNotFoundError, "no mirror of a journal here"),
        ({"path": "a"}, FileExistsError, "is not empty"),
    ],
)
def test_what_can_not_be_restored_is_refused(
    arguments: dict[str, Any], error: type[Exception], problem: str, tmp_path: Path
) -> None:
    """Wrong arguments, and what the mirror does not have, raise an error that names the problem."""
    url = f"file://{tmp_path}/m"
    filled(tmp_path / "a", url, 3)
    chosen = {"url": url, "path": "b", **arguments}
    path = tmp_path / chosen.pop("path")
    with pytest.raises(error, match=problem):
        restore(path=path, **chosen)
    assert not (tmp_path / "b").exists() or not list((tmp_path / "b").iterdir())


def test_damage_is_named(tmp_path: Path) -> None:
    """A damaged mirror raises MirrorError with the entry's number and the first LSN that is
    lost."""
    url = f"file://{tmp_path}/m"
    for _ in range(3):
        filled(tmp_path / "a", url, 2)
    entries = sorted((tmp_path / "m").glob("entry-*"))
    entries[4].write_bytes(entries[4].read_bytes()[:-1])
    with pytest.raises(MirrorError, match=r"entry 5: .*what follows LSN 2 can't") as raised:
        restore(url, tmp_path / "b")
    assert (raised.value.number, raised.value.blob, raised.value.lsn) == (5, None, 3)
    assert raised.value.reason is MirrorReason.DAMAGED


def test_an_opening_keeps_what_the_mirror_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments that a checkpoint covers stay at a compaction and at an open without contact, while
    the mirror lacks them. Then they are shipped, and the mirror has no gap."""
    monkeypatch.setattr(mirroring, "CLOSE_LIMIT_S", 0.05)
    store, path = SilentStore(), tmp_path / "a"
    journal = opened(path, store)
    write(journal, 40)
    assert journal._core.mirroring is not None
    journal.wait_mirrored(40)
    store.fall_silent()
    lsn = write(journal, 80)
    journal.trim(lsn - 20)
    crash(journal)
    before = set(path.glob("*.seg"))
    assert len(before) > 3
    opened(path, store).close()
    assert before <= set(path.glob("*.seg"))
    store.answer()
    monkeypatch.undo()
    journal = opened(path, store)
    journal.wait_mirrored(lsn)
    journal.close()
    assert [name for name in checkpoint_names(store.blob_names()) if name.nonce] == []

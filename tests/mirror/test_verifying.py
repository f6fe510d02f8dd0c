"""Verifying a mirror: each damage, gap and stray blob is found, and so is an unfit store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from journal import Journal, Mirror, MirrorError, verify_mirror
from journal._mirror.blobs import checkpoint_names, roll_up_names
from journal._mirror.claiming import look
from journal._mirror.entry import MirrorDamageError
from journal._mirror.memory_store import MemoryStore
from journal._mirror.store import RefusedError
from journal._mirror.verifying import MirrorFinding, findings
from tests.mirror.shipping_support import TIMEOUT_S, Outages, needed_roll_ups
from tests.mirror.test_checkpointing import counter_at


def mirrored(path: Path) -> MemoryStore:
    """Return the store of a journal that has compacted four times."""
    store = MemoryStore()
    counter = counter_at(path / "a", store)
    counter.rounds(4)
    counter.add(20)
    counter.ship()
    counter.close()
    return store


def found(store: MemoryStore) -> list[MirrorFinding]:
    return list(findings(store, probe=True))


def test_a_whole_mirror_has_no_findings(tmp_path: Path) -> None:
    """A mirror that is whole yields nothing, is not changed, and its progress is reported."""
    store, done = mirrored(tmp_path), list[int]()
    before = dict(store._entries), dict(store._blobs)
    assert list(findings(store, probe=True, progress=done.append)) == []
    assert (store._entries, store._blobs) == before
    assert sum(done) > 10_000


def test_each_damage_is_found(tmp_path: Path) -> None:
    """A damaged entry, roll-up or checkpoint is named, and so is one that is missing although it is
    needed. What comes after it is checked, too."""
    store = mirrored(tmp_path)
    rolls, checkpoints = needed_roll_ups(store), checkpoint_names(store.blob_names())
    whole = dict(store._blobs)
    numbers = {str(name): name.last for name in rolls[1:]}
    numbers |= {str(name): name.number for name in checkpoints}
    for name, number in numbers.items():
        store._blobs[name] = whole[name][:-3]
        (finding,) = found(store)
        assert (finding.kind, finding.number, finding.blob) == ("damage", number, name)
        assert name in finding.message
        store._blobs = dict(whole)
    del store._blobs[str(rolls[1])]
    (missing,) = found(store)
    assert missing.kind == "damage"
    assert rolls[1].first <= missing.number <= rolls[1].last
    assert missing.lsn > 1
    store._blobs = dict(whole)
    last = max(store.numbers(0))
    store._entries[last] = b"hello"
    assert [(each.number, each.blob) for each in found(store)] == [(last, None)]


def test_each_hole_is_found(tmp_path: Path) -> None:
    """Each run of missing numbers is named once, by its first one, also where no checkpoint after
    it lets a reader go on."""
    store = MemoryStore()
    counter = counter_at(tmp_path / "a", store)
    for _ in range(60):
        counter.add(1)
        counter.ship()
    counter.close()
    rolls = roll_up_names(store.blob_names())
    lost = [rolls[1], rolls[3]]
    for name in lost:
        del store._blobs[str(name)]
    expected = [("damage", name.first, None) for name in lost]
    assert [(each.kind, each.number, each.blob) for each in found(store)] == expected


def test_a_writer_may_remove_the_log_meanwhile(tmp_path: Path) -> None:
    """A verify reports no damage where a live writer removes what is being read, and still reports
    what is damaged after that."""
    store = MemoryStore()
    counter = counter_at(tmp_path / "a", store, keep_s=0)
    counter.rounds(4)
    last, blob = store.last, store.blob
    rounds = list[int]()

    def end(after: int) -> int:  # it is read after all blobs, and before the log
        rounds[:] = [3]
        return last(after)

    def read(name: str) -> Iterator[bytes]:
        counter.rounds(rounds.pop() if rounds else 0)
        return blob(name)

    store.last, store.blob = end, read  # type: ignore[method-assign]
    assert found(store) == []
    store.blob = blob  # type: ignore[method-assign]
    newest = str(checkpoint_names(store.blob_names())[-1])

    def replaced(name: str) -> Iterator[bytes]:
        data = b"".join(blob(name))
        yield data[:-3] if name == newest else data

    store.blob = replaced  # type: ignore[method-assign]
    assert [each.blob for each in found(store)] == [newest]
    counter.close()


def test_an_end_that_is_lost_is_found(tmp_path: Path) -> None:
    """A claim and a last entry that no open can do without are named, although roll-ups hold their
    numbers."""
    store = mirrored(tmp_path)
    whole = dict(store._entries)
    for lost in ([1], list(whole)):
        for number in lost:
            del store._entries[number]
        with pytest.raises(MirrorDamageError) as refused:
            look(store)
        assert refused.value.number in [each.number for each in found(store)]
        store._entries = dict(whole)


def test_a_gap_is_found(tmp_path: Path) -> None:
    """Records that were never mirrored are named by their LSNs."""
    store = Outages()
    counter = counter_at(tmp_path / "a", store, lag_bytes_max=0)
    counter.rounds(2)
    store.is_down = True
    counter.add(1)
    assert store.refused.wait(TIMEOUT_S)
    for _ in range(4):
        counter.add(14)
        lsn = counter.compact()
    store.is_down = False
    counter.ship()
    counter.close()
    (gap,) = found(store)
    assert (gap.kind, gap.blob) == ("gap", None)
    assert f"from LSN {gap.lsn} to {lsn - 15}" in gap.message


def test_a_stray_blob_is_found(tmp_path: Path) -> None:
    """A blob that no mirror has is named."""
    store = mirrored(tmp_path)
    store.put_blob("notes.txt", [b"x"])
    assert [(each.kind, each.blob) for each in found(store)] == [("stray", "notes.txt")]


class Overwriting(MemoryStore):
    """A store that replaces entries, and lists late."""

    def append(self, number: int, data: bytes) -> None:
        self._entries[number] = data

    def blob_names(self) -> list[str]:
        return []


class ReadOnly(MemoryStore):
    """A store that the client may read and not write."""

    def append(self, number: int, data: bytes) -> None:
        raise RefusedError("not permitted")


def test_an_unfit_store_is_found() -> None:
    """A store that replaces entries, or does not list what it has, is reported. One that may not be
    written is not probed."""
    store = Overwriting()
    store.append(1, b"x")
    kinds = [(each.kind, each.message) for each in findings(store, probe=True)]
    assert [kind for kind, _ in kinds].count("store") == 2
    assert any("can't tell two writers apart" in message for _, message in kinds)
    read_only = ReadOnly()
    read_only._entries[1] = b"x"
    assert [each.kind for each in findings(read_only, probe=True)] == ["damage"]


def test_a_mirror_is_verified_at_its_address(tmp_path: Path) -> None:
    """`verify_mirror` takes an address, and raises for one that can't be used."""
    url = f"file://{tmp_path}/m"
    with Journal.open(tmp_path / "a", mirror=Mirror(url)) as journal:
        journal.append("x")
    assert list(verify_mirror(url)) == []
    with pytest.raises(MirrorError):
        list(verify_mirror(f"file://{__file__}"))
    with pytest.raises(ValueError, match="ftp"):
        list(verify_mirror("ftp://host/x"))
    with pytest.raises(FileNotFoundError, match="no mirror of a journal here"):
        list(verify_mirror(f"file://{tmp_path}/missing"))

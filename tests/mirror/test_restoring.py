"""Restoring: a mirror becomes a directory again, or is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from journal import Journal, LockedError, Options
from journal._mirror.blobs import CheckpointName
from journal._mirror.entry import MirrorDamageError, Piece
from journal._mirror.memory_store import MemoryStore
from journal._mirror.restoring import Target, restore_into
from journal.errors import CorruptionError
from tests.mirror.shipping_support import TIMEOUT_S, Mirrored
from tests.mirror.test_claiming import claimer


def test_a_restore_needs_a_new_directory(tmp_path: Path) -> None:
    """A directory with files is refused and not changed."""
    ((_, store),) = damaged_mirrors(tmp_path, "none")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine").write_text("x")
    with pytest.raises(FileExistsError, match="is not empty"):
        restore_into(store, tmp_path / "b")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["mine"]


def test_an_empty_store_is_no_journal(tmp_path: Path) -> None:
    """A store without entries is an error, not an empty journal."""
    with pytest.raises(FileNotFoundError, match="no mirror of a journal"):
        restore_into(MemoryStore(), tmp_path / "b")


def test_nothing_else_begins_in_a_directory_that_is_restored(tmp_path: Path) -> None:
    """While a restore copies, the directory is locked: neither a second restore nor a writer can
    use it, and the restore finishes as if nobody had tried."""
    ((_, store),) = damaged_mirrors(tmp_path, "none")
    refused: list[str] = []

    def begin_others(size_bytes: int) -> None:
        with pytest.raises(LockedError):
            restore_into(store, tmp_path / "b")
        with pytest.raises(LockedError) as raised:
            Journal.open(tmp_path / "b")
        refused.append(raised.value.path)

    assert restore_into(store, tmp_path / "b", progress=begin_others).lsn == 6
    assert refused
    with Journal.open(tmp_path / "b") as journal:
        assert journal.last_lsn == 6


@pytest.mark.parametrize("damage", ["none", "bit"])
def test_a_failed_restore_removes_only_its_own_files(tmp_path: Path, damage: str) -> None:
    """A file that another program makes in the directory meanwhile stays if the restore fails."""
    ((_, store),) = damaged_mirrors(tmp_path, damage)

    def interfere(size_bytes: int) -> None:
        (tmp_path / "b" / "mine").write_text("x")
        if damage == "none":
            raise KeyboardInterrupt

    with pytest.raises((MirrorDamageError, KeyboardInterrupt)):
        restore_into(store, tmp_path / "b", progress=interfere)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["mine"]


def copy_of(pieces: list[Piece], path: Path) -> None:
    """Restore a mirror that has these pieces only."""
    store = MemoryStore()
    claimer(store).claim().append(pieces, 0)
    restore_into(store, path)


def damaged_mirrors(path: Path, *damages: str) -> Iterator[tuple[str, MemoryStore]]:
    """Yield mirrors of six commits, each with another damage."""
    for damage in damages:
        store = MemoryStore()
        mirrored = Mirrored(path / f"a-{damage}", store, Options(), interval_s=3600)
        for _ in range(6):
            assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
        mirrored.close()
        entry = store.entry(4)
        if damage != "none":
            store.trim([4])
        if damage == "bit":
            store.append(4, entry[:-1] + bytes([entry[-1] ^ 1]))
        elif damage == "foreign":
            store.append(4, b"hello")
        elif damage == "swapped":
            store.append(4, store.entry(3))
        yield damage, store


def test_a_damaged_mirror_is_refused(tmp_path: Path) -> None:
    """A restore from a mirror with a missing, damaged, foreign or misplaced entry is refused with
    its number, and leaves nothing behind."""
    for damage, store in damaged_mirrors(tmp_path, "missing", "bit", "foreign", "swapped"):
        target = tmp_path / f"b-{damage}"
        with pytest.raises(MirrorDamageError, match="entry 4: "):
            restore_into(store, target)
        assert list(target.iterdir()) == []


def test_a_restored_journal_is_verified(tmp_path: Path) -> None:
    """Bytes that are whole as entries, and no journal, are refused."""
    store = MemoryStore()
    mirrored = Mirrored(tmp_path / "a", store, Options())
    assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
    mirrored.close()
    (path,) = (tmp_path / "a").glob("*.seg")
    data = path.read_bytes()
    other = MemoryStore()
    writer = claimer(other).claim()
    writer.append([Piece(path.name, 0, data[:70] + b"\1" + data[71:])], 0)
    with pytest.raises(CorruptionError):
        restore_into(other, tmp_path / "b")
    with pytest.raises(MirrorDamageError, match="bytes 5000 to 6000 of "):
        copy_of([Piece(path.name, 0, bytes(5000)), Piece(path.name, 6000, b"x")], tmp_path / "c")
    writer.append([Piece(path.name, 0, data)], 99)
    with pytest.raises(MirrorDamageError, match="promises LSN 99, but its bytes end at LSN 1"):
        restore_into(other, tmp_path / "b")


def test_a_checkpoint_of_the_same_millisecond_is_not_taken() -> None:
    """A checkpoint's time is in milliseconds, so one that may be later than the asked time is not
    used."""
    checkpoint = CheckpointName(1, 5, 1000, "")
    assert not Target(unix_ns=1_000_999_999).admits(checkpoint)
    assert Target(unix_ns=1_001_000_000).admits(checkpoint)

"""The table of RELIABILITY.md, "Mirrors": an open, by the states of directory and mirror."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from journal import Journal, MirrorError, MirrorReason, Options
from journal._mirror.claiming import look
from journal._mirror.memory_store import MemoryStore
from journal._mirror.restoring import restore_into
from journal._names import MIRROR
from tests.mirror.shipping_support import segments_in
from tests.mirror.stores import mirror_of

OPTIONS = Options(segment_bytes=4096)
MIRRORED, BEHIND, AHEAD, OTHER = 40, 15, 45, 7  # the last LSN of each
OTHER_JOURNAL, EMPTIED = MirrorReason.OTHER_JOURNAL, MirrorReason.EMPTIED


def write(path: Path, count: int, store: MemoryStore | None) -> None:
    mirror = mirror_of(store) if store else None
    with Journal.open(path, options=OPTIONS, mirror=mirror or False) as journal:
        for _ in range(count):
            journal.wait_durable(journal.append("x" * 100))


def directory(state: str, folder: Path, store: MemoryStore) -> Path:
    """Make a directory in the given state, whose mirror is `store`. Return its path."""
    own, rolled_back, path = folder / "own", folder / "rolled back", folder / "opened"
    write(own, BEHIND, store)
    shutil.copytree(own, rolled_back)
    write(own, MIRRORED - BEHIND, store)
    if state in ("behind", "forked"):
        shutil.copytree(rolled_back, path)
    elif state == "other":
        write(path, OTHER, None)
        shutil.copy(own / MIRROR, path / MIRROR)
    elif state != "empty":
        shutil.copytree(own, path)
    if state in ("ahead", "forked"):
        write(path, AHEAD - MIRRORED, None)
    return path


def mirror(state: str, folder: Path, own: MemoryStore) -> MemoryStore:
    """Return the mirror that the directory is opened with."""
    if state == "this journal":
        return own
    if state == "emptied":
        own.trim(own.numbers(0))
        own.delete_blobs(own.blob_names())
        return own
    store = MemoryStore()
    if state == "another journal":
        write(folder / "another", OTHER, store)
    return store


ROWS: dict[str, tuple[object, object, object, object]] = {
    # directory: mirror empty, of this journal, of another journal, emptied since
    "empty": (0, MIRRORED, OTHER, 0),
    "equal": (MIRRORED, MIRRORED, OTHER_JOURNAL, EMPTIED),
    "ahead": (AHEAD, AHEAD, OTHER_JOURNAL, EMPTIED),
    "behind": (BEHIND, MIRRORED, OTHER_JOURNAL, EMPTIED),
    "forked": (BEHIND + AHEAD - MIRRORED, MIRRORED, OTHER_JOURNAL, EMPTIED),
    "other": (OTHER, OTHER_JOURNAL, OTHER_JOURNAL, EMPTIED),
}
COLUMNS = ("empty", "this journal", "another journal", "emptied")
CELLS = [
    (local, remote, expected)
    for local, row in ROWS.items()
    for remote, expected in zip(COLUMNS, row, strict=True)
]


@pytest.mark.parametrize(("local", "remote", "expected"), CELLS)
def test_each_cell_of_the_table(local: str, remote: str, expected: object, tmp_path: Path) -> None:
    """An open has the records of the side that has more, and the mirror then has them, too. If both
    have some that the other lacks, the directory's own are aside. A refused one changes neither
    the segments nor the mirror's bytes, and leaves no claim."""
    own = MemoryStore()
    path = directory(local, tmp_path, own)
    store = mirror(remote, tmp_path, own)
    before = segments_in(path)
    if isinstance(expected, MirrorReason):
        entries = {number: store.entry(number) for number in store.numbers(0)}
        for takeover in (False, True):
            with pytest.raises(MirrorError) as refused:
                Journal.open(path, options=OPTIONS, mirror=mirror_of(store), takeover=takeover)
            assert refused.value.reason is expected
        assert segments_in(path) == before
        assert {number: store.entry(number) for number in store.numbers(0)} == entries
        assert look(store).is_released
        return
    with Journal.open(path, options=OPTIONS, mirror=mirror_of(store)) as journal:
        assert journal.last_lsn == expected
        journal.append("x")
    restore_into(store, tmp_path / "restored")
    assert segments_in(tmp_path / "restored") == segments_in(path)
    aside = [segments_in(folder) for folder in tmp_path.glob("opened.aside-*")]
    assert aside == [before] * ((local, remote) == ("forked", "this journal"))


@pytest.mark.parametrize("local", [row for row in ROWS if row != "empty"])
def test_an_emptied_mirror_begins_again_on_request(local: str, tmp_path: Path) -> None:
    """With `start_over`, the directory's records fill a mirror that was emptied."""
    own = MemoryStore()
    path = directory(local, tmp_path, own)
    mirror("emptied", tmp_path, own)
    Journal.open(path, options=OPTIONS, mirror=mirror_of(own, start_over=True)).close()
    restore_into(own, tmp_path / "restored")
    assert segments_in(tmp_path / "restored") == segments_in(path)


def test_another_application_is_refused(tmp_path: Path) -> None:
    """A mirror of another application is refused, in an empty directory too, which stays empty of
    segments."""
    store = MemoryStore()
    with Journal.open(
        tmp_path / "a", options=Options(application="a"), mirror=mirror_of(store)
    ) as journal:
        journal.append("x")
    for takeover in (False, True):
        with pytest.raises(MirrorError, match="of application 'a', not 'b'") as refused:
            Journal.open(
                tmp_path / "b",
                options=Options(application="b"),
                mirror=mirror_of(store),
                takeover=takeover,
            )
        assert refused.value.reason is MirrorReason.OTHER_APPLICATION
    assert segments_in(tmp_path / "b") == {}
    assert not (tmp_path / "b" / MIRROR).exists()

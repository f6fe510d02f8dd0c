"""Lost entries and roll-ups: whoever opens or reads the mirror refuses, and names what is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from journal import MirrorError, MirrorReason, follow
from journal._disk.posix import PosixDisk
from journal._mirror.blobs import roll_up_names
from journal._mirror.claiming import look
from journal._mirror.comparing import compare
from journal._mirror.entry import MirrorDamageError
from journal._mirror.memory_store import MemoryStore
from journal._mirror.restoring import restore_into
from tests.mirror.stores import mirror_of, opened, records_in, write
from tests.mirror.test_checkpointing import counter_at
from tests.mirror.test_comparing import Counted


class Listed(Counted):
    """A store that also counts the lists."""

    def __init__(self) -> None:
        super().__init__()
        self.lists = 0

    def numbers(self, after: int) -> list[int]:
        self.lists += 1
        return super().numbers(after)

    def blob_names(self) -> list[str]:
        self.lists += 1
        return super().blob_names()


def mirror(path: Path, store: MemoryStore, count: int) -> None:
    """Write records, each of which becomes an entry. About 30 of them fill a segment."""
    with opened(path, store) as journal:
        for _ in range(count):
            journal.wait_mirrored(write(journal))


def lose_entry(store: MemoryStore) -> tuple[int, int]:
    """Remove an entry. Return its number, and the first LSN that is lost with it."""
    store.trim([4])
    return 4, 3


def lose_roll_up(store: MemoryStore) -> tuple[int, int]:
    """Remove the first roll-up. Only the claim is left of its entries."""
    store.delete_blobs([str(roll_up_names(store.blob_names())[0])])
    return 2, 1


@pytest.mark.parametrize(("lose", "count"), [(lose_entry, 5), (lose_roll_up, 70)])
def test_a_restart_notices_what_the_mirror_has_lost(
    lose: Callable[[MemoryStore], tuple[int, int]], count: int, tmp_path: Path
) -> None:
    """An open in the last writer's directory reads only what comes after its note. It refuses
    nevertheless if an entry or a roll-up before that is gone, as often as it is tried."""
    store = MemoryStore()
    mirror(tmp_path / "a", store, count)
    number, lsn = lose(store)
    for _ in range(2):
        with pytest.raises(MirrorError) as caught:
            opened(tmp_path / "a", store)
        error = caught.value
        assert (error.reason, error.number, error.lsn) == (MirrorReason.DAMAGED, number, lsn)


def lose_claim(store: MemoryStore) -> tuple[int, int]:
    """Remove the last claim."""
    claimed = look(store).claimed
    assert claimed is not None
    store.trim([claimed.number])
    return claimed.number, claimed.last_lsn + 1


@pytest.mark.parametrize(
    ("lose", "counts"),
    [(lose_entry, [5]), (lose_roll_up, [70]), (lose_claim, [5]), (lose_claim, [5, 5])],
)
def test_each_use_of_a_mirror_names_what_it_has_lost(
    lose: Callable[[MemoryStore], tuple[int, int]], counts: list[int], tmp_path: Path
) -> None:
    """An open in a new directory, a restore and a follower name the entry that is missing and the
    first LSN that is lost with it. Errors for users say what to do."""
    store = MemoryStore()
    for count in counts:
        mirror(tmp_path / "a", store, count)
    lost = lose(store)
    with pytest.raises(MirrorError, match="can begin a new mirror at another address") as caught:
        opened(tmp_path / "b", store, takeover=True)
    assert (caught.value.number, caught.value.lsn) == lost
    with pytest.raises(MirrorError, match="journal-inspect mirror verify memory://") as caught:
        follow(mirror_of(store), tmp_path / "c")
    assert (caught.value.number, caught.value.lsn) == lost
    with pytest.raises(MirrorDamageError) as damage:
        restore_into(store, tmp_path / "d")
    assert (damage.value.number, damage.value.lsn) == lost


def test_a_new_mirror_takes_the_place_of_a_damaged_one(tmp_path: Path) -> None:
    """As the message says, a writer whose directory is whole begins a new mirror elsewhere, which
    has every record."""
    store, new = MemoryStore(), MemoryStore()
    mirror(tmp_path / "a", store, 5)
    lose_claim(store)
    mirror(tmp_path / "a", new, 1)
    restore_into(new, tmp_path / "b")
    assert records_in(tmp_path / "b") == 6


def test_a_restore_needs_no_claim_that_was_rolled_up(tmp_path: Path) -> None:
    """A restore reads what is left: if a roll-up has the bytes after a lost claim, nothing is
    missing."""
    store = MemoryStore()
    mirror(tmp_path / "a", store, 70)
    lose_claim(store)
    assert restore_into(store, tmp_path / "b").lsn == 70


def test_a_restart_needs_few_requests(tmp_path: Path) -> None:
    """A comparison after a restart reads one entry and lists three times, however much the mirror
    has: the entries, the blobs, and the last entry."""
    store = Listed()
    mirror(tmp_path / "a", store, 70)
    directory = PosixDisk().open_directory(tmp_path / "a", write=True)
    store.reads = store.lists = 0
    assert compare(store, directory).verdict == "equal"
    assert (store.reads, store.lists) == (1, 3)
    directory.close(unlock=False)


def test_what_checkpoints_cover_is_not_missed(tmp_path: Path) -> None:
    """The log before the checkpoints from which a reader begins may be gone, and the note still
    saves reading the rest."""
    store = Counted()
    counter = counter_at(tmp_path / "a", store, keep_s=0)
    counter.rounds(4)
    counter.close()
    assert set(range(1, max(store.numbers(0)))) - set(store.numbers(0))
    directory = PosixDisk().open_directory(tmp_path / "a", write=True)
    store.reads = 0
    assert compare(store, directory).verdict == "equal"
    assert store.reads == 1
    directory.close(unlock=False)

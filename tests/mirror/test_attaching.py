"""Attaching: a writer claims, compares and fetches before it recovers."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from journal import Journal
from journal._disk.disk import Directory
from journal._disk.posix import PosixDisk
from journal._mirror import attaching, patient_reads
from journal._mirror.attaching import Attached, Attachment
from journal._mirror.claiming import HeldError, OtherJournalError, OvertakenError, look
from journal._mirror.comparing import Comparison, compare
from journal._mirror.marker import Marker
from journal._mirror.memory_store import MemoryStore
from journal._mirror.store import Store, UnreachableError
from tests.mirror.shipping_support import SMALL, segments_in
from tests.mirror.test_claiming import new_nonce
from tests.mirror.test_comparing import COMMITS, Case
from tests.mirror.world import STATEMENT


def attached(
    store: Store, path: Path, *, takeover: bool = False, timeout_s: float = 5.0
) -> Attached:
    """Attach a directory as an open does, with a new writer's id. Forget the marker."""
    disk = PosixDisk()
    directory = disk.open_directory(path, write=True)
    attachment = Attachment(
        lambda _: store,
        disk,
        directory,
        STATEMENT._replace(writer=new_nonce().hex()),
        new_nonce,
        url="memory:",
        marker=None,
        takeover=takeover,
    )
    try:
        return attachment.attach_within(timeout_s)
    except BaseException:
        attachment.give_up()
        raise
    finally:
        directory.close(unlock=False)


def as_stored(store: MemoryStore) -> tuple[list[int], list[str]]:
    return store.numbers(0), store.blob_names()


def test_a_new_machine_gets_everything(tmp_path: Path) -> None:
    """An empty directory takes the mirror's journal, with its id, and the writer's epoch is higher
    than the last one."""
    case = Case(tmp_path)
    last = look(case.store).claimed
    assert last is not None
    found = attached(case.store, tmp_path / "new")
    assert found.appender.epoch > last.epoch
    assert segments_in(tmp_path / "new") == segments_in(case.path)
    with Journal.open(tmp_path / "new", options=SMALL, mirror=False) as journal:
        assert (journal.last_lsn, journal.journal_id) == (COMMITS, found.journal_id)


def test_a_directory_that_was_rolled_back_loses_nothing(tmp_path: Path) -> None:
    """A directory that a snapshot took back to an earlier state gets what it lacks, before anything
    is recovered."""
    case = Case(tmp_path)
    case.roll_back()
    attached(case.store, case.path)
    with Journal.open(case.path, options=SMALL, mirror=False) as journal:
        assert journal.last_lsn == COMMITS


def test_a_read_that_fails_does_not_begin_the_comparison_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails the first read of each entry is attached within one comparison, and its
    error is raised once the time is up."""
    monkeypatch.setattr(patient_reads, "_PAUSE_S", 0.0)
    case, reads, compared = Case(tmp_path), Counter[int](), list[Store]()
    case.roll_back()
    entry = case.store.entry

    def failing(number: int) -> bytes:
        reads[number] += 1
        if compared and reads[number] % 2:
            raise UnreachableError("busy")
        return entry(number)

    def noted(store: Store, directory: Directory, marker: Marker) -> Comparison:
        reads.clear()
        compared.append(store)
        return compare(store, directory, marker)

    monkeypatch.setattr(case.store, "entry", failing)
    monkeypatch.setattr("journal._mirror.attaching.compare", noted)
    attached(case.store, case.path)
    assert len(compared) == 1
    assert max(reads.values()) == 2
    monkeypatch.setattr(case.store, "numbers", lambda _: failing(1))
    with pytest.raises(UnreachableError):
        attached(case.store, tmp_path / "b", timeout_s=0)


def test_a_store_that_does_not_show_the_claim_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entries that a server shows before it knows of the claim are not compared: a former
    leader of a cluster lacks the last ones."""
    monkeypatch.setattr(attaching, "_RETRY_S", 0.01)
    case, looks = Case(tmp_path), 0
    case.roll_back()
    numbers = case.store.numbers
    last = case.store.last(0)

    def numbers_of_a_former_leader(after: int) -> list[int]:
        nonlocal looks
        found = numbers(after)
        if found[-1:] <= [last] or looks == 3:
            return found
        looks += 1
        return [number for number in found if number < last - 1]

    monkeypatch.setattr(case.store, "numbers", numbers_of_a_former_leader)
    found = attached(case.store, case.path)
    assert (looks, found.known.place.number) == (3, last + 1)
    with Journal.open(case.path, options=SMALL, mirror=False) as journal:
        assert journal.last_lsn == COMMITS


def test_a_held_mirror_is_refused(tmp_path: Path) -> None:
    """While another writer holds the mirror, nothing is changed on either side. With a takeover,
    that writer is refused from then on."""
    case = Case(tmp_path)
    holder = attached(case.store, case.path)
    case.roll_back()
    before = segments_in(case.path), as_stored(case.store)
    with pytest.raises(HeldError):
        attached(case.store, case.path)
    assert (segments_in(case.path), as_stored(case.store)) == before
    attached(case.store, case.path, takeover=True)
    with pytest.raises(OvertakenError):
        holder.appender.release()


def test_the_mirror_of_another_journal_is_refused(tmp_path: Path) -> None:
    """A directory with another journal is refused, even with a takeover, and nothing is changed on
    either side."""
    case = Case(tmp_path)
    shutil.rmtree(case.path)
    with Journal.open(case.path) as journal:
        journal.append("other")
    before = segments_in(case.path), as_stored(case.store)
    with pytest.raises(OtherJournalError, match="another journal"):
        attached(case.store, case.path, takeover=True)
    assert (segments_in(case.path), as_stored(case.store)) == before


def test_a_short_outage_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreachable store is asked again until the time is up, without a second claim."""
    monkeypatch.setattr(attaching, "_RETRY_S", 0.01)
    case, calls = Case(tmp_path), 0
    last = look(case.store).number

    def append(number: int, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls <= 3:
            if calls == 1:
                MemoryStore.append(case.store, number, data)  # the answer is lost
            raise UnreachableError("the store is down")
        MemoryStore.append(case.store, number, data)

    monkeypatch.setattr(case.store, "append", append)
    found = attached(case.store, case.path)
    assert (found.appender.claimed.number, calls) == (last + 1, 4)
    found.appender.release()
    calls = -(10**6)
    monkeypatch.setattr(case.store, "append", _unreachable)
    with pytest.raises(UnreachableError):
        attached(case.store, case.path, timeout_s=0.05)


def _unreachable(number: int, data: bytes) -> None:
    raise UnreachableError("the store is down")

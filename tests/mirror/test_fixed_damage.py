"""Damage to a directory whose mirror has the damaged records: the open takes the mirror's copy."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import FailedError, Journal, JournalReader, MirrorError, Tables, follow
from journal._engine.reappending import reappend
from journal._format.layout import FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES
from journal._mirror.restoring import restore_into
from journal.testing import Outcome, SimulatedDisk, keep, lose, seeded
from tests.mirror.shipping_support import SMALL, Mirrored, segments_in
from tests.mirror.stores import TIMEOUT_S, SilentStore, mirror_of, write
from tests.mirror.stores import opened as opened_with
from tests.mirror.test_aside import opened, segments_on
from tests.mirror.test_attaching import attached
from tests.mirror.test_comparing import COMMITS, Case, Counted, differ
from tests.support import until

OWN = [0, 1, 2]  # records that only the directory has


def change(path: Path, offset: int, size: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = bytes(byte ^ 255 for byte in data[offset : offset + size])
    path.write_bytes(data)


def zero(path: Path, offset: int, size: int) -> None:
    data = path.read_bytes()
    path.write_bytes((data[:offset] + bytes(size) + data[offset + size :])[: len(data)])


def truncate(path: Path, offset: int, _size: int) -> None:
    path.write_bytes(path.read_bytes()[:offset])


def records(path: Path) -> list[object]:
    with JournalReader.open(path) as reader:
        return [entry.record for entry in reader.entries()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Return a directory in which three records follow those that the mirror has."""
    case = Case(tmp_path_factory.mktemp("whole"), noted=True)
    case.write(len(OWN))
    return case


@given(data=st.data())
def test_damage_is_replaced_by_what_the_mirror_has(
    whole: Case, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whichever bytes of the mirror's records are damaged, the directory has them again after an
    open, byte for byte, and the records after them, which the mirror lacks."""
    case = object.__new__(Case)
    case.store, case.path = whole.store, tmp_path_factory.mktemp("case") / "journal"
    before = segments_in(whole.path)
    case.path.mkdir()
    for name, content in before.items():
        (case.path / name).write_bytes(content)
    mirrored = sorted(before)[:-1]
    for name in data.draw(st.lists(st.sampled_from(mirrored), min_size=1, max_size=2)):
        last = len(before[name].rstrip(b"\0")) - 1
        offset = data.draw(st.integers(SEGMENT_HEADER_BYTES, last))
        kind = data.draw(st.sampled_from((change, zero, truncate)))
        kind(case.path / name, offset, data.draw(st.sampled_from((1, 4, 300, 4096))))
    with case.comparison() as comparison:
        assert comparison.verdict == "ahead"
        comparison.fetch()
    assert segments_in(case.path) == before
    assert not list(case.path.glob("*.tmp"))
    assert records(case.path)[COMMITS:] == OWN


def test_the_damage_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An open with the mirror has every record, puts nothing aside, and logs which bytes it has
    replaced."""
    case = Case(tmp_path)
    case.write(len(OWN))
    before = segments_in(case.path)
    first = case.path / min(before)
    change(first, SEGMENT_HEADER_BYTES + 60)
    change(first, SEGMENT_HEADER_BYTES + 400)
    with caplog.at_level(logging.WARNING, "journal"):
        attached(case.store, case.path)
    (warning,) = [each.message for each in caplog.records if "damaged" in each.message]
    assert warning.startswith(f"{first}: from offset {SEGMENT_HEADER_BYTES + 60} on, bytes were")
    assert segments_in(case.path) == before
    assert not list(tmp_path.glob("journal.aside-*"))
    caplog.clear()
    attached(case.store, case.path, takeover=True)
    assert not caplog.records


def test_records_in_the_place_of_damaged_ones_are_a_fork(tmp_path: Path) -> None:
    """If the log was cut at the damage, and goes on there with other records, these are put aside.
    Fixing the damage would hide them behind the mirror's records."""
    case = Case(tmp_path)
    last = case.path / max(segments_in(case.path))
    last.write_bytes(last.read_bytes().rstrip(b"\0")[:-60] + b"?" * 12)  # as after a crash
    case.write(len(OWN))
    before = segments_in(case.path)
    attached(case.store, case.path)
    (folder,) = tmp_path.glob("journal.aside-*")
    assert segments_in(folder) == before
    assert records(case.path) == ["x" * 100] * COMMITS


class PartTaken(SilentStore):
    """A store with small entries that falls silent after `left` more of them, if that is set."""

    entry_bytes_max = 1400
    left: int | None = None

    def append(self, number: int, data: bytes) -> None:
        super().append(number, data)
        if self.left is not None:
            self.left -= 1
            if not self.left:
                self.fall_silent()


def killed(path: Path, store: SilentStore, *, unshipped: int = 0) -> Path:
    """Write five records that the mirror has. With `unshipped`, write one more, which the shipper
    tries to ship alone, and then that many. Leave the files as a kill does. Return the segment."""
    running = path.with_name("running")
    with opened_with(running, store) as journal:
        journal.wait_mirrored(write(journal, 5), timeout_s=TIMEOUT_S)
        if unshipped:
            store.fall_silent()
            write(journal)
            assert store.asked.wait(TIMEOUT_S)
            write(journal, unshipped)
        shutil.copytree(running, path)
        if isinstance(store, PartTaken):
            store.left = 2
            store.answer()
            until(lambda: not store.left, "two entries are shipped")
        store.fall_silent()
        journal.close(timeout_s=0.1)
    store.answer()
    (segment,) = path.glob("*.seg")
    return segment


def test_a_log_that_was_cut_amid_a_part_of_an_upload_is_a_fork(tmp_path: Path) -> None:
    """An upload of several entries was interrupted, so no entry states the LSN of the first ones.
    Records that were written in their place do not hide them."""
    store, path = PartTaken(), tmp_path / "j"
    segment = killed(path, store, unshipped=20)
    data = segment.read_bytes()
    seventh = [found.start() for found in re.finditer(b"x{100}", data)][6]
    segment.write_bytes(data[:seventh].ljust(len(data), b"\0"))  # the disk has lost the end
    with Journal.open(path, options=SMALL, mirror=False) as alone:
        assert alone.append_and_wait("own") == 7
    with opened_with(path, store) as journal:
        assert [entry.record for entry in journal.replay(0)] == ["x" * 100] * 8
    (folder,) = tmp_path.glob("j.aside-*")
    assert reappend(folder).records == 1


def test_a_checkpoint_before_a_part_of_an_upload_can_be_restored(tmp_path: Path) -> None:
    """The first record of a segment was uploaded in part, and then damaged, so another segment
    begins at its LSN. A restore from the checkpoint before that needs both from their beginning."""
    store, path = PartTaken(), tmp_path / "j"
    store.left = 2
    with Tables.open(tmp_path / "running", options=SMALL, mirror=mirror_of(store)) as tables:
        tables.table("t")["lost"] = "x" * 2000
        tables.sync()
        assert store.asked.wait(TIMEOUT_S)
        shutil.copytree(tmp_path / "running", path)
        tables.close(timeout_s=0.1)
    store.left = None
    store.answer()
    (segment,) = path.glob("*.seg")
    truncate(segment, 1000, 0)
    with Tables.open(path, options=SMALL, mirror=mirror_of(store)) as tables:
        tables.table("t")["new"] = 1
        tables.wait_mirrored(timeout_s=TIMEOUT_S)
    restore_into(store, tmp_path / "copy")
    assert set(Tables.read(tmp_path / "copy").table("t")) == {"new"}


def test_an_empty_segment_beside_damage_is_no_fork(tmp_path: Path) -> None:
    """A crash has left a segment without records, and another writer went on. Damage before that is
    fixed, and nothing is put aside."""
    store, path = SilentStore(), tmp_path / "j"
    segment = killed(path, store)
    with Journal.open(path, options=SMALL, mirror=False) as alone:
        alone.append_and_wait("own")
    empty = max(path.glob("*.seg"))
    empty.write_bytes(empty.read_bytes()[:SEGMENT_HEADER_BYTES])
    (path / "MIRROR").unlink()  # as if a writer with the mirror had crashed
    for count in range(2):  # the second one has a newer epoch
        with opened_with(tmp_path / "other", store, takeover=True) as other:
            for _ in range(count):
                other.wait_mirrored(write(other), timeout_s=TIMEOUT_S)
    change(segment, SEGMENT_HEADER_BYTES + 60)
    with opened_with(path, store, takeover=True) as journal:
        assert journal.last_lsn == 6
    assert not list(tmp_path.glob("j.aside-*"))


def test_a_record_that_differs_beside_damage_is_a_fork(tmp_path: Path) -> None:
    """Damage in one place does not excuse another record in the next."""
    case = Case(tmp_path)
    differ(case)
    change(case.path / sorted(segments_in(case.path))[1], SEGMENT_HEADER_BYTES + 60)
    before = segments_in(case.path)
    with case.comparison() as comparison:
        assert comparison.verdict == "forked"
        assert not comparison.staging.names
    assert segments_in(case.path) == before
    assert not list(case.path.glob("*.tmp"))


@pytest.mark.parametrize("outcome", [keep, lose, seeded(1)])
def test_a_power_cut_while_damage_is_fixed_loses_nothing(outcome: Outcome, tmp_path: Path) -> None:
    """After a power cut at any step, the next open fixes the rest."""
    case = Case(tmp_path)
    case.write(len(OWN))
    whole = segments_in(case.path)
    for name in sorted(whole)[:2]:
        change(case.path / name, SEGMENT_HEADER_BYTES + 60)
    files = {path.name: path.read_bytes() for path in case.path.iterdir()}
    for after in range(1000):
        disk = SimulatedDisk.holding("/j", files)
        disk.crash_after(after)
        try:
            opened(disk, case.store)
        except OSError:
            assert disk.crashed
            disk.power_cut(outcome)
            opened(disk, case.store)
            assert segments_on(disk, "/j") == whole
        else:
            break
    assert segments_on(disk, "/j") == whole
    assert after > 20


def test_a_follower_fixes_its_directory(tmp_path: Path) -> None:
    """A follower whose directory is damaged goes on with the mirror's bytes."""
    mirror = (tmp_path / "mirror").as_uri()
    with Journal.open(tmp_path / "j", mirror=mirror) as journal:
        for number in range(9):
            journal.append(number)
        journal.wait_mirrored(timeout_s=TIMEOUT_S)
        with follow(mirror, tmp_path / "copy") as follower:
            follower.wait(9, timeout_s=TIMEOUT_S)
        (segment,) = (tmp_path / "copy").glob("*.seg")
        change(segment, SEGMENT_HEADER_BYTES + 60)
        journal.append("later")
        journal.wait_mirrored(timeout_s=TIMEOUT_S)
        with follow(mirror, tmp_path / "copy") as follower:
            follower.wait(10, timeout_s=TIMEOUT_S)
    assert records(tmp_path / "copy") == [*range(9), "later"]


@pytest.mark.parametrize("put_aside", [False, True])
def test_a_follower_puts_aside_what_is_whole(put_aside: bool, tmp_path: Path) -> None:
    """A directory that is damaged and has records of its own may not follow, and stays as it is. If
    it is put aside, its own records can be read behind the damage."""
    store, path = SilentStore(), tmp_path / "j"
    segment = killed(path, store)
    with Journal.open(path, options=SMALL, mirror=False) as alone:
        alone.append_and_wait("own")
    change(segment, SEGMENT_HEADER_BYTES + 60)
    before = sorted(each.name for each in path.iterdir())
    if not put_aside:
        with pytest.raises(MirrorError, match=r"that the mirror lacks\. Nothing was changed"):
            follow(mirror_of(store), path)
        assert sorted(each.name for each in path.iterdir()) == before
        return
    with follow(mirror_of(store), path, put_aside=True):
        pass
    (folder,) = tmp_path.glob("j.aside-*")
    assert reappend(folder).records == 1
    with JournalReader.open(folder) as reader:
        assert list(reader.verify()) == []


def test_a_late_contact_refuses_what_looked_like_a_torn_tail(tmp_path: Path) -> None:
    """If the mirror is silent at the open, and the last record is damaged, the log goes on before
    it. At the first contact, the mirror has it, so the journal stops, and the mirror keeps it."""
    store, path = SilentStore(), tmp_path / "j"
    segment = killed(path, store)
    data = segment.read_bytes()
    end = data.rindex(b"x") + 1
    segment.write_bytes(data[:end].ljust(len(data), b"\0"))  # without a mark, if there is one
    change(segment, end - 10)
    store.fall_silent()
    journal = opened_with(path, store)
    assert journal.last_lsn == 4
    assert journal._core.mirroring is not None
    shipper = journal._core.mirroring._shipper
    store.answer()
    until(lambda: shipper.failure or shipper._link, "the first contact")
    with pytest.raises(FailedError, match="diverged"):
        journal.close()
    with opened_with(path, store) as journal:
        assert journal.last_lsn == 5


def test_the_end_of_a_damaged_segment_is_not_taken_for_missing(tmp_path: Path) -> None:
    """The last record of a damaged segment ends with a zero, after which come zeros that were
    allocated ahead. The directory lacks nothing."""
    case = object.__new__(Case)
    case.store, case.path = Counted(), tmp_path / "j"
    with Journal.open(case.path) as journal:
        for number in (3, 2, 1, 0):
            journal.append_and_wait(number)
    (segment,) = case.path.glob("*.seg")
    size = len(segment.read_bytes()) - FRAME_HEADER_BYTES
    truncate(segment, size, 0)  # the mark
    mirrored = Mirrored(case.path, case.store)
    assert mirrored.shipper.wait(4, TIMEOUT_S)
    mirrored.close()
    change(segment, SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES)
    segment.write_bytes(segment.read_bytes() + bytes(100))
    with case.comparison() as comparison:
        assert comparison.verdict == "equal"
        assert comparison.common == {segment.name: size}
        comparison.fetch()
    assert records(case.path) == [3, 2, 1, 0]


def test_a_late_contact_goes_on_beside_damage(tmp_path: Path) -> None:
    """If the mirror is silent at the open, and the newest checkpoint covers the damage, the journal
    goes on. At the first contact, it leaves the directory as it is, and the next open fixes it."""
    store = SilentStore()
    with Tables.open(tmp_path / "j", options=SMALL, mirror=mirror_of(store)) as tables:
        for number in range(12):
            tables.table("t")[str(number)] = "x" * 900
            tables.sync()
        tables.compact()
        tables.wait_mirrored(timeout_s=TIMEOUT_S)
    whole = segments_in(tmp_path / "j")
    damaged = tmp_path / "j" / min(whole)
    change(damaged, 300)
    store.fall_silent()
    with Tables.open(tmp_path / "j", options=SMALL, mirror=mirror_of(store)) as tables:
        store.answer()
        tables.table("t")["new"] = 1
        tables.wait_mirrored(timeout_s=TIMEOUT_S)
        assert not list((tmp_path / "j").glob("*.tmp"))
        assert damaged.read_bytes() != whole[damaged.name]
    with Tables.open(tmp_path / "j", options=SMALL, mirror=mirror_of(store)) as tables:
        assert len(tables.table("t")) == 13
        assert damaged.read_bytes() == whole[damaged.name]

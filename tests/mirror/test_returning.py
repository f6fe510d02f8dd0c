"""Returning: a directory comes back to its mirror after another writer, or an opening without it.

Source: tools/proof/fork_model.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from journal import FailedError, FencedError, MirrorError, MirrorReason, Tables, follow
from journal._engine.reappending import reappend
from journal._mirror.memory_store import MemoryStore
from journal._names import MIRROR, MIRROR_PLACE
from tests.mirror.stores import SMALL, TIMEOUT_S, SilentStore, mirror_of
from tests.mirror.test_settling import take_over


def opened(path: Path, store: MemoryStore) -> Tables:
    """Open tables that keep almost nothing for their mirror."""
    mirror = mirror_of(store, keep_s=0, lag_bytes_max=1)
    return Tables.open(path, options=SMALL, mirror=mirror, takeover=True)


def mirrored(path: Path, store: MemoryStore, key: str) -> None:
    """Write a row that the mirror acknowledges."""
    with opened(path, store) as writer:
        writer.table("t")[key] = 1
        writer.wait_mirrored(timeout_s=TIMEOUT_S)


def compacted(journal: Tables) -> None:
    """Write so much that nothing of the log is left from before."""
    for number in range(8):
        journal.table("t")["next"] = f"{number} " + "x" * 4096
        journal.sync()
        journal.compact()


def overtaken(path: Path, store: SilentStore) -> None:
    """Take the mirror over while a writer can't reach it, compacts, and is killed."""
    with suppress(FailedError), opened(path.with_name("running"), store) as first:
        first.table("t")["common"] = 1
        first.wait_mirrored(timeout_s=TIMEOUT_S)
        store.fall_silent()
        mirrored(path.with_name("other"), store.reached_by_others(), "acknowledged")
        compacted(first)
        shutil.copytree(path.with_name("running"), path)
        store.answer()


def opened_without(path: Path, store: SilentStore) -> None:
    """Take the mirror over before its first directory is opened without it."""
    mirrored(path, store, "common")
    mirrored(path.with_name("other"), store, "acknowledged")
    with Tables.open(path, options=SMALL, mirror=False) as alone:
        compacted(alone)


def rolled_back(path: Path, store: SilentStore) -> None:
    """Go back to an older copy of a directory, of the same claim."""
    with opened(path.with_name("lost"), store) as lost:
        lost.table("t")["common"] = 1
        lost.wait_mirrored(timeout_s=TIMEOUT_S)
        shutil.copytree(path.with_name("lost"), path)
        lost.table("t")["acknowledged"] = 1
        lost.wait_mirrored(timeout_s=TIMEOUT_S)


def rolled_back_and_opened_without(path: Path, store: SilentStore) -> None:
    """Open an older copy of a directory without its mirror."""
    rolled_back(path, store)
    with Tables.open(path, options=SMALL, mirror=False) as alone:
        compacted(alone)


def rolled_back_and_cut_off(path: Path, store: SilentStore) -> None:
    """Open an older copy of a directory while its mirror can't be reached, until it can be."""
    rolled_back(path, store)
    store.fall_silent()
    with suppress(FailedError), opened(path, store) as alone:
        compacted(alone)
        store.answer()
        with pytest.raises(FailedError):
            alone.wait_mirrored(timeout_s=TIMEOUT_S)


def overtaken_and_lost(path: Path, store: SilentStore) -> None:
    """Take the mirror over from a writer whose checkpoint is all that is left of its own row."""
    with suppress(FailedError), opened(path.with_name("running"), store) as first:
        first.table("t")["common"] = 1
        first.wait_mirrored(timeout_s=TIMEOUT_S)
        shutil.copytree(path.with_name("running"), path)
        store.fall_silent()
        mirrored(path.with_name("other"), store.reached_by_others(), "acknowledged")
        first.table("t")["own"] = 1
        first.compact()
        shutil.copy(max(path.with_name("running").glob("checkpoint-*")), path)
        store.answer()


def opened_without_and_lost(path: Path, store: SilentStore) -> None:
    """Open a directory without its mirror, compact it, and lose its segments."""
    mirrored(path, store, "common")
    with Tables.open(path, options=SMALL, mirror=False) as alone:
        alone.table("t")["own"] = 1
        alone.compact()
    mirrored(path.with_name("other"), store, "acknowledged")
    for segment in path.glob("*.seg"):
        segment.unlink()


def overtaken_opened_without_and_lost(path: Path, store: SilentStore) -> None:
    """Take the mirror over from a writer that has more rows of its own. Open its directory without
    the mirror, compact it, and lose its segments."""
    with suppress(FailedError), opened(path.with_name("running"), store) as first:
        first.table("t")["common"] = 1
        first.wait_mirrored(timeout_s=TIMEOUT_S)
        store.fall_silent()
        mirrored(path.with_name("other"), store.reached_by_others(), "acknowledged")
        for number in range(5):
            first.table("t")[f"own {number}"] = 1
        first.sync()
        shutil.copytree(path.with_name("running"), path)
        store.answer()
    with Tables.open(path, options=SMALL, mirror=False) as alone:
        alone.compact()
    for segment in path.glob("*.seg"):
        segment.unlink()


@pytest.mark.parametrize(
    "diverge",
    [
        *(overtaken, opened_without, rolled_back_and_opened_without, rolled_back_and_cut_off),
        *(overtaken_and_lost, opened_without_and_lost, overtaken_opened_without_and_lost),
    ],
)
def test_a_fork_is_noticed_after_its_log_was_compacted_or_lost(
    diverge: Callable[[Path, SilentStore], None], tmp_path: Path
) -> None:
    """A directory's own checkpoint does not cover what another writer has put into the mirror, or
    what the directory had before it was rolled back. It is put aside, although it may have lost the
    records that the checkpoint holds in their place."""
    store, path = SilentStore(), tmp_path / "one"
    diverge(path, store)
    with opened(path, store) as again:
        assert set(again.table("t")) == {"common", "acknowledged"}
    assert len(list(tmp_path.glob("one.aside-*"))) == 1


def test_records_of_an_earlier_epoch_that_were_shipped_later_are_not_appended_again(
    tmp_path: Path,
) -> None:
    """A crash leaves records that the mirror lacks, and the next open in the directory ships them.
    They count as mirrored when the directory comes back after another writer."""
    store, path = SilentStore(), tmp_path / "one"
    others = store.reached_by_others()
    with suppress(FencedError), opened(tmp_path / "running", store) as first:
        first.table("t")["mirrored"] = 1
        first.wait_mirrored(timeout_s=TIMEOUT_S)
        store.fall_silent()
        first.table("t")["late"] = 1
        first.sync()
        shutil.copytree(tmp_path / "running", path)
        mirrored(path, others, "later")
        store.answer()
    returned(path, others, records=0)


def test_records_of_a_copy_are_not_taken_for_those_of_its_claim(tmp_path: Path) -> None:
    """A copy of a directory that has claimed, and written nothing since, is opened without the
    mirror. Its records have the epoch of the claim, and the mirror has others in their place."""
    store, path = SilentStore(), tmp_path / "one"
    mirrored(tmp_path / "lost", store, "common")
    with opened(tmp_path / "lost", store) as lost:
        shutil.copytree(tmp_path / "lost", path)
        lost.table("t")["mirrored"] = 1
        lost.wait_mirrored(timeout_s=TIMEOUT_S)
    with Tables.open(path, options=SMALL, mirror=False) as alone:
        alone.table("t")["own"] = 1
    returned(path, store, records=1)


def test_records_of_an_epoch_without_a_claim_are_a_directorys_own(tmp_path: Path) -> None:
    """An earlier version has opened an older copy of a directory without its mirror, and did not
    note where that began. The records' epoch shows that they were never mirrored."""
    store, path = SilentStore(), tmp_path / "one"
    rolled_back(path, store)
    with Tables.open(path, options=SMALL, mirror=False) as alone:
        alone.table("t")["own"] = 1
    marker = json.loads((path / MIRROR).read_text())
    assert marker.pop("unclaimed_lsn") == 1
    (path / MIRROR).write_text(json.dumps(marker))
    returned(path, store, records=1)


def returned(path: Path, store: MemoryStore, *, records: int) -> None:
    """Take the mirror over and trim it. Then open the directory, which must be put aside with that
    many records of its own."""
    (path / MIRROR_PLACE).unlink(missing_ok=True)
    take_over(path.with_name("two"), store)
    with opened(path, store):
        pass
    (aside,) = path.parent.glob("one.aside-*")
    assert reappend(aside).records == records


def followed(path: Path, store: MemoryStore) -> None:
    """Follow the mirror, as a follower does that is killed before it notes the last place."""
    mirrored(path.with_name("writer"), store, "noted")
    note = path / MIRROR_PLACE
    with follow(mirror_of(store), path) as follower:
        data, lsn = note.read_bytes(), follower.lsn
        mirrored(path.with_name("writer"), store, "not noted")  # with another claim
        follower.wait(lsn + 1, timeout_s=TIMEOUT_S)
    note.write_bytes(data)


def test_a_killed_follower_goes_on_after_the_mirror_was_trimmed(tmp_path: Path) -> None:
    """A follower is killed before it notes what it got, and the mirror removes the log of that
    time. The claims show that the mirror had all of it, so nothing is put aside."""
    store, path = MemoryStore(), tmp_path / "one"
    followed(path, store)
    take_over(tmp_path / "two", store)
    with follow(mirror_of(store), path) as follower:
        assert set(Tables.read(path).table("t")) == {"noted", "not noted", "next"}
        assert follower.lsn > 2


def formerly_written(path: Path, store: MemoryStore) -> None:
    """Write in a directory, take the mirror over, and let the directory follow."""
    mirrored(path, store, "own")
    mirrored(path.with_name("writer"), store, "later")
    with follow(mirror_of(store), path):
        pass


def test_a_former_writer_goes_on_after_the_mirror_was_trimmed(tmp_path: Path) -> None:
    """Once the directory of a former writer has followed, all of its records are the mirror's. It
    goes on like any other that was killed."""
    store, path = MemoryStore(), tmp_path / "one"
    formerly_written(path, store)
    followed(path, store)
    take_over(tmp_path / "two", store)
    with follow(mirror_of(store), path):
        assert set(Tables.read(path).table("t")) >= {"own", "later", "not noted", "next"}


def test_a_former_writer_opens_with_its_mirror_only(tmp_path: Path) -> None:
    """A directory that has followed another writer is not that of the last one. So it does not open
    while the mirror is unreachable."""
    store, path = SilentStore(), tmp_path / "one"
    formerly_written(path, store)
    store.fall_silent()
    with pytest.raises(MirrorError) as refused:
        Tables.open(path, mirror=mirror_of(store, open_timeout_s=0.1))
    assert refused.value.reason is MirrorReason.UNREACHABLE


def test_a_follower_takes_over_no_emptied_mirror(tmp_path: Path) -> None:
    """A follower's directory shows that the mirror had entries. So one that was emptied does not
    begin again with it, unless that is asked for."""
    store, path = MemoryStore(), tmp_path / "one"
    followed(path, store)
    store.trim(store.numbers(0))
    store.delete_blobs(store.blob_names())
    with pytest.raises(MirrorError) as refused:
        Tables.open(path, mirror=mirror_of(store), takeover=True)
    assert refused.value.reason is MirrorReason.EMPTIED


def test_a_follower_that_was_written_to_is_refused(tmp_path: Path) -> None:
    """Records that were written to a follower's directory without a claim are its own."""
    store, path = MemoryStore(), tmp_path / "one"
    followed(path, store)
    with Tables.open(path, options=SMALL, mirror=False) as alone:
        alone.table("t")["own"] = 1
    take_over(tmp_path / "two", store)
    with pytest.raises(MirrorError, match="records that the mirror lacks"):
        follow(mirror_of(store), path)
    with follow(mirror_of(store), path, put_aside=True):
        pass
    (aside,) = tmp_path.glob("one.aside-*")
    assert reappend(aside).records == 1


def test_a_followers_aside_has_only_its_own_records(tmp_path: Path) -> None:
    """A directory of a former writer follows, and is put aside. The claims show which of its
    records the mirror had, as in an open."""
    store, path = MemoryStore(), tmp_path / "one"
    mirrored(path, store, "mirrored")
    (path / MIRROR_PLACE).unlink()
    take_over(tmp_path / "two", store)
    with follow(mirror_of(store), path, put_aside=True):
        pass
    (aside,) = tmp_path.glob("one.aside-*")
    assert reappend(aside).records == 0

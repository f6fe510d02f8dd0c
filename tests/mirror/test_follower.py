"""follow(): a standby that readers use, and that takes over."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from journal import (
    ClosedError,
    CompactedError,
    DurableDict,
    FencedError,
    Journal,
    JournalReader,
    LockedError,
    MirrorError,
    MirrorReason,
    Options,
    Tables,
    UnsafePathError,
    follow,
    restore,
)
from journal._mirror.memory_store import MemoryStore
from manager import SubAgentManager, read_fleet
from tests.mirror.stores import TIMEOUT_S, SilentStore, mirror_of
from tests.support import Interrupted, interrupt_after, until

SMALL = Options(segment_bytes=4096)
POLL_S = 0.005
SOON_S = 0.05


def write(journal: Journal, count: int = 1) -> int:
    for _ in range(count):
        lsn = journal.append("x" * 100)
    journal.wait_mirrored(lsn, timeout_s=TIMEOUT_S)
    return lsn


def test_a_standby_takes_over(tmp_path: Path) -> None:
    """A follower has what the mirror has, and is promoted to its writer with all of it. The former
    writer stops. A follower that is closed is no writer's lock."""
    store = MemoryStore()
    with Journal.open(tmp_path / "a", options=SMALL, mirror=mirror_of(store)) as journal:
        write(journal, 50)
        follower = follow(mirror_of(store), tmp_path / "b", poll_s=POLL_S)
        assert follower.lsn == 50
        lsn = write(journal, 5)
        follower.wait(lsn, timeout_s=TIMEOUT_S)
        assert JournalReader.open(tmp_path / "b").last_lsn == lsn
        assert JournalReader.open(tmp_path / "b").live
        assert 0 <= follower.lag_s < TIMEOUT_S
        with pytest.raises(LockedError):
            Journal.open(tmp_path / "b", mirror=mirror_of(store), takeover=True)
        with follower.promote(options=SMALL) as promoted:
            assert promoted.last_lsn == lsn
            assert promoted.epoch > journal.epoch
            write(promoted)
            journal.append("late")
            with pytest.raises(FencedError):
                journal.wait_mirrored(timeout_s=TIMEOUT_S)
        with pytest.raises(ClosedError, match="the follower is closed"):
            follower.promote()
        with pytest.raises(FencedError):
            journal.close()
    # The former writer follows only once its own record is put aside.
    with pytest.raises(MirrorError, match="has records that the mirror lacks") as refused:
        follow(mirror_of(store), tmp_path / "a")
    assert refused.value.reason is MirrorReason.FORKED
    with follow(mirror_of(store), tmp_path / "a", poll_s=POLL_S, put_aside=True) as again:
        assert again.lsn == lsn + 1
    (aside,) = tmp_path.glob("a.aside-*")
    assert [entry.record for entry in JournalReader.open(aside).entries(lsn)] == ["late"]


def test_any_open_may_be_promoted(tmp_path: Path) -> None:
    """A follower of tables is promoted by their own open, and read by their own reader."""
    store = MemoryStore()
    with DurableDict.open(tmp_path / "a", mirror=mirror_of(store)) as first:
        first["key"] = 1
        first.sync()
        until(lambda: store.numbers(1) != [], "it is mirrored", TIMEOUT_S)
    follower = follow(mirror_of(store), tmp_path / "b", poll_s=POLL_S)
    with follower.promote(DurableDict.open, takeover=False) as second:
        assert dict(second) == {"key": 1}


def test_a_killed_follower_goes_on_where_the_log_is_trimmed(tmp_path: Path) -> None:
    """A follower that is killed soon after it began goes on in its directory, also if the mirror no
    longer has the log of that time."""
    store = MemoryStore()
    mirror = mirror_of(store, keep_s=0)
    with Tables.open(tmp_path / "a", options=SMALL, mirror=mirror) as tables:
        table = tables.table("t")
        table["first"] = 1
        tables.wait_mirrored(timeout_s=TIMEOUT_S)
        log = store.numbers(0)
        with follow(mirror, tmp_path / "b", poll_s=3600):
            shutil.copytree(tmp_path / "b", tmp_path / "killed")
        for number in range(4):
            table["next"] = "x" * 4096 + str(number)
            tables.wait_mirrored(timeout_s=TIMEOUT_S)
            tables.compact()
        until(lambda: store.numbers(0)[1] > log[-1], "the log is trimmed", TIMEOUT_S)
        with follow(mirror, tmp_path / "killed", poll_s=POLL_S) as again:
            mirrored_lsn = tables.stats().mirrored_lsn
            assert mirrored_lsn
            again.wait(mirrored_lsn, timeout_s=TIMEOUT_S)


def test_a_held_mirror_is_taken_over_on_request_only(tmp_path: Path) -> None:
    """Without a takeover, a promotion is refused while another writer holds the mirror. The
    directory can be followed again."""
    store = MemoryStore()
    with Journal.open(tmp_path / "a", mirror=mirror_of(store)) as journal:
        write(journal)
        follower = follow(mirror_of(store), tmp_path / "b", poll_s=POLL_S)
        with pytest.raises(LockedError):
            follower.promote(takeover=False)
        with follow(mirror_of(store), tmp_path / "b", poll_s=POLL_S) as again:
            again.wait(write(journal), timeout_s=TIMEOUT_S)


def test_a_follower_may_come_first(tmp_path: Path) -> None:
    """A mirror that has no journal yet can be followed. It is seen as soon as it has one."""
    store = MemoryStore()
    with follow(mirror_of(store), tmp_path / "b", poll_s=POLL_S) as follower:
        assert follower.lsn == 0
        with Journal.open(tmp_path / "a", mirror=mirror_of(store)) as journal:
            follower.wait(write(journal), timeout_s=TIMEOUT_S)
    with pytest.raises(MirrorError, match="opened without it"):
        Journal.open(tmp_path / "b")


def test_a_wait_ends_with_its_time_or_the_follower(tmp_path: Path) -> None:
    """A wait for a record that does not come ends after its time limit, and with an error when the
    follower is closed or has failed."""
    store = MemoryStore()
    Journal.open(tmp_path / "a", mirror=mirror_of(store)).close()
    follower = follow(mirror_of(store), tmp_path / "b", poll_s=POLL_S)
    with pytest.raises(TimeoutError, match="LSN 9 did not arrive within"):
        follower.wait(9, timeout_s=0.01)
    store.append(max(store.numbers(0)) + 1, b"foreign")
    with pytest.raises(MirrorError, match="something else wrote it") as refused:
        follower.wait(9, timeout_s=TIMEOUT_S)
    assert refused.value.reason is MirrorReason.DAMAGED
    follower.close()
    follower.close()
    with pytest.raises(ValueError, match="at least 0"):
        follower.wait(-1)
    assert "closed" in repr(follower)


def test_an_outage_shows_in_the_lag(tmp_path: Path) -> None:
    """While the mirror is silent, the lag grows, and readers go on."""
    store = SilentStore()
    with Journal.open(tmp_path / "a", mirror=mirror_of(store)) as journal:
        write(journal)
        with follow(mirror_of(store), tmp_path / "b", poll_s=POLL_S) as follower:
            store.fall_silent()
            assert store.asked.wait(TIMEOUT_S)
            before = follower.lag_s
            until(lambda: follower.lag_s > before + 0.05, "the lag grows", TIMEOUT_S)
            assert JournalReader.open(tmp_path / "b").last_lsn == 1
            store.answer()
            follower.wait(write(journal), timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("state", ["another journal", "emptied", "stray", "restored"])
def test_an_unfit_directory_is_refused(state: str, tmp_path: Path) -> None:
    """A directory that can't follow the mirror is refused, and nothing in it is changed."""
    store, path = MemoryStore(), tmp_path / "b"
    with Journal.open(tmp_path / "a", mirror=mirror_of(store)) as journal:
        write(journal)
    error: type[Exception] = MirrorError
    if state == "another journal":
        with Journal.open(path) as journal:
            journal.append("x")
    elif state == "emptied":
        shutil.copytree(tmp_path / "a", path)
        store.trim(store.numbers(0))
    elif state == "stray":
        path.mkdir()
        (path / "notes.txt").write_text("mine")
        error = UnsafePathError
    else:
        shutil.copytree(tmp_path / "a", path)
        text = (path / "MIRROR").read_text()
        (path / "MIRROR").write_text(text.replace('"restored_lsn": null', '"restored_lsn": 1'))
    before = {each.name: each.read_bytes() for each in path.iterdir()}
    with pytest.raises(error):
        follow(mirror_of(store), path)
    after = {each.name: each.read_bytes() for each in path.iterdir()}
    assert after.pop("LOCK", b"") == before.pop("LOCK", b"")
    assert after == before


def test_a_silent_mirror_is_given_up(tmp_path: Path) -> None:
    """If the mirror does not answer within `open_timeout_s`, following it is refused."""
    store = SilentStore()
    store.fall_silent()
    with pytest.raises(MirrorError) as refused:
        follow(mirror_of(store, open_timeout_s=0.1), tmp_path / "b")
    assert refused.value.reason is MirrorReason.UNREACHABLE


def test_a_mirror_that_can_not_be_opened_makes_no_directory(tmp_path: Path) -> None:
    """A follow and a restore with a wrong address leave no directory, and neither does a restore
    from an empty mirror, or of an LSN that the mirror lacks."""
    mirror, path = tmp_path / "mirror", tmp_path / "b"
    url = f"file://{mirror}"
    with pytest.raises(FileNotFoundError, match="no mirror of a journal here"):
        follow(url, path)
    mirror.mkdir(mode=0o700)
    with pytest.raises(FileNotFoundError, match="no mirror of a journal here"):
        restore(url, path)
    with Journal.open(tmp_path / "a", mirror=url) as journal:
        journal.append("x")
    with pytest.raises(CompactedError, match="LSN 2 is not in the mirror"):
        restore(url, path, lsn=2)
    assert not path.exists()


@pytest.mark.parametrize("call", ["close", "request"])
def test_a_close_that_was_cut_off_goes_on(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A close that a signal handler's exception cuts off may be repeated. The directory is locked
    while the thread may write, and no longer than that."""
    store = SilentStore()
    follower = follow(mirror_of(store), tmp_path / "b", poll_s=POLL_S)
    if call == "request":
        store.fall_silent(hangs=True)
        assert store.asked.wait(TIMEOUT_S)
        with pytest.raises(Interrupted), interrupt_after(SOON_S):
            follower.close()
        with pytest.raises(LockedError):
            follow(mirror_of(MemoryStore()), tmp_path / "b")
        threading.Timer(SOON_S, store.answer).start()
    else:
        monkeypatch.setattr(store, "close", partial(interrupted, monkeypatch))
        with pytest.raises(Interrupted):
            follower.close()
    follower.close()
    assert not [each for each in threading.enumerate() if each.name == "journal-follower"]
    follow(mirror_of(store), tmp_path / "b").close()


def interrupted(patch: pytest.MonkeyPatch) -> None:
    patch.undo()
    raise Interrupted


@pytest.mark.parametrize("poll_s", [0, -1, float("nan"), 1e9])
def test_poll_s_has_a_range(poll_s: float, tmp_path: Path) -> None:
    """An interval that no follower can keep is refused before anything is made."""
    with pytest.raises(ValueError, match="poll_s"):
        follow(mirror_of(MemoryStore()), tmp_path / "b", poll_s=poll_s)
    assert not (tmp_path / "b").exists()


def test_a_followed_fleet_is_read_live(tmp_path: Path) -> None:
    """`read_fleet` sees the agents of a manager on another machine, and the standby's own manager
    continues them."""
    store = MemoryStore()
    with SubAgentManager.open(tmp_path, state_dir="a", mirror=mirror_of(store)) as manager:
        manager.spawn("first", name="lead")
        manager.wait_mirrored(timeout_s=TIMEOUT_S)
        with follow(mirror_of(store), tmp_path / "b", poll_s=POLL_S) as follower:
            assert [agent.name for agent in read_fleet(tmp_path / "b").agents()] == ["lead"]
            manager.spawn("second", name="other")
            manager.wait_mirrored(timeout_s=TIMEOUT_S)
            until(lambda: len(read_fleet(tmp_path / "b").agents()) == 2, "it follows", TIMEOUT_S)
            assert follower.lag_s < TIMEOUT_S
    with SubAgentManager.open(tmp_path, state_dir="b", mirror=mirror_of(store)) as manager:
        assert {agent.name for agent in manager.agents()} == {"lead", "other"}


@pytest.mark.skipif(sys.platform != "linux", reason="forks with threads")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_has_no_follower(tmp_path: Path) -> None:
    """In a forked child, the follower is closed, and its end does not release the parent's lock."""
    store = MemoryStore()
    Journal.open(tmp_path / "a", mirror=mirror_of(store)).close()
    with follow(mirror_of(store), tmp_path / "b", poll_s=POLL_S) as follower:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                follower.wait(9, timeout_s=TIMEOUT_S)
            except ClosedError:
                follower.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        with pytest.raises(LockedError):
            Journal.open(tmp_path / "b", mirror=mirror_of(store))
        assert follower.lag_s < TIMEOUT_S


def test_a_follower_makes_nothing_in_its_mirror(tmp_path: Path) -> None:
    """A mirror whose directory is missing, such as one with a wrong address, is refused. One that
    has no journal yet is followed."""
    mirror = tmp_path / "mirror"
    with pytest.raises(FileNotFoundError, match="there is no mirror of a journal here"):
        follow(f"file://{mirror}", tmp_path / "b")
    assert not mirror.exists()
    mirror.mkdir(mode=0o700)
    with follow(f"file://{mirror}", tmp_path / "b", poll_s=POLL_S) as follower:
        assert list(mirror.iterdir()) == []
        with Journal.open(tmp_path / "a", options=SMALL, mirror=f"file://{mirror}") as journal:
            follower.wait(write(journal), timeout_s=TIMEOUT_S)

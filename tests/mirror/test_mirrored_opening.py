"""Opening a mirrored directory: who may, what the marker decides, and opens without contact."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from journal import (
    FailedError,
    FencedError,
    Journal,
    JournalReader,
    LockedError,
    Mirror,
    MirrorError,
    MirrorReason,
    follow,
)
from journal._engine.mirroring import Mirroring
from journal._mirror import attaching
from journal._mirror.attaching import Attachment
from journal._mirror.claiming import Appender, look
from journal._mirror.memory_store import MemoryStore
from journal._mirror.restoring import restore_into
from journal._names import MIRROR
from tests.mirror.stores import (
    TIMEOUT_S,
    SilentStore,
    crash,
    mirror_of,
    opened,
    write,
)
from tests.support import Interrupted


def test_a_restart_in_the_same_directory_needs_no_takeover(tmp_path: Path) -> None:
    """After a crash, the directory of the last writer opens again, because its lock proves that the
    writer has ended. In every other directory, the open names the writer and refuses."""
    store = MemoryStore()
    journal = opened(tmp_path / "a", store)
    write(journal)
    epoch = journal.epoch
    crash(journal)
    with pytest.raises(
        LockedError, match=rf"holds its mirror, with epoch {epoch}, since 20"
    ) as held:
        opened(tmp_path / "b", store)
    assert held.value.epoch == epoch
    assert held.value.host
    assert held.value.pid
    assert held.value.since is not None
    assert not list((tmp_path / "b").glob("*.seg"))
    for _ in range(2):
        journal = opened(tmp_path / "a", store)
        crash(journal)
    with opened(tmp_path / "b", store, takeover=True) as journal:
        assert journal.last_lsn == 1
    with opened(tmp_path / "a", store) as journal:
        write(journal)


def test_a_crash_during_an_open_needs_no_takeover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory whose open was interrupted between its claim and anything else opens again."""
    store = MemoryStore()
    with opened(tmp_path / "a", store) as journal:
        write(journal)
    with monkeypatch.context() as patch:
        patch.setattr(attaching, "compare", _interrupt)
        patch.setattr(Attachment, "give_up", lambda _: None)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                opened(tmp_path / "a", store)
    assert not look(store).is_released
    with opened(tmp_path / "a", store) as journal:
        assert journal.last_lsn == 1


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_no_two_writers_have_the_same_epoch(tmp_path: Path) -> None:
    """The epoch of an open is higher than that of every claim before, even if that writer appended
    nothing."""
    store = MemoryStore()
    with opened(tmp_path / "a", store) as journal:
        write(journal)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    epochs = []
    for name in ("a", "a", "b", "a"):
        with opened(tmp_path / name, store) as journal:
            epochs.append(journal.epoch)
    assert epochs == [2, 3, 4, 5]


def test_an_empty_journal_keeps_its_id(tmp_path: Path) -> None:
    """The id of a journal without records is that of its mirror, also if it is opened without
    it."""
    store = MemoryStore()
    with opened(tmp_path / "a", store) as journal:
        journal_id = journal.journal_id
    with Journal.open(tmp_path / "a", mirror=False) as journal:
        assert journal.journal_id == journal_id
        write(journal)
    with opened(tmp_path / "a", store) as journal:
        assert (journal.journal_id, journal.last_lsn) == (journal_id, 1)


def test_a_crash_after_the_first_claim_is_opened(tmp_path: Path) -> None:
    """A new directory in which a crash has left nothing but the marker opens without a
    takeover."""
    store = MemoryStore()
    crash(opened(tmp_path / "a", store))
    for path in (tmp_path / "a").iterdir():
        if path.name != "MIRROR":
            path.unlink()
    with opened(tmp_path / "a", store) as journal:
        assert write(journal) == 1


def test_a_copied_directory_is_not_the_last_writers(tmp_path: Path) -> None:
    """A copy of a directory counts as that of the last writer only until the original opens
    again."""
    store = MemoryStore()
    crash(opened(tmp_path / "a", store))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    crash(opened(tmp_path / "a", store))
    with pytest.raises(LockedError):
        opened(tmp_path / "b", store)


def test_a_mirrored_directory_refuses_to_open_without_its_mirror(tmp_path: Path) -> None:
    """A directory with a marker needs its mirror, or an explicit False, after which the mirror gets
    what was written without it."""
    store = MemoryStore()
    with opened(tmp_path / "a", store) as journal:
        write(journal)
    with pytest.raises(MirrorError, match="Pass mirror=") as refused:
        Journal.open(tmp_path / "a")
    assert refused.value.reason is MirrorReason.NEEDED
    with Journal.open(tmp_path / "a", mirror=False) as journal:
        write(journal)
        with pytest.raises(ValueError, match="has no mirror"):
            journal.wait_mirrored()
    with opened(tmp_path / "a", store) as journal:
        journal.wait_mirrored(timeout_s=TIMEOUT_S)
    assert restore_into(store, tmp_path / "r").lsn == 2
    with JournalReader.open(tmp_path / "a") as reader:
        assert [file.kind for file in reader.files() if file.name == MIRROR] == ["mirror"]
        assert list(reader.verify()) == []


def test_an_unreachable_mirror_delays_the_claim(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With ack="local", the directory of the last writer opens although its mirror is silent. It
    claims at the first contact, and ships nothing before."""
    store = SilentStore()
    with opened(tmp_path / "a", store) as journal:
        write(journal)
    last = look(store).number
    store.fall_silent()
    with opened(tmp_path / "a", store) as journal:
        assert "the journal opens without it" in caplog.text
        write(journal, 2)
        assert max(store._entries) == last
        store.answer()
        journal.wait_mirrored(timeout_s=TIMEOUT_S)
    assert restore_into(store, tmp_path / "r").lsn == 3


def test_an_unreachable_mirror_is_an_error_elsewhere(tmp_path: Path) -> None:
    """A new directory, and any with ack="remote", needs its mirror to open. After
    `open_timeout_s`, the open fails, and leaves no lock."""
    store = SilentStore()
    with opened(tmp_path / "a", store) as journal:
        write(journal)
    store.fall_silent()
    for path, ack in ((tmp_path / "b", "local"), (tmp_path / "a", "remote")):
        for _ in range(2):
            with pytest.raises(MirrorError, match="the store is silent") as refused:
                opened(path, store, ack=ack)
            assert refused.value.reason is MirrorReason.UNREACHABLE


def test_a_writer_that_was_overtaken_before_its_first_contact_stops(tmp_path: Path) -> None:
    """If another writer has claimed while the mirror could not be reached, the first contact stops
    the journal, also if that writer has ended."""
    store = SilentStore()
    with opened(tmp_path / "a", store) as journal:
        write(journal)
    with opened(tmp_path / "b", store) as journal:
        write(journal)
    store.fall_silent()
    journal = opened(tmp_path / "a", store)
    write(journal)
    store.answer()
    with pytest.raises(FencedError):
        journal.wait_mirrored(timeout_s=TIMEOUT_S)
    with pytest.raises(FencedError):
        journal.close()
    assert restore_into(store, tmp_path / "r").lsn == 2


def test_a_rolled_back_directory_without_contact_stops_at_the_first(tmp_path: Path) -> None:
    """If a directory that was opened without contact turns out to lack records of its mirror, the
    journal stops, and the mirror keeps them."""
    store = SilentStore()
    with opened(tmp_path / "a", store) as journal:
        write(journal)
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        journal.wait_mirrored(write(journal), timeout_s=TIMEOUT_S)
    store.fall_silent()
    journal = opened(tmp_path / "b", store)
    store.answer()
    with pytest.raises(FailedError, match="have diverged"):
        journal.wait_mirrored(timeout_s=TIMEOUT_S)
    with pytest.raises(FailedError):
        journal.close()
    assert restore_into(store, tmp_path / "r").lsn == 2


CUTS = [(Attachment, "_note_standing"), (Mirroring, "__init__")]


@pytest.mark.parametrize(("part", "method"), CUTS)
def test_an_open_that_is_cut_off_releases_the_mirror(
    part: type, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an open that a signal handler's exception ended, another writer needs no takeover."""
    store = MemoryStore()

    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(part, method, interrupted)
        with pytest.raises(Interrupted):
            Journal.open(tmp_path / "a", mirror=mirror_of(store))
    Journal.open(tmp_path / "b", mirror=mirror_of(store)).close()


@pytest.mark.parametrize(("part", "method"), CUTS)
def test_an_open_that_is_cut_off_twice_leaves_no_lock(
    part: type, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open that a signal handler's exception ends, while the mirror is attached or its shipper
    is made, frees the directory and closes the store, although another one cuts off the release of
    the mirror."""
    store, closed = MemoryStore(), list[bool]()

    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(part, method, interrupted)
        patch.setattr(Appender, "release", interrupted)
        patch.setattr(store, "close", lambda: closed.append(True))
        with pytest.raises(Interrupted) as raised:
            Journal.open(tmp_path / "a", mirror=mirror_of(store))
    assert raised.tb  # leads to whatever is still open
    assert closed
    with Journal.open(tmp_path / "a", mirror=mirror_of(store)) as journal:
        assert journal.append(1) == 1


OPENS: list[Callable[[Path, str], object]] = [
    lambda path, url: Journal.open(path, mirror=url),
    lambda path, url: follow(url, path),
    lambda path, url: follow(Mirror(url), path),
]


@pytest.mark.parametrize("opens", OPENS)
def test_an_address_that_names_no_store_makes_no_directory(
    opens: Callable[[Path, str], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong address, or one whose package is missing, is refused before the directory is made."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    for url, error in (("http://host/x", ValueError), ("s3://bucket/x", ImportError)):
        with pytest.raises(error, match=r"is not the address|pip install"):
            opens(tmp_path / "a", url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["", "/m", "/../a/m"])
def test_a_mirror_in_the_journals_own_directory_is_refused(where: str, tmp_path: Path) -> None:
    """A mirror that would be lost with the directory is refused, however it is named, by an open
    and a follower, and nothing is made."""
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for path in (tmp_path / "a", tmp_path / "link"):
        for opens in OPENS:
            with pytest.raises(ValueError, match="journal's own directory"):
                opens(tmp_path / "a", f"file://{path}{where}")
    assert not (tmp_path / "a").exists()
    Journal.open(tmp_path / "a", mirror=f"file://{tmp_path}/a2").close()


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    """A takeover needs a mirror, and a mirror is an address or Mirror(...)."""
    with pytest.raises(ValueError, match="takeover=True takes over a mirror"):
        Journal.open(tmp_path / "a", takeover=True)
    with pytest.raises(TypeError, match="mirror must be an address"):
        Journal.open(tmp_path / "a", mirror=7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is not the address of a mirror"):
        Journal.open(tmp_path / "a", mirror="http://example.org/x")
    for name, value in (
        ("ack", "disk"),
        ("interval_s", 0),
        ("keep_s", -1),
        ("lag_bytes_max", 1.5),
        ("open_timeout_s", None),
        ("start_over", 1),
    ):
        with pytest.raises(ValueError, match=name):
            Mirror("file:///m", **{name: value})  # type: ignore[arg-type]


def test_a_mirrors_secrets_are_not_shown() -> None:
    """A mirror's representation has no credentials."""
    assert "secret" not in repr(Mirror("nats://user:secret@host/STREAM"))

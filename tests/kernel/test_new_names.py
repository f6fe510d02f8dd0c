"""Names of new segments: a new segment never takes the name of another file, even a second
writer's."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pytest
from proof.ledger import Ledger

from journal import FailedError, Journal
from journal._disk import syscalls
from journal._disk.disk import Disk
from journal._disk.posix import PosixDirectory, PosixDisk
from journal.testing import Bounds, ManualOptions, Owner, SimulatedDirectory, SimulatedDisk, explore
from tests.crash.test_explorer import commits, compactions, restarts
from tests.support import FIRST, PATH, TIMEOUT_S, logged, open_on, options, put
from tests.tiers import slow_unless

# --- the real disk ---


@pytest.fixture
def directory(tmp_path: Path) -> PosixDirectory:
    return PosixDisk().open_directory(tmp_path.resolve() / "j", write=True)


def put_file(directory: PosixDirectory, name: str, data: bytes) -> None:
    directory.open(name, "create").write(data, 0)


def refusing(code: int) -> Callable[..., int]:
    """Return a system call that fails with this error."""

    def call(*_: object) -> int:
        ctypes.set_errno(code)
        return -1

    return call


UNKNOWN = [errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP]


@pytest.mark.parametrize("code", [None, *UNKNOWN])
def test_a_link_replaces_nothing_where_no_exclusive_rename_exists(
    directory: PosixDirectory, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    """P10: Without an exclusive rename, a new name is a link, which also replaces nothing.

    The C library (None), the kernel or the file system may lack that rename.
    """
    monkeypatch.setattr(syscalls, "_exclusive_rename", lambda: code and refusing(code))
    put_file(directory, "a", b"new")
    put_file(directory, "b", b"older")
    with pytest.raises(FileExistsError) as caught:
        directory.rename_new("a", "b")
    assert (caught.value.filename, caught.value.filename2) == (
        f"{directory.path}/a",
        f"{directory.path}/b",
    )
    directory.rename_new("a", "c")
    assert directory.names() == ["b", "c"]
    assert directory.open("b", "read").read(9, 0) == b"older"
    assert directory.open("c", "read").read(9, 0) == b"new"


def test_a_link_succeeds_even_if_the_older_name_stays(
    directory: PosixDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a link, an older name that can't be removed is a stray `*.tmp`."""

    def unlink(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(syscalls, "_exclusive_rename", lambda: None)
    monkeypatch.setattr(os, "unlink", unlink)
    put_file(directory, "a.tmp", b"new")
    directory.rename_new("a.tmp", "a")
    assert directory.names() == ["a", "a.tmp"]


@pytest.mark.parametrize("code", UNKNOWN)
def test_a_file_system_without_exclusive_names_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """P10: If a name can't be given without replacing another one, nothing is written."""

    def link(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(syscalls, "_exclusive_rename", lambda: refusing(errno.EINVAL))
    monkeypatch.setattr(os, "link", link)
    journal = Journal.open(tmp_path / "j")
    journal.append(1)
    with pytest.raises(FailedError, match="put the journal on a local file system") as caught:
        journal.wait_durable(timeout_s=TIMEOUT_S)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == code
    with pytest.raises(FailedError):
        journal.close()
    assert os.listdir(tmp_path / "j") == ["LOCK"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_any_other_error_of_a_rename_is_raised(
    directory: PosixDirectory, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A failed rename is not repeated as a link."""
    monkeypatch.setattr(syscalls, "_exclusive_rename", lambda: refusing(code))
    put_file(directory, "a", b"new")
    with pytest.raises(OSError, match=r"a.*b") as caught:
        directory.rename_new("a", "b")
    assert caught.value.errno == code
    assert directory.names() == ["a"]


# --- two writers ---


@pytest.fixture(params=["posix", "simulated", "links"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Disk, str]:
    """Return a disk whose locks exclude nobody, and a path on it."""
    monkeypatch.setattr(PosixDirectory, "lock", lambda directory: None)
    monkeypatch.setattr(SimulatedDirectory, "lock", lambda directory: None)
    if request.param == "posix":
        return PosixDisk(), str(tmp_path.resolve() / "j")
    disk = SimulatedDisk()
    disk.links_new_names = request.param == "links"
    return disk, PATH


@pytest.mark.parametrize("durability", ["disk", "os"])
def test_a_second_writer_stops_before_it_replaces_a_segment(
    place: tuple[Disk, str], durability: Literal["disk", "os"]
) -> None:
    """P2, P10: If no lock works, the second writer stops, and names the cause.

    The first writer's acknowledged records stay.
    """
    disk, path = place
    with Journal.open(path, options=options(durability=durability), disk=disk) as first:
        second = Journal.open(path, options=options(durability=durability), disk=disk)
        put(first, "of the first")
        second.append("of the second")
        with pytest.raises(FailedError, match=f"{path}/{FIRST}: .*two writers"):
            second.wait_durable(timeout_s=TIMEOUT_S)
        with pytest.raises(FailedError):
            second.close()
        put(first, "more")
    with Journal.open(path, options=options(), disk=disk) as journal:
        assert logged(journal) == ["of the first", "more"]


@pytest.mark.parametrize("when", ["idle", "roll"])
def test_an_overtaken_writer_stops(place: tuple[Disk, str], when: str) -> None:
    """P10: A writer whose journal another one has opened since then stops: its records would be
    lost.

    It stops when its log goes idle, and before it begins a segment.
    """
    disk, path = place
    with suppress(FailedError), Journal.open(path, options=options(), disk=disk) as first:
        put(first, 1)
        with Journal.open(path, options=options(), disk=disk) as second:
            put(second, "of the second")
        if when == "idle":
            with pytest.raises(FailedError, match=r"two writers"):
                first._core.committer.mark()
        else:
            first.append("x" * 4096)
            with pytest.raises(FailedError, match=r"two writers"):
                first.wait_durable(timeout_s=TIMEOUT_S)
    with Journal.open(path, options=options(), disk=disk) as journal:
        assert logged(journal) == [1, "of the second"]


# --- crashes between the link and the removal of the older name ---


def test_the_older_name_of_a_segment_is_removed_at_open(disk: SimulatedDisk) -> None:
    """P5: If a crash leaves a segment with two names, open removes the `*.tmp` and keeps it."""
    with open_on(disk) as journal:
        put(journal, 1, 2)
    directory = disk.open_directory(PATH, write=True)
    directory._folder.link(directory._find(FIRST), f"{FIRST}.tmp")
    directory.sync()
    with open_on(disk) as journal:
        assert logged(journal) == [1, 2]
        put(journal, 3)
    assert not [name for name in disk.contents(PATH) if name.endswith(".tmp")]
    with open_on(disk) as journal:
        assert logged(journal) == [1, 2, 3]


@pytest.mark.parametrize(
    ("work", "durability"),
    slow_unless(
        lambda work, durability: (work, durability) == (compactions, "disk"),
        product([commits, compactions, restarts], ["disk", "os"]),
    ),
)
def test_every_crash_is_recovered_where_names_are_links(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[Owner[Ledger]], None], durability: Any
) -> None:
    """P1 to P6: Every crash between a link and the removal of the older name is recovered."""
    monkeypatch.setattr(SimulatedDisk, "links_new_names", True)
    bounds = Bounds(outcomes_max=16, recovery_outcomes_max=8)
    limits = ManualOptions(durability=durability, segment_bytes=400, frame_bytes_max=1000)
    report = explore(Ledger, work, options=limits, bounds=bounds)
    assert report.states > 50

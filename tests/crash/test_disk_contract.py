"""The contract of `journal._disk.disk`: the real disk and the simulated one both keep it, and the
real one while a mirror reads it."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable
from os import getpid as pid
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal._disk.disk import Buffer, Directory, Disk, File, FileMode
from journal._disk.posix import PosixDisk
from journal.errors import LockedError, UnsafePathError
from journal.testing import SimulatedDisk
from tests.crash.crash_support import error_of
from tests.mirror.mirrored_disk import MirroredDisk

KINDS = ("posix", "simulated", pytest.param("mirrored", marks=pytest.mark.slow))


class Place(NamedTuple):
    """A disk, the path of a directory that does not exist yet, and the pid that owns the locks."""

    disk: Disk
    path: str
    pid: int


def place_on(kind: str, parent: str) -> Place:
    if kind == "simulated":
        return Place(disk := SimulatedDisk(), f"{parent}/journal", disk.pid)
    return Place(PosixDisk() if kind == "posix" else MirroredDisk(), f"{parent}/journal", pid())


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place_on(request.param, str(tmp_path.resolve()))


@pytest.fixture
def directory(place: Place) -> Directory:
    return place.disk.open_directory(place.path, write=True)


def put(directory: Directory, name: str, data: bytes) -> File:
    file = directory.open(name, "create")
    assert file.write(data, 0) == len(data)
    return file


def content(file: File) -> bytes:
    return file.read(file.size() + 10, 0)


# --- the directory ---


def test_only_an_open_for_writing_makes_a_directory(place: Place) -> None:
    """An open without `write` makes nothing. With `write`, it makes the path's last component."""
    with pytest.raises(FileNotFoundError):
        place.disk.open_directory(place.path, write=False)
    directory = place.disk.open_directory(place.path, write=True)
    assert directory.names() == []
    put(directory, "a", b"1")
    assert place.disk.open_directory(place.path, write=True).names() == ["a"]
    assert place.disk.open_directory(place.path, write=False).names() == ["a"]


def test_all_spellings_of_a_path_open_the_same_directory(place: Place) -> None:
    """`StrPath` is a str or anything that `os.fspath` accepts. Dots and slashes change nothing."""
    put(place.disk.open_directory(place.path, write=True), "a", b"1")
    for path in (
        Path(place.path),
        f"{place.path}/",
        f"{place.path}//",
        f"{place.path}/.",
        f"{place.path}/../journal",
    ):
        directory = place.disk.open_directory(path, write=False)
        assert (directory.names(), directory.path) == (["a"], place.path)


def test_an_empty_path_is_refused(place: Place) -> None:
    """An empty path is a mistake of the caller. It does not mean the working directory."""
    with pytest.raises(FileNotFoundError):
        place.disk.open_directory("", write=True)


def test_names_are_sorted(directory: Directory) -> None:
    """`names` lists every entry in sorted order, in whatever order the entries were made."""
    for name in ("b", "c.tmp", "a", "B"):
        put(directory, name, b"")
    assert directory.names() == ["B", "a", "b", "c.tmp"]


def test_paths_are_absolute(place: Place, directory: Directory) -> None:
    """The `path` of a directory and of a file is absolute, for messages."""
    assert directory.path == place.path
    assert put(directory, "a", b"").path == f"{place.path}/a"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "../journal/a"])
def test_names_are_never_paths(directory: Directory, name: str) -> None:
    """P9: No name leads out of the directory or into a subdirectory."""
    put(directory, "a", b"1")
    calls: list[Callable[[], object]] = [
        lambda: directory.open(name, "read"),
        lambda: directory.open(name, "create"),
        lambda: directory.rename(name, "b"),
        lambda: directory.rename("a", name),
        lambda: directory.rename_new(name, "b"),
        lambda: directory.rename_new("a", name),
        lambda: directory.remove(name),
    ]
    for call in calls:
        with pytest.raises(UnsafePathError):
            call()
    assert directory.names() == ["a"]


@pytest.mark.parametrize("mode", ["read", "update"])
def test_opening_a_missing_file_does_not_create_it(directory: Directory, mode: FileMode) -> None:
    """Only mode `create` makes a file. The error of the other modes names the missing file."""
    with pytest.raises(FileNotFoundError) as caught:
        directory.open("a", mode)
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == f"{directory.path}/a"
    assert directory.names() == []


def test_create_makes_only_new_files(directory: Directory) -> None:
    """Mode `create` opens a new, empty file for reading and writing, and never an existing one."""
    file = directory.open("a", "create")
    assert (file.size(), directory.names()) == (0, ["a"])
    file.write(b"xyz", 0)
    assert content(file) == b"xyz"
    with pytest.raises(FileExistsError):
        directory.open("a", "create")
    assert content(directory.open("a", "read")) == b"xyz"


def test_a_file_opened_for_reading_cannot_be_changed(directory: Directory) -> None:
    """Mode `read` only reads. Mode `update` also writes."""
    put(directory, "a", b"xyz")
    file = directory.open("a", "read")
    assert error_of(lambda: file.write(b"-", 0)) == errno.EBADF
    assert error_of(lambda: file.truncate(1)) in (errno.EBADF, errno.EINVAL)
    assert content(file) == b"xyz"
    directory.open("a", "update").write(b"-", 1)
    assert content(file) == b"x-z"


def test_rename_replaces_the_new_name(directory: Directory) -> None:
    """After `rename`, the new name refers to the old file. The replaced file has no name."""
    put(directory, "a", b"old")
    replaced = put(directory, "b", b"replaced")
    directory.rename("a", "b")
    assert directory.names() == ["b"]
    assert content(directory.open("b", "read")) == b"old"
    assert not replaced.is_linked()
    directory.rename("b", "c")
    assert directory.names() == ["c"]
    with pytest.raises(FileNotFoundError):
        directory.rename("b", "c")
    assert content(directory.open("c", "read")) == b"old"


def test_rename_new_replaces_nothing(directory: Directory) -> None:
    """P10: `rename_new` gives a file a free name. If the name is taken, it changes nothing."""
    file = put(directory, "a", b"new")
    put(directory, "b", b"older")
    with pytest.raises(FileExistsError) as caught:
        directory.rename_new("a", "b")
    assert caught.value.filename2 == f"{directory.path}/b"
    assert content(directory.open("b", "read")) == b"older"
    directory.rename_new("a", "c")
    assert (directory.names(), file.is_linked()) == (["b", "c"], True)
    with pytest.raises(FileNotFoundError):
        directory.rename_new("a", "d")


def test_remove_removes_a_name(directory: Directory) -> None:
    """`remove` removes a name once. A file that is open can still be read."""
    file = put(directory, "a", b"1")
    directory.remove("a")
    assert directory.names() == []
    assert content(file) == b"1"
    with pytest.raises(FileNotFoundError) as caught:
        directory.remove("a")
    assert caught.value.filename == f"{directory.path}/a"


def test_is_linked_follows_the_file(directory: Directory) -> None:
    """`is_linked` follows the file, not the name by which it was opened."""
    file = put(directory, "a", b"1")
    assert file.is_linked()
    directory.rename("a", "b")
    put(directory, "a", b"another")
    assert file.is_linked()
    directory.remove("b")
    assert not file.is_linked()


def test_a_closed_directory_refuses_every_use(directory: Directory) -> None:
    """Closing a directory again does nothing. Every other use of it raises OSError."""
    put(directory, "a", b"1")
    directory.close(unlock=True)
    directory.close(unlock=True)
    directory.close(unlock=False)
    uses: list[Callable[[], object]] = [
        directory.names,
        directory.sync,
        directory.lock,
        lambda: directory.open("a", "read"),
        lambda: directory.remove("a"),
    ]
    assert [error_of(use) for use in uses] == [errno.EBADF] * len(uses)


# --- the lock ---


def test_one_writer_holds_the_lock(place: Place, directory: Directory) -> None:
    """P10: A second lock raises LockedError at once, with the holder's pid. A close releases it."""
    other = place.disk.open_directory(place.path, write=True)
    directory.lock()
    directory.lock()  # this handle already has the lock
    with pytest.raises(LockedError) as caught:
        other.lock()
    assert caught.value.pid == place.pid
    assert place.path in str(caught.value)
    directory.close(unlock=True)
    other.lock()
    with pytest.raises(LockedError):
        place.disk.open_directory(place.path, write=True).lock()


def test_the_lock_holder_is_known_without_taking_the_lock(
    place: Place, directory: Directory
) -> None:
    """`lock_holder` names the holder from any handle, and never blocks a writer."""
    other = place.disk.open_directory(place.path, write=False)
    assert (directory.lock_holder(), other.lock_holder()) == (None, None)
    directory.lock()
    assert (directory.lock_holder(), other.lock_holder()) == (place.pid, place.pid)
    directory.close(unlock=True)
    assert other.lock_holder() is None


def test_the_lock_belongs_to_the_directory(place: Place, directory: Directory) -> None:
    """No file is the lock, so removing every name keeps it. Another directory has its own."""
    directory.lock()
    put(directory, "LOCK", b"")
    directory.remove("LOCK")
    other = place.disk.open_directory(place.path, write=True)
    with pytest.raises(LockedError):
        other.lock()
    elsewhere = place.disk.open_directory(f"{place.path}2", write=True)
    assert elsewhere.lock_holder() is None
    elsewhere.lock()


def test_closing_another_handle_keeps_the_lock(place: Place, directory: Directory) -> None:
    """A handle that never had the lock can't release it."""
    directory.lock()
    place.disk.open_directory(place.path, write=True).close(unlock=True)
    with pytest.raises(LockedError):
        place.disk.open_directory(place.path, write=True).lock()


# --- files ---


def test_read_is_short_only_at_the_end(directory: Directory) -> None:
    """`read` returns `size` bytes at `offset`, fewer at the end of the file, and none after it."""
    file = put(directory, "a", b"0123456789")
    assert file.read(4, 3) == b"3456"
    assert file.read(4, 8) == b"89"
    assert file.read(4, 10) == file.read(4, 99) == file.read(0, 2) == b""


@pytest.mark.parametrize("buffer", [b"abc", bytearray(b"abc"), memoryview(b"xabcx")[1:4]])
def test_write_takes_any_buffer_at_any_offset(directory: Directory, buffer: Buffer) -> None:
    """`write` writes at the given offset, never at the end by itself, and returns its size."""
    file = put(directory, "a", b"0123456789")
    assert file.write(buffer, 2) == 3
    assert content(file) == b"01abc56789"
    assert file.write(buffer, 9) == 3
    assert content(file) == b"01abc5678abc"
    assert file.write(buffer, 14) == 3
    assert content(file) == b"01abc5678abc\0\0abc"
    assert file.write(b"", 30) == 0
    assert file.size() == 17


def test_truncate_cuts_and_grows(directory: Directory) -> None:
    """`truncate` cuts a file or extends it with zeros. Bytes that were cut do not come back."""
    file = put(directory, "a", b"0123456789")
    file.truncate(4)
    assert content(file) == b"0123"
    file.truncate(6)
    assert content(file) == b"0123\0\0"
    file.truncate(0)
    assert content(file) == b""


def test_allocate_grows_with_zeros(directory: Directory) -> None:
    """`allocate` changes no existing byte, and adds zeros at most up to the given size."""
    file = put(directory, "a", b"0123")
    file.allocate(8192)
    assert 4 <= file.size() <= 8192
    assert content(file) == b"0123".ljust(file.size(), b"\0")
    size = file.size()
    file.allocate(2)
    assert file.size() == size


def test_handles_share_the_contents_of_a_file(directory: Directory) -> None:
    """Bytes that one handle writes are read by another at once, synced or not."""
    file = put(directory, "a", b"0123")
    other = directory.open("a", "read")
    file.write(b"-", 1)
    assert content(other) == b"0-23"


def test_sync_and_drop_cache_do_not_change_contents(directory: Directory) -> None:
    """A file reads the same after a sync and after its cached pages were dropped.

    A file that is open only for reading can be synced too.
    """
    file = put(directory, "a", b"0123")
    file.drop_cache()
    assert content(file) == b"0123"
    file.sync()
    directory.sync()
    reader = directory.open("a", "read")
    reader.sync()
    reader.drop_cache()
    assert content(reader) == b"0123"


def test_a_closed_file_refuses_every_use(directory: Directory) -> None:
    """Closing a file again does nothing. Every other use raises OSError, and the file stays."""
    file = put(directory, "a", b"0123")
    file.close()
    file.close()
    uses: list[Callable[[], object]] = [
        file.sync,
        file.size,
        file.is_linked,
        lambda: file.read(1, 0),
        lambda: file.write(b"-", 0),
        lambda: file.truncate(0),
    ]
    assert [error_of(use) for use in uses] == [errno.EBADF] * len(uses)
    assert content(directory.open("a", "read")) == b"0123"


OFFSETS = st.integers(0, 40)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), OFFSETS, st.binary(max_size=12)),
        st.tuples(st.sampled_from(["truncate", "allocate", "sync", "drop"]), OFFSETS, st.just(b"")),
    ),
    max_size=12,
)


@pytest.mark.parametrize("kind", KINDS)
@given(steps=STEPS)
def test_a_file_behaves_like_an_array_of_bytes(
    kind: str, steps: list[tuple[str, int, bytes]]
) -> None:
    """After any calls, a file reads like a plain array of bytes after the same calls."""
    with tempfile.TemporaryDirectory() as parent:
        place = place_on(kind, parent)
        file = place.disk.open_directory(place.path, write=True).open("a", "create")
        model = bytearray()
        for step, offset, data in steps:
            if step == "write":
                assert file.write(data, offset) == len(data)
                model = model.ljust(offset if data else 0, b"\0")
                model[offset : offset + len(data)] = data
            elif step == "truncate":
                file.truncate(offset)
                model = model[:offset].ljust(offset, b"\0")
            elif step == "allocate" and offset:
                file.allocate(offset)
                assert len(model) <= file.size() <= max(len(model), offset)
                model = model.ljust(file.size(), b"\0")
            elif step == "sync":
                file.sync()
            elif step == "drop":
                file.drop_cache()
            assert (file.size(), content(file)) == (len(model), bytes(model))


# --- clock and ids ---


def test_the_clock_is_in_nanoseconds_since_the_epoch(place: Place) -> None:
    """`now_ns` is a time of this century, and does not decrease."""
    first = place.disk.now_ns()
    assert 1_600_000_000 * 10**9 < first <= place.disk.now_ns() < 4_000_000_000 * 10**9


def test_ids_are_sixteen_bytes_and_differ(place: Place) -> None:
    """`new_id` never returns the same 16 bytes twice."""
    ids = {place.disk.new_id() for _ in range(100)}
    assert len(ids) == 100
    assert {len(each) for each in ids} == {16}

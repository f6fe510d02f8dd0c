"""Arguments of a wrong type or value: each error names the argument and the value, and nothing is
left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import nan
from pathlib import Path
from typing import Any

import pytest

from journal import (
    DurableDict,
    DurableState,
    Journal,
    JournalReader,
    Tables,
    backup,
    follow,
    put_back,
    read_salvaged,
    reappend,
    repair,
)
from journal.testing import SimulatedDisk
from tests.support import PATH, Table, frozen, open_on, put

Call = Callable[[Any], object]


class BytesPath:
    """An object whose path is bytes, as that of an `os.DirEntry` may be."""

    def __fspath__(self) -> bytes:
        return b"j"

    def __repr__(self) -> str:
        return "BytesPath()"


# --- paths ---

OPENS: dict[str, Call] = {
    "Journal.open": Journal.open,
    "DurableState.open": lambda path: DurableState.open(path, Table()),
    "Tables.open": Tables.open,
    "DurableDict.open": DurableDict.open,
    "Tables.read": Tables.read,
    "JournalReader.open": JournalReader.open,
    "repair": repair,
    "repair, applied": lambda path: repair(path, apply=True),
    "backup": lambda path: backup(path, "copy"),
    "read_salvaged": lambda path: list(read_salvaged(path)),
    "reappend": reappend,
    "put_back": put_back,
}
NO_PATHS: list[tuple[object, type[Exception], str]] = [
    (b"x", TypeError, r"must be a str or a path object, not b'x'$"),
    (None, TypeError, r"must be a str or a path object, not None$"),
    (5, TypeError, r"must be a str or a path object, not 5$"),
    (BytesPath(), TypeError, r"must be a str or a path object, not BytesPath\(\)$"),
    ("a\0b", ValueError, r"must be a path without NUL, not 'a\\x00b'$"),
    ("a\0/b", ValueError, r"must be a path without NUL, not 'a\\x00/b'$"),
    (Path("a\0b"), ValueError, r"must be a path without NUL, not PosixPath\('a\\x00b'\)$"),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a new current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("call", OPENS)
@pytest.mark.parametrize(("path", "kind", "message"), NO_PATHS, ids=repr)
def test_an_object_that_is_no_path_is_refused(
    call: str, path: object, kind: type[Exception], message: str, place: Path
) -> None:
    """A path of another type, or one with NUL, is named in the error, and nothing is made."""
    with pytest.raises(kind, match=f"^path {message}"):
        OPENS[call](path)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(("path", "kind", "message"), NO_PATHS, ids=repr)
def test_a_backup_names_its_other_path(
    path: object, kind: type[Exception], message: str, place: Path
) -> None:
    """A backup refuses a wrong `dest` by that name."""
    calls: list[Call] = [lambda dest: backup("j", dest)]
    with Journal.open("j") as journal:
        calls.append(journal.backup)
        for call in calls:
            with pytest.raises(kind, match=f"^dest {message}"):
                call(path)
    assert list(place.iterdir()) == [place / "j"]


# --- repair ---

REPAIR_OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"cut_at": True}, TypeError, r"cut_at must be an LSN, a whole number, not True"),
    ({"cut_at": "1"}, TypeError, r"cut_at must be an LSN, a whole number, not '1'"),
    ({"cut_at": 1.0}, TypeError, r"cut_at must be an LSN, a whole number, not 1\.0"),
    ({"cut_at": -1}, ValueError, r"cut_at must be an LSN, at least 0, not -1"),
    ({"apply": "no"}, TypeError, r"apply must be True or False, not 'no'"),
    ({"apply": None}, TypeError, r"apply must be True or False, not None"),
    ({"salvage": 1}, TypeError, r"salvage must be True or False, not 1"),
    ({"save_to": 5}, TypeError, r"save_to must be a str or a path object, not 5"),
    ({"save_to": b"x"}, TypeError, r"save_to must be a str or a path object, not b'x'"),
    ({"save_to": "a\0"}, ValueError, r"save_to must be a path without NUL, not 'a\\x00'"),
]


@pytest.mark.parametrize("apply", [False, True])
@pytest.mark.parametrize(("options", "kind", "message"), REPAIR_OPTIONS, ids=repr)
def test_a_repair_refuses_a_wrong_argument(
    options: dict[str, Any], kind: type[Exception], message: str, apply: bool, disk: SimulatedDisk
) -> None:
    """A repair checks the types of its arguments first, and changes nothing."""
    with open_on(disk) as journal:
        put(journal, 1, 2, 3)
    before = disk.contents(PATH)
    with pytest.raises(kind, match=f"^{message}$"):
        repair(PATH, disk=disk, **{"apply": apply, **options})
    assert disk.contents(PATH) == before


# --- follow ---

FOLLOWS: list[tuple[object, dict[str, Any], type[Exception], str]] = [
    (
        Path("m"),
        {},
        TypeError,
        r"mirror must be an address or Mirror\(\.\.\.\), not PosixPath\('m'\)",
    ),
    (None, {}, TypeError, r"mirror must be an address or Mirror\(\.\.\.\), not None"),
    (False, {}, TypeError, r"mirror must be an address or Mirror\(\.\.\.\), not False"),
    (5, {}, TypeError, r"mirror must be an address or Mirror\(\.\.\.\), not 5"),
    (b"m", {}, TypeError, r"mirror must be an address or Mirror\(\.\.\.\), not b'm'"),
    ("mirror", {"poll_s": None}, TypeError, r"poll_s must be a number from 0\.001 .*, not None"),
    ("mirror", {"poll_s": True}, TypeError, r"poll_s must be a number from 0\.001 .*, not True"),
    ("mirror", {"poll_s": "1"}, TypeError, r"poll_s must be a number from 0\.001 .*, not '1'"),
    ("mirror", {"poll_s": nan}, ValueError, r"poll_s must be a number from 0\.001 .*, not nan"),
    ("mirror", {"poll_s": 0}, ValueError, r"poll_s must be a number from 0\.001 .*, not 0"),
]


@pytest.mark.parametrize(("mirror", "options", "kind", "message"), FOLLOWS, ids=repr)
def test_follow_refuses_a_wrong_argument(
    mirror: Any, options: dict[str, Any], kind: type[Exception], message: str, place: Path
) -> None:
    """`follow` checks the mirror as an open does, and the time between two polls, and makes no
    directory."""
    if mirror == "mirror":
        mirror = (place / mirror).as_uri()
    with pytest.raises(kind, match=f"^{message}$"):
        follow(mirror, "new.d", **options)
    if not options and mirror:
        with pytest.raises(kind, match=f"^{message}$"):
            Journal.open("new.d", mirror=mirror)
    assert list(place.iterdir()) == []


# --- compaction ---


def generator() -> Iterator[tuple[int, list[Any]]]:
    yield 0, []


async def coroutine() -> tuple[int, list[Any]]:
    return 0, []


class LaterFreeze:
    """A callable object and a method that a compaction would have to await."""

    async def __call__(self) -> tuple[int, list[Any]]:
        return 0, []

    def items(self) -> Iterator[tuple[int, list[Any]]]:
        yield 0, []


NO_FREEZES: list[tuple[object, str]] = [
    ((3, ["state"]), r"freeze must be a function .*, not \(3, \['state'\]\)"),
    (None, r"freeze must be a function that returns an LSN and items, not None"),
    (generator, "freeze must be a plain function, not a generator function: calling <function .*"),
    (coroutine, "freeze must be a plain function, not an async function: calling <function .*"),
    (partial(coroutine), "freeze must be a plain function, not an async function: .*partial.*"),
    (LaterFreeze(), "freeze must be a plain function, not an async function: .*"),
    (LaterFreeze().items, "freeze must be a plain function, not a generator function: .*"),
]


@pytest.mark.parametrize(("freeze", "message"), NO_FREEZES)
def test_a_freeze_that_cant_be_called_is_refused(
    freeze: Any, message: str, disk: SimulatedDisk
) -> None:
    """A compaction refuses at once what its thread could not call, and starts nothing."""
    with open_on(disk) as journal:
        put(journal, 1)
        calls: list[Call] = [journal.start_compaction, journal.compact]
        for call in calls[: 1 if freeze is None else 2]:
            with pytest.raises(TypeError, match=f"^{message}$"):
                call(freeze)
        assert journal.stats().compaction_failures == 0
        journal.start_compaction(frozen(journal))  # none has been started
        assert journal.compact().lsn == 1


# --- observers ---


class Committed:
    """An observer of commits alone. It is told of no other event."""

    def __init__(self) -> None:
        self.records = 0

    def committed(self, records: int, size_bytes: int, sync_ns: int) -> None:
        self.records += records


NO_OBSERVERS: list[tuple[object, str]] = [
    (
        Committed,
        r"observer must be an instance, such as Committed\(\), and no class, not <class .*",
    ),
    (None, "observer must have the methods of Observer, not None"),
    (5, "observer must have the methods of Observer, not 5"),
    (print, "observer must have the methods of Observer, not <built-in function print>"),
]


@pytest.mark.parametrize(("observer", "message"), NO_OBSERVERS)
def test_an_object_that_observes_nothing_is_refused(
    observer: Any, message: str, disk: SimulatedDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """A class, or an object without any method of an observer, is refused at once, and called at no
    event. An observer that lacks some of the methods is not refused."""
    partial_observer: Any = Committed()
    with open_on(disk) as journal:
        with pytest.raises(TypeError, match=f"^{message}$"):
            journal.observe(observer)
        journal.observe(partial_observer)
        put(journal, 1)
    assert (partial_observer.records, caplog.records) == (1, [])


# --- LSNs ---

NO_LSNS: list[tuple[object, type[Exception], str]] = [
    ("1", TypeError, "must be an LSN, a whole number, not '1'"),
    (0.5, TypeError, r"must be an LSN, a whole number, not 0\.5"),
    (1.0, TypeError, r"must be an LSN, a whole number, not 1\.0"),
    (nan, TypeError, "must be an LSN, a whole number, not nan"),
    (True, TypeError, "must be an LSN, a whole number, not True"),
    (-1, ValueError, "must be an LSN, at least 0, not -1"),
]


@pytest.mark.parametrize(("lsn", "kind", "message"), NO_LSNS, ids=repr)
def test_a_read_refuses_what_is_no_lsn(
    lsn: Any, kind: type[Exception], message: str, disk: SimulatedDisk
) -> None:
    """The reads of a journal and of a reader name the argument that is no LSN."""
    with open_on(disk) as journal:
        put(journal, 1, 2, 3)
        with pytest.raises(kind, match=f"^after {message}$"):
            journal.replay(lsn)
    with JournalReader.open(PATH, disk=disk) as reader:
        for read in (reader.entries, reader.records, reader.frames):
            with pytest.raises(kind, match=f"^after {message}$"):
                list(read(lsn))
        for options in ({}, {"oldest": True}):
            with pytest.raises(kind, match=f"^at {message}$"):
                reader.base(lsn, **options)


NO_COUNTS: list[tuple[object, type[Exception]]] = [
    (nan, TypeError),
    (1.5, TypeError),
    ("1", TypeError),
    (True, TypeError),
    (-1, ValueError),
]


@pytest.mark.parametrize(("last", "kind"), NO_COUNTS, ids=repr)
def test_a_number_of_entries_is_checked(
    last: Any, kind: type[Exception], disk: SimulatedDisk
) -> None:
    """`entries` names a `last` that is no number of entries."""
    with open_on(disk) as journal:
        put(journal, 1, 2, 3)
    message = rf"^last must be a number of entries, at least 0, not {last!r}$"
    with JournalReader.open(PATH, disk=disk) as reader, pytest.raises(kind, match=message):
        list(reader.entries(last=last))

"""Exceptions of signal handlers in calls that use a mirror.

CPython runs a handler between two bytecodes of the main thread. Here a trace function takes its
place, and raises at each line that a call runs in its caller's thread.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

import journal
from journal import (
    Follower,
    Journal,
    JournalError,
    follow,
    mirror_info,
    reappend,
    restore,
    verify_mirror,
)
from journal._mirror.jetstream_store import JetStreamStore
from journal._mirror.store import UnreachableError
from journal._mirror.urls import open_store
from tests.installed import import_package
from tests.mirror.servers import make_stream
from tests.support import Interrupted, interrupt_after, until
from tests.tiers import slow_unless

PACKAGE = Path(journal.__file__).parent
SWEPT = ("_mirror/", "_disk/mounts.py", "_engine/follower.py", "_engine/reappending.py")
SOON_S = 0.05
LONG_S = 30.0
_copies = count(1)

Line = tuple[str, int]


class HandlerError(  # of each type that a mirror's own calls raise
    FileExistsError,
    FileNotFoundError,
    JournalError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
):
    pass


@contextmanager
def _traced(at_line: Callable[[Line], None]) -> Iterator[None]:
    """Call `at_line` before each line of the swept files that this thread runs."""

    def trace(frame: FrameType, event: str, _: object) -> Any:
        path = frame.f_code.co_filename
        name = path.removeprefix(f"{PACKAGE}/")
        if name == path or not name.startswith(SWEPT):
            return None
        if event == "line":
            at_line((name, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def _lines(call: Callable[[], object]) -> list[Line]:
    """Return the lines that a call runs, in the order in which it comes to them."""
    lines: dict[Line, None] = {}
    with _traced(lambda line: lines.setdefault(line)):
        opened: Any = call()
    if opened is not None:
        opened.close()
    return [*lines]


def _interrupted(call: Callable[[], object], line: Line) -> str:
    """Make a call, and raise in it at the first run of a line. Return what became of that.

    An exception of a trace function at the end of an `except` block leaves the thread with
    an exception that it still handles (CPython 3.11). So each call has a thread of its own.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_interrupted_here, call, line).result()


def _interrupted_here(call: Callable[[], object], line: Line) -> str:
    raised: list[HandlerError] = []

    def at_line(reached: Line) -> None:
        if reached == line and not raised:
            raised.append(HandlerError(errno.ENOENT, "the handler's"))
            raise raised[0]

    opened: Any = None
    try:
        with _traced(at_line):
            opened = call()
    except BaseException as error:
        return "raised" if raised and error is raised[0] else f"replaced by {error!r}"
    finally:
        if opened is not None:
            opened.close()
        until(lambda: not _threads(), "the end of all threads")
    return "swallowed" if raised else "not reached"


def _threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("journal-")]


def _restart(here: Path, url: str) -> Journal:
    return Journal.open(here / "a", mirror=url)


def _fetch(here: Path, url: str) -> Journal:
    return Journal.open(here / "snapshot", mirror=url)


def _put_aside(here: Path, url: str) -> Journal:
    return Journal.open(here / "fork", mirror=url)


def _follow(here: Path, url: str) -> Follower:
    return follow(url, here / "snapshot")


def _reappend(here: Path, url: str) -> None:
    reappend(here / "aside")


def _restore(here: Path, url: str) -> None:
    restore(url, here / "restored", at="2099-01-01")


def _verify(here: Path, url: str) -> None:
    list(verify_mirror(url))


def _info(here: Path, url: str) -> None:
    mirror_info(url)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a mirror, its journal, an old snapshot of it, a fork, and a directory
    that was put aside."""
    here = tmp_path_factory.mktemp("made")
    url = (here / "mirror").as_uri()
    for number in range(2):
        with Journal.open(here / "a", mirror=url) as opened:
            opened.append(number)
        if not number:
            for name in ("snapshot", "fork", "other"):
                shutil.copytree(here / "a", here / name)
    for name in ("fork", "other"):
        with Journal.open(here / name, mirror=False) as opened:
            opened.append("other")
    Journal.open(here / "other", mirror=url).close()
    (aside,) = here.glob("other.aside-*")
    aside.rename(here / "aside")
    return here


@pytest.mark.parametrize(
    "call",
    slow_unless(
        lambda call: call in (_info, _reappend),
        [_info, _reappend, _restart, _fetch, _put_aside, _follow, _restore, _verify],
    ),
)
def test_a_call_raises_the_error_of_a_signal_handler(
    call: Callable[[Path, str], object], made: Path, tmp_path: Path
) -> None:
    """A handler's exception is never swallowed, taken for an error of the disk or the store, or
    replaced, whatever its type is."""

    def fresh_call() -> Callable[[], object]:
        here = tmp_path / str(next(_copies))
        shutil.copytree(made, here)
        return lambda: call(here, (here / "mirror").as_uri())

    _lines(fresh_call())  # imports what it needs
    lines = _lines(fresh_call())
    assert len(lines) > 30
    outcomes = {line: _interrupted(fresh_call(), line) for line in lines}
    others = {line: outcome for line, outcome in outcomes.items() if outcome != "raised"}
    # Other threads decide whether some lines are reached.
    assert set(others.values()) <= {"not reached"}, others


def test_a_request_to_nats_raises_the_error_of_a_signal_handler(
    nats_address: str, fresh_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler's exception ends the wait for a request, and is no failure of the request. One in a
    close leaves no thread, and no request that waits."""
    import_package("nats")
    make_stream(nats_address, fresh_name)
    store = open_store(f"nats://{nats_address}/{fresh_name}")
    assert isinstance(store, JetStreamStore)
    has_begun = threading.Event()

    async def hang() -> None:
        has_begun.set()
        await asyncio.sleep(LONG_S)

    with pytest.raises(Interrupted), interrupt_after(SOON_S):
        store._call("hang", hang)
    has_begun.clear()
    close = store._client.close

    async def close_slowly() -> None:
        await asyncio.sleep(2 * SOON_S)
        await close()

    monkeypatch.setattr(store._client, "close", close_slowly)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(store._call, "hang", hang)
        assert has_begun.wait(LONG_S)
        with pytest.raises(Interrupted), interrupt_after(SOON_S):
            store.close()
        with pytest.raises(UnreachableError):
            other.result(LONG_S / 2)
    store.close()
    assert not _threads()


def test_a_close_of_nats_that_was_cut_off_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a close that was cut off when the thread had begun to close the connection, the next
    one lets it finish: no request waits forever, and no later one is begun."""
    nats = ModuleType("nats")
    monkeypatch.setitem(sys.modules, "nats", nats)
    has_begun, is_closing, may_close = (threading.Event() for _ in range(3))

    async def close() -> None:
        is_closing.set()
        while not may_close.is_set():
            await asyncio.sleep(0)

    async def done(_: object, *arguments: object) -> None:
        pass

    client = SimpleNamespace(jetstream=lambda timeout: None, close=close, is_closed=False)
    made = ModuleType("jetstream_client")
    vars(made)["JetStreamClient"] = lambda: client
    monkeypatch.setitem(sys.modules, "journal._mirror.jetstream_client", made)
    for name in ("_connect", "_check_stream", "_open_bucket"):
        monkeypatch.setattr(JetStreamStore, name, done)
    names = "NotFoundError", "AuthorizationError", "ServiceUnavailableError"
    errors = SimpleNamespace(**dict.fromkeys(names, LookupError))
    store = JetStreamStore("nats://host/STREAM", ["nats://host"], "STREAM", LONG_S, LONG_S)
    store._nats = cast("Any", SimpleNamespace(errors=errors, js=SimpleNamespace(errors=errors)))
    call = store._loop.call_soon_threadsafe

    def interrupted(*arguments: Any) -> Any:
        call(*arguments)
        raise Interrupted

    def closed(*arguments: Any) -> Any:
        handle = call(*arguments)
        call(may_close.set)
        return handle

    async def hang() -> None:
        has_begun.set()
        await asyncio.sleep(LONG_S)

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(store._call, "hang", hang)
        assert has_begun.wait(LONG_S)
        monkeypatch.setattr(store._loop, "call_soon_threadsafe", interrupted)
        with pytest.raises(Interrupted):
            store.close()
        assert is_closing.wait(LONG_S)
        with pytest.raises(UnreachableError, match="the store is closed"):
            store._call("begin", hang)
        monkeypatch.setattr(store._loop, "call_soon_threadsafe", closed)
        store.close()
        with pytest.raises(UnreachableError):
            other.result(LONG_S / 2)
    assert not _threads()

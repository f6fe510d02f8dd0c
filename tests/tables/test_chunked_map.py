"""ChunkedMap: an ordered map of chunks that nobody sees change."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from journal import FailedError, InterruptedCallError
from journal._tables import chunked_map
from journal._tables.chunked_map import Chunk, ChunkedMap, rows_between, rows_of
from tests.support import TIMEOUT_S

KEYS = st.integers(0, 40).map(lambda number: b"%02d" % number)
VALUES = st.binary(max_size=3)


class MapMachine(RuleBasedStateMachine):
    """A map with chunks of at most 8 keys, compared with a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.map = ChunkedMap()
        self.model: dict[bytes, bytes] = {}
        self.held: list[tuple[list[Chunk], list[tuple[bytes, bytes]]]] = []
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(chunked_map, "CHUNK_KEYS_MAX", 8)
        self.patch.setattr(chunked_map, "_CHUNK_KEYS_MIN", 2)

    def teardown(self) -> None:
        self.patch.undo()

    @rule(key=KEYS, value=VALUES)
    def put(self, key: bytes, value: bytes) -> None:
        self.map.put(key, value)
        self.model[key] = value
        assert self.map.get(key) is value

    @rule(key=KEYS)
    def remove(self, key: bytes) -> None:
        if key in self.model:
            self.map.remove(key)
            del self.model[key]
        else:
            with pytest.raises(KeyError):
                self.map.remove(key)

    @rule(count=st.integers(0, 20), value=VALUES)
    def append_sorted(self, count: int, value: bytes) -> None:
        last = self.map.last_key() or b""
        keys = [last + b"%02d" % number for number in range(1, count + 1)]
        self.map.append_sorted(keys, [value] * count)
        self.model.update(dict.fromkeys(keys, value))

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert self.map.get(key) == self.model.get(key)

    @rule(start=KEYS, stop=st.none() | KEYS, reverse=st.booleans())
    def range(self, start: bytes, stop: bytes | None, reverse: bool) -> None:
        chunks = self.map.chunks_between(start, stop)
        expected = sorted(
            (
                (key, value)
                for key, value in self.model.items()
                if start <= key and (stop is None or key < stop)
            ),
            reverse=reverse,
        )
        assert list(rows_between(chunks, start, stop, reverse=reverse)) == expected

    @rule()
    def hold(self) -> None:
        self.held.append((self.map.chunks_between(), sorted(self.model.items())))

    @invariant()
    def held_chunks_stay(self) -> None:
        for chunks, rows in self.held:
            assert list(rows_between(chunks, b"", None)) == rows

    @invariant()
    def rows_are_the_models(self) -> None:
        assert len(self.map) == len(self.model)
        chunks = self.map.chunks_between()
        assert list(rows_between(chunks, b"", None)) == sorted(self.model.items())
        assert all(0 < len(rows_of(chunk)[0]) <= 8 for chunk in chunks) or len(chunks) == 1
        assert self.map.last_key() == max(self.model, default=None)


TestMap = MapMachine.TestCase


def test_inserted_keys_are_in_order() -> None:
    """A key that is set between others is read between them."""
    rows = ChunkedMap()
    for key in (b"1", b"5", b"3", b"7"):
        rows.put(key, key)
    assert (rows.first_key(), rows.last_key()) == (b"1", b"7")
    chunks = rows.chunks_between()
    for start, stop, expected in (b"", None, b"1357"), (b"2", b"6", b"35"), (b"5", None, b"57"):
        for keys in expected, expected[::-1]:
            found = rows_between(chunks, start, stop, reverse=keys is not expected)
            assert b"".join(key for key, _ in found) == keys


@given(st.lists(KEYS, unique=True))
def test_ascending_keys_fill_their_chunks(keys: list[bytes]) -> None:
    """Rows that arrive in order take the fewest chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked_map, "CHUNK_KEYS_MAX", 4)
        rows = ChunkedMap()
        for key in sorted(keys):
            rows.put(key, b"")
        assert len(rows.chunks_between()) == max(1, -(-len(keys) // 4))


def test_a_lookup_beside_splits_and_merges_finds_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lookup without a lock finds a key that stays, and never one that was not set, while
    the chunks around them are split and merged."""
    monkeypatch.setattr(chunked_map, "CHUNK_KEYS_MAX", 4)
    monkeypatch.setattr(chunked_map, "_CHUNK_KEYS_MIN", 2)
    rows = ChunkedMap()
    kept = [b"%04d" % number for number in range(0, 400, 10)]
    for key in kept:
        rows.put(key, key)
    done = threading.Event()
    wrong: list[bytes] = []

    def look_up() -> None:
        while not done.is_set():
            wrong.extend(key for key in kept if rows.get(key) is not key)
            wrong.extend(key for key in kept if rows.get(key + b"x") is not None)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=look_up) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        for _ in range(20):
            others = [b"%04d" % number for number in range(400) if number % 10]
            for key in others:
                rows.put(key, key)
            for key in others:
                rows.remove(key)
    finally:
        done.set()
        for thread in threads:
            thread.join(TIMEOUT_S)
        sys.setswitchinterval(interval)
    assert wrong == []


class InterruptingList(list[bytes]):
    """A list whose change is interrupted."""

    def __init__(self, items: list[bytes], interrupt: Callable[[], object]) -> None:
        super().__init__(items)
        self.interrupt = interrupt

    def __setitem__(self, *change: Any) -> None:
        self.interrupt()
        super().__setitem__(*change)


def press_ctrl_c() -> None:
    """Raise what Ctrl-C raises."""
    raise KeyboardInterrupt


def test_a_lookup_after_an_interrupted_split_does_not_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After an interrupt amid a split, a lookup returns its value or raises; it never hangs."""
    monkeypatch.setattr(chunked_map, "CHUNK_KEYS_MAX", 4)
    monkeypatch.setattr(chunked_map, "_LOOKUPS_MAX", 200)
    rows = ChunkedMap()
    for number in range(4):
        rows.put(b"%d" % number, b"")
    rows._firsts = InterruptingList(rows._firsts, press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        rows.put(b"4", b"")
    errors: list[Exception] = []

    def look_up() -> None:
        try:
            rows.get(b"missing")
        except FailedError as error:
            errors.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()
    assert len(errors) == 1


def test_a_lookup_by_a_finalizer_amid_a_split_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A finalizer's lookup would wait for the write of its own thread, so it is refused. Keys that
    are in their place are found."""
    monkeypatch.setattr(chunked_map, "CHUNK_KEYS_MAX", 4)
    rows = ChunkedMap()
    for number in range(4):
        rows.put(b"%d" % number, b"found")
    found: list[object] = []

    def finalize() -> None:
        found.append(rows.get(b"0"))
        with pytest.raises(InterruptedCallError):
            rows.get(b"missing")

    rows._firsts = InterruptingList(rows._firsts, finalize)
    rows.put(b"4", b"")
    assert found == [b"found"]
    assert (rows.get(b"missing"), rows.get(b"4"), len(rows)) == (None, b"", 5)


WRITES: list[Callable[[ChunkedMap], object]] = [
    lambda rows: rows.put(b"0", b"new"),
    lambda rows: rows.put(b"00", b"new"),
    lambda rows: rows.put(b"9", b"new"),
    lambda rows: rows.remove(b"0"),
    lambda rows: rows.append_sorted([b"9"], [b"new"]),
]


@pytest.mark.parametrize("write", WRITES, ids=["set", "between", "ascending", "remove", "load"])
@pytest.mark.parametrize("count", [2, 4, 6])
def test_taken_chunks_never_change(
    write: Callable[[ChunkedMap], object], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks that a reader took stay as they are, whichever write comes next, and after it."""
    monkeypatch.setattr(chunked_map, "CHUNK_KEYS_MAX", 4)
    monkeypatch.setattr(chunked_map, "_CHUNK_KEYS_MIN", 2)
    rows = ChunkedMap()
    for number in range(count):
        rows.put(b"%d" % number, b"")
    chunks = rows.chunks_between()
    taken = [dict(chunk) for chunk in chunks]
    write(rows)
    for number in range(count):
        rows.put(b"%d" % number, b"newer")
    assert chunks == taken


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="the collector tracks every dict there")
def test_chunks_are_invisible_to_the_garbage_collector() -> None:
    """Rows add no work to a collection, however they came into their chunk."""
    rows = ChunkedMap()
    rows.append_sorted([b"%04d" % number for number in range(100)], [b""] * 100)
    for number in range(100, 300):
        rows.put(b"%04d" % number, b"")
    rows.chunks_between()
    for number in range(0, 300, 2):
        rows.remove(b"%04d" % number)
        rows.put(b"%04d+" % number, b"")
    assert not any(map(gc.is_tracked, rows._chunks))


def test_loaded_chunks_have_room() -> None:
    """An insert after a load replaces one chunk, and splits none."""
    rows = ChunkedMap()
    for first in range(0, 1024, 64):  # as many lines of a checkpoint are loaded together
        keys = [b"%04d" % number for number in range(first, first + 64)]
        rows.append_sorted(keys, [b""] * len(keys))
    chunks = rows.chunks_between()
    for chunk in chunks[:-1]:
        rows.put(sorted(chunk)[len(chunk) // 2] + b"+", b"")
    assert len(rows.chunks_between()) == len(chunks) > 10


def test_a_lookup_passes_on_the_error_of_a_signal_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one of the type that the lookup itself may meet."""

    def interrupted(*_: object) -> int:
        raise IndexError("of a signal handler")

    monkeypatch.setattr(chunked_map, "bisect_right", interrupted)
    with pytest.raises(IndexError, match="of a signal handler"):
        ChunkedMap().get(b"x")

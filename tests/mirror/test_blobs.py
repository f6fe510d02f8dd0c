"""Blobs: read in parts, each checked, and several ahead, in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from journal._mirror.ahead import in_order, streams
from journal._mirror.blobs import PART_BYTES, RollUpName, encode_blob, read_blob
from journal._mirror.entry import ROLL_UP, MirrorDamageError, MirrorEntry, Piece
from journal._mirror.memory_store import MemoryStore
from journal._mirror.store import AbsentError, RefusedError
from journal._mirror.urls import open_store
from tests.mirror.servers import make_stream
from tests.mirror.world import SEGMENT

NAME = RollUpName(3, 1)
HEADER = MirrorEntry(
    kind=ROLL_UP,
    number=3,
    epoch=1,
    nonce=b"n" * 8,
    follows=b"",
    claim_number=1,
    last_lsn=9,
    first=1,
)


def stored(parts: list[bytes]) -> MemoryStore:
    store = MemoryStore()
    store.put_blob(str(NAME), parts)
    return store


def test_a_blob_is_whole_or_refused() -> None:
    """The parts of a blob come back in order, and a blob that lacks its last part is refused by
    name, after the parts before it."""
    pieces = [Piece(SEGMENT, at * PART_BYTES, bytes([at]) * PART_BYTES) for at in range(3)]
    parts = list(encode_blob(HEADER, pieces))
    read = list(read_blob(stored(parts), NAME))
    assert [piece for part in read for piece in part.pieces] == pieces
    assert [part.more for part in read] == [True, True, False]
    cut = read_blob(stored(parts[:2]), NAME)
    assert [next(cut).pieces[0], next(cut).pieces[0]] == pieces[:2]
    with pytest.raises(MirrorDamageError, match=f"blob {NAME}, entry 3: it ends too early"):
        next(cut)


def test_results_come_in_order() -> None:
    """Calls and streams run at the same time, and their results come in the order of the calls. An
    error comes in its place."""
    both = threading.Barrier(2, timeout=20)

    def call(number: int) -> int:
        both.wait()
        if number == 3:
            raise ValueError(number)
        return number

    with closing(in_order((lambda n=n: call(n) for n in range(4)), 2)) as results:  # type: ignore[misc]
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="3"):
            next(results)

    def read(number: int) -> Iterator[int]:
        both.wait()
        yield from range(10 * number, 10 * number + 9)
        if number == 1:
            raise ValueError(number)

    with closing(streams([lambda n=n: read(n) for n in range(2)], 2)) as items:  # type: ignore[misc]
        assert [next(items) for _ in range(18)] == [*range(9), *range(10, 19)]
        with pytest.raises(ValueError, match="1"):
            next(items)


class _ExitAfter:
    """A flag of an interpreter that exits once it has been read `count` times."""

    def __init__(self, count: int) -> None:
        self._left = count

    def __bool__(self) -> bool:
        self._left -= 1
        return self._left < 0


@pytest.mark.parametrize("started", [0, 1, 3])
def test_an_exit_starts_no_threads(started: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that is exiting starts no threads. Then the results still come, in order."""
    is_exiting = "concurrent.futures.thread._shutdown"
    monkeypatch.setattr(is_exiting, _ExitAfter(started))
    assert list(in_order((lambda n=n: n for n in range(5)), 2)) == [*range(5)]  # type: ignore[misc]
    monkeypatch.setattr(is_exiting, _ExitAfter(started))
    reads = [lambda n=n: iter(range(10 * n, 10 * n + 9)) for n in range(5)]
    assert list(streams(reads, 2)) == [n for n in range(50) if n % 10 < 9]


def test_streams_that_are_left_end() -> None:
    """If the reader leaves, no thread goes on."""

    def endless() -> Iterator[int]:
        while True:
            yield 1

    with closing(streams([endless] * 20, 2)) as items:
        assert next(items) == 1
    assert not [t for t in threading.enumerate() if t.name.startswith("journal-mirror-reader")]


def test_a_reader_of_a_stream_makes_no_bucket(nats_address: str, fresh_name: str) -> None:
    """A stream without a mirror has no blobs for a reader, which leaves it as it is."""
    make_stream(nats_address, fresh_name)
    url = f"nats://{nats_address}/{fresh_name}"
    for _ in range(2):
        store = open_store(url, is_reader=True)
        try:
            assert (store.blob_names(), store.numbers(0)) == ([], [])
            with pytest.raises(AbsentError, match="no bucket of blobs"):
                list(store.blob("b"))
            with pytest.raises(RefusedError, match="no bucket of blobs"):
                store.put_blob("b", [b"x"])
        finally:
            store.close()
    early = open_store(url, is_reader=True)  # it finds the bucket that is made later
    writer = open_store(url)
    writer.put_blob("b", [b"x"])
    writer.close()
    for store in (early, open_store(url, is_reader=True)):
        assert b"".join(store.blob("b")) == b"x"
        store.close()

"""The contract of `journal._mirror.store`: every store keeps it, on real servers where they are
installed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from journal._mirror.store import AbsentError, Store, TakenError
from tests.mirror.conftest import Open


@pytest.fixture
def store(open_one: Open) -> Store:
    return open_one()


def blob(store: Store, name: str) -> bytes:
    return b"".join(store.blob(name))


def test_a_new_store_is_empty(store: Store) -> None:
    """A new store has no entries and no blobs, and says so without an error."""
    assert (store.numbers(0), store.blob_names()) == ([], [])
    with pytest.raises(AbsentError):
        store.entry(1)
    with pytest.raises(AbsentError):
        blob(store, "a")


def test_entries_are_read_back(open_one: Open) -> None:
    """An entry holds any bytes, and another client finds it at once."""
    writer, reader = open_one(), open_one()
    contents = [b"\0", bytes(range(256)), b"x" * 100_000]
    for number, data in enumerate(contents, 1):
        writer.append(number, data)
        assert reader.numbers(number - 1) == [number]
    assert [reader.entry(number) for number in (1, 2, 3)] == contents
    assert [reader.numbers(after) for after in range(4)] == [[1, 2, 3], [2, 3], [3], []]


def test_the_largest_entry_is_taken(store: Store) -> None:
    """An entry of `entry_bytes_max` bytes can be appended and read."""
    data = bytes(range(256)) * (store.entry_bytes_max // 256)
    store.append(1, data)
    assert store.entry(1) == data


def test_the_first_writer_owns_a_number(open_one: Open) -> None:
    """A taken number is refused, also with the same bytes, and keeps its bytes."""
    first, second = open_one(), open_one()
    first.append(1, b"first")
    for store, data in ((second, b"second"), (second, b"first"), (first, b"first")):
        with pytest.raises(TakenError):
            store.append(1, data)
    assert second.entry(1) == b"first"
    second.append(2, b"second")


def test_a_race_for_a_number_has_one_winner(open_one: Open) -> None:
    """Of many writers that append the same number at a time, one succeeds, and the entry is its."""
    stores = [open_one() for _ in range(4)]

    def race(number: int, writer: int) -> bool:
        try:
            stores[writer].append(number, b"%d" % writer)
        except TakenError:
            return False
        return True

    with ThreadPoolExecutor(len(stores)) as pool:
        for number in range(1, 6):
            won = list(pool.map(lambda writer: race(number, writer), range(len(stores))))  # noqa: B023
            assert sum(won) == 1
            assert stores[0].entry(number) == b"%d" % won.index(True)


def test_entries_are_trimmed(open_one: Open) -> None:
    """A trimmed entry is absent for every client. To trim one that is absent is no error."""
    store, other = open_one(), open_one()
    for number in range(1, 6):
        store.append(number, b"%d" % number)
    store.trim([1, 2, 4])
    store.trim([2, 4])
    assert (other.numbers(0), other.numbers(3)) == ([3, 5], [5])
    with pytest.raises(AbsentError):
        other.entry(2)
    other.append(6, b"6")
    assert store.numbers(0) == [3, 5, 6]


def test_numbers_have_no_small_bound(store: Store) -> None:
    """A list has more entries than one page of any server, in order."""
    count = 1200 if not store.url.startswith("s3") else 1010
    with ThreadPoolExecutor(8) as pool:
        append = pool.map if not store.url.startswith("nats") else map
        list(append(lambda number: store.append(number, b"x"), range(1, count + 1)))
    assert store.numbers(0) == list(range(1, count + 1))
    assert store.numbers(count - 2) == [count - 1, count]
    assert (store.last(0), store.last(count)) == (count, 0)
    store.trim(range(3, count - 9, 2))
    left = [1, 2, *range(4, count - 9, 2), *range(count - 9, count + 1)]
    assert store.numbers(0) == sorted(set(left))
    assert store.numbers(10) == [number for number in sorted(set(left)) if number > 10]


def test_blobs_are_read_back(open_one: Open) -> None:
    """A blob is the sum of its pieces, and may be empty or larger than any entry."""
    store, other = open_one(), open_one()
    contents = {
        "00000000000000000007-roll": [b"a", b"", b"bc"],
        "checkpoint-00000000000000000001.json": [],
        "large": [bytes([number]) * (1 << 20) for number in range(20)],
    }
    for name, pieces in contents.items():
        store.put_blob(name, iter(pieces))
    assert other.blob_names() == sorted(contents)
    for name, pieces in contents.items():
        assert blob(other, name) == b"".join(pieces)


def test_a_blob_is_replaced(open_one: Open) -> None:
    """A blob that is put again has the new bytes."""
    store, other = open_one(), open_one()
    store.put_blob("a", [b"old", b"er"])
    other.put_blob("a", [b"new"])
    assert (blob(store, "a"), store.blob_names()) == (b"new", ["a"])


def test_an_interrupted_blob_is_never_seen(store: Store) -> None:
    """A blob whose pieces raise does not exist, and the error is passed on."""

    def pieces() -> Iterator[bytes]:
        for _ in range(12):
            yield b"x" * (1 << 20)
        raise OSError(5, "the local disk failed")

    with pytest.raises(OSError, match="the local disk failed"):
        store.put_blob("a", pieces())
    assert store.blob_names() == []
    with pytest.raises(AbsentError):
        blob(store, "a")


def test_blobs_are_deleted(open_one: Open) -> None:
    """A deleted blob is absent for every client. To delete one that is absent is no error."""
    store, other = open_one(), open_one()
    for name in ("a", "b", "c"):
        store.put_blob(name, [name.encode()])
    store.delete_blobs(["a", "c", "never"])
    store.delete_blobs(["a"])
    assert other.blob_names() == ["b"]
    with pytest.raises(AbsentError):
        blob(other, "a")


def test_entries_and_blobs_do_not_mix(store: Store) -> None:
    """A blob is no entry, whatever its name."""
    store.put_blob("00000000000000000001", [b"blob"])
    store.put_blob("entry-00000000000000000001", [b"blob"])
    assert store.numbers(0) == []
    store.append(1, b"entry")
    assert len(store.blob_names()) == 2


def test_a_store_closes_twice(open_one: Open) -> None:
    """A second close does nothing, and what was stored stays."""
    store = open_one()
    store.append(1, b"a")
    store.close()
    store.close()
    assert open_one().entry(1) == b"a"

"""The fence: one writer at a time, over a network that loses, delays and reorders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from journal._mirror.claiming import Claimer, HeldError, OtherJournalError, OvertakenError, look
from journal._mirror.entry import CLAIM, ROLL_UP, Claim, MirrorDamageError, Piece, decode
from journal._mirror.memory_store import MemoryStore
from journal._mirror.reading import BEGINNING, read_log
from journal._mirror.store import Store, TakenError, UnreachableError
from tests.mirror.world import SEGMENT, STATEMENT, SequenceStore

NONCES = iter(range(1, 1 << 30))


def new_nonce() -> bytes:
    return next(NONCES).to_bytes(8, "big")


def claimer(
    store: Store, statement: Claim = STATEMENT, *, takeover: bool = False, epoch_min: int = 1
) -> Claimer:
    return Claimer(
        store,
        statement,
        new_nonce,
        takeover=takeover,
        epoch_min=epoch_min,
        accepts=(statement.application,),
    )


def piece(number: int) -> Piece:
    return Piece(SEGMENT, number * 16, b"%d" % number)


def bytes_in(store: MemoryStore) -> list[bytes]:
    return [each.data for entry in read_log(store) for each in entry.pieces]


@contextmanager
def lost_answers(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lose the answer to each append."""

    def append(number: int, data: bytes) -> None:
        MemoryStore.append(store, number, data)
        raise UnreachableError("the answer is lost")

    with monkeypatch.context() as patch:
        patch.setattr(store, "append", append)
        yield


def test_a_claim_holds_until_it_is_released() -> None:
    """A second writer is refused while the first one holds the mirror, even if it is dead, and is
    told who that is. After a release it needs no takeover, and gets a higher epoch."""
    store = MemoryStore()
    first = claimer(store, epoch_min=7).claim()
    with pytest.raises(HeldError, match="process 1 on host holds the mirror, with epoch 7"):
        claimer(store).claim()
    first.append([piece(2)], 1)
    with pytest.raises(HeldError):
        claimer(store).claim()
    first.release()
    assert look(store).is_released
    second = claimer(store).claim()
    assert (second.epoch, second.claimed.number, second.claimed.last_lsn) == (8, 4, 1)


def test_a_writer_that_was_overtaken_is_refused_forever() -> None:
    """After a takeover, each append of the earlier writer raises, with the new writer's claim."""
    store = MemoryStore()
    first = claimer(store).claim()
    second = claimer(store, STATEMENT._replace(host="other"), takeover=True).claim()
    for _ in range(2):
        with pytest.raises(OvertakenError, match="process 1 on other has taken over at entry 2"):
            first.append([piece(2)], 1)
    with pytest.raises(OvertakenError):
        first.release()
    second.append([piece(3)], 1)
    assert bytes_in(store) == [b"3"]


@pytest.mark.parametrize("make_store", [MemoryStore, SequenceStore])
def test_a_writer_that_slept_through_a_trim_is_refused(
    make_store: Callable[[], MemoryStore],
) -> None:
    """An overtaken writer is refused also if the entries after its own were rolled up and trimmed
    meanwhile, because the claim stays."""
    store = make_store()
    first = claimer(store).claim()
    second = claimer(store, takeover=True).claim()
    entries = [second.append([piece(number)], number) for number in (3, 4, 5)]
    name = second.roll_up(1, b"", [each for entry in entries for each in entry.pieces])
    second.trim(name, [3, 4, 5])
    assert store.numbers(0) == [1, 2, 5]
    with pytest.raises(OvertakenError):
        first.append([piece(2)], 1)
    assert bytes_in(store) == [b"3", b"4", b"5"]


def test_a_number_that_a_stream_has_passed_is_no_outage() -> None:
    """If a writer's number is taken and then trimmed, others have gone on: it was overtaken."""
    store = SequenceStore()
    first = claimer(store).claim()
    store.append(2, b"foreign")
    store.append(3, b"foreign")
    store.trim([2])
    with pytest.raises(OvertakenError, match="another writer has taken over"):
        first.append([piece(2)], 1)


def test_a_lost_answer_is_no_takeover(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the answer to a claim or an append is lost, the same request is repeated, and the writer
    recognizes its own entry."""
    store = MemoryStore()
    attempt = claimer(store)
    with lost_answers(store, monkeypatch), pytest.raises(UnreachableError):
        attempt.claim()
    assert store.numbers(0) == [1]
    writer = attempt.claim()
    with lost_answers(store, monkeypatch), pytest.raises(UnreachableError):
        writer.append([piece(2)], 1)
    with pytest.raises(RuntimeError, match="call retry"):
        writer.append([piece(3)], 2)
    entry = writer.retry()
    assert entry is not None
    assert (entry.number, writer.last, writer.retry()) == (2, entry, None)
    assert store.numbers(0) == [1, 2]


def test_a_conflict_without_an_entry_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that is reported as taken, and holds nothing, is still this writer's to use."""
    store = MemoryStore()
    writer = claimer(store).claim()

    def refuse(number: int, data: bytes) -> None:
        raise TakenError("409")

    with monkeypatch.context() as patch:
        patch.setattr(store, "append", refuse)
        with pytest.raises(UnreachableError, match="and then it does not"):
            writer.append([piece(2)], 1)
    assert writer.retry() is not None


def test_a_foreign_entry_is_no_takeover() -> None:
    """What something else wrote at the writer's number is reported as damage, not as a writer."""
    store = MemoryStore()
    writer = claimer(store).claim()
    store.append(2, b"hello")
    for call in (lambda: writer.append([piece(2)], 1), writer.retry):
        with pytest.raises(MirrorDamageError, match=r"entry 2: .* something else wrote it"):
            call()


def test_bytes_of_a_writer_that_has_not_claimed_are_damage() -> None:
    """An entry with bytes at the writer's number is no takeover: each writer claims first."""
    store = MemoryStore()
    first = claimer(store).claim()
    other = claimer(MemoryStore()).claim()
    store.append(2, other.append([piece(2)], 1).encode())
    with pytest.raises(MirrorDamageError, match="a writer that has not claimed"):
        first.append([piece(2)], 1)


def test_only_what_is_rolled_up_is_trimmed() -> None:
    """A trim leaves the entries that the roll-up does not hold."""
    store = MemoryStore()
    writer = claimer(store).claim()
    entries = [writer.append([piece(number)], number) for number in (2, 3)]
    name = writer.roll_up(3, entries[0].nonce, entries[1].pieces)
    writer.append([piece(4)], 4)
    writer.append([piece(5)], 5)
    writer.trim(name, [2, 3, 4, 5])
    assert store.numbers(0) == [1, 2, 4, 5]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"journal_id": "cd" * 16}, "another journal, abab.*; give this journal another address"),
        ({"application": "other"}, "of application 'app', not 'other'; .*; open it as that"),
        ({"format_version": 0}, "the newer format version 1; .*; use a newer"),
    ],
)
def test_the_mirror_of_another_journal_is_refused(changes: dict[str, Any], problem: str) -> None:
    """A claim of another journal, application or older program changes nothing, even with a
    takeover."""
    store = MemoryStore()
    claimer(store).claim()
    with pytest.raises(OtherJournalError, match=problem):
        claimer(store, STATEMENT._replace(**changes), takeover=True).claim()
    assert store.numbers(0) == [1]


def test_a_late_claim_does_not_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that was put into a trimmed number, because its process had looked long ago, does not
    stand: the process sees that the log goes on, and looks again."""
    store = MemoryStore()
    writer = claimer(store).claim()
    entries: list[bytes] = []

    def append(number: int, data: bytes) -> None:
        if number == 2 and not entries:  # the process has looked, and pauses
            entries.append(data)
            pieces = [writer.append([piece(each)], each).pieces[0] for each in (2, 3, 4)]
            writer.trim(writer.roll_up(1, b"", pieces), [2, 3])
        MemoryStore.append(store, number, data)

    monkeypatch.setattr(store, "append", append)
    second = claimer(store, takeover=True)
    looked = second._next_claim()
    second._pending = looked
    assert second.claim().claimed.number == 5
    assert store.numbers(0) == [1, 2, 4, 5]
    assert bytes_in(store) == [b"2", b"3", b"4"]


def stray(store: MemoryStore, number: int) -> Callable[[], None]:
    """Return a function that puts a claim at `number`, once that is trimmed: the request of a
    process that looked when the number was next, and that arrives late."""
    data = claimer(store, takeover=True)._next_claim().encode()

    def arrive() -> None:
        store.append(number, data)

    return arrive


def test_a_stray_claim_leads_no_reader_astray(monkeypatch: pytest.MonkeyPatch) -> None:
    """If entries are rolled up and trimmed while a reader reads, and a late claim takes one of
    their numbers, the reader goes on from the roll-up and misses no bytes."""
    store = MemoryStore()
    writer = claimer(store).claim()
    arrive = stray(store, 2)
    entries = [writer.append([piece(number)], number) for number in (2, 3, 4)]
    rolled_up: list[bool] = []

    def numbers(after: int) -> list[int]:
        found = MemoryStore.numbers(store, after)
        if not rolled_up:
            rolled_up.append(True)
            pieces = [each for entry in entries for each in entry.pieces]
            writer.trim(writer.roll_up(1, b"", pieces), [2])
            arrive()
        return found

    monkeypatch.setattr(store, "numbers", numbers)
    read = list(read_log(store))
    assert [entry.kind for entry in read] == [CLAIM, CLAIM, ROLL_UP]
    assert [each.data for entry in read for each in entry.pieces] == [b"2", b"3", b"4"]


def test_a_follower_rests_on_no_claim() -> None:
    """A follower whose last entry was a stray claim reads the roll-up that holds its number."""
    store = MemoryStore()
    writer = claimer(store).claim()
    arrive = stray(store, 2)
    second = writer.append([piece(2)], 1)
    name = writer.roll_up(1, b"", second.pieces)
    third = writer.append([piece(3)], 2)
    writer.trim(name, [2])
    arrive()
    place = BEGINNING.after(writer.claimed).after(decode(store.entry(2), 2))
    assert (place.number, place.sure) == (2, 0)
    later = writer.append([piece(4)], 3)
    name = writer.roll_up(3, second.nonce, [*third.pieces, *later.pieces])
    writer.trim(name, [3])
    assert [each.data for e in read_log(store, place) for each in e.pieces] == [b"2", b"3", b"4"]


def test_a_missing_entry_is_reported() -> None:
    """An entry that is in no roll-up and absent, a roll-up that is absent, and a last entry that is
    absent are damage, with the number."""
    store = MemoryStore()
    writer = claimer(store).claim()
    entries = [writer.append([piece(number)], number) for number in (2, 3, 4)]
    store.trim([3])
    with pytest.raises(MirrorDamageError, match="entry 3: it is missing"):
        list(read_log(store))
    writer.roll_up(1, b"", [each for entry in entries for each in entry.pieces])
    store.trim([4])
    with pytest.raises(MirrorDamageError, match="entry 4: it is missing"):
        claimer(store, takeover=True).claim()
    store.trim([1])
    store.append(4, entries[2].encode())
    with pytest.raises(MirrorDamageError, match="entry 1: it is missing, although it is a claim"):
        claimer(store, takeover=True).claim()

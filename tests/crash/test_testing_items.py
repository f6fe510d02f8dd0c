"""The explorer compares states whose items contain everything that a checkpoint can hold, bytes
too."""

from __future__ import annotations

from typing import Any

import pytest

from journal import CheckpointItemError, CowTable
from journal.testing import BrokenPromiseError, Owner, explore


class Blobs:
    """A state machine of [key, value] records. Its items are the same."""

    application = "blobs/1"

    def __init__(self) -> None:
        self.table: CowTable[str, Any] = CowTable()

    def apply(self, lsn: int, record: Any) -> None:
        self.table[record[0]] = record

    def freeze(self) -> Any:
        return self.table.freeze()

    def load(self, item: Any) -> None:
        self.table[item[0]] = item


class Forgetful(Blobs):
    """A state machine that loads bytes as the map that stands for them in a checkpoint."""

    def load(self, item: Any) -> None:
        key, value = item
        super().load([key, {"$bytes": "QQ=="} if value == b"A" else value])


def workload(owner: Owner[Blobs]) -> None:
    for value in (b"A", {"$bytes": "QQ=="}, [{"$$bytes": b""}]):
        owner.append([repr(value), value])
        owner.wait()
        owner.compact()
    owner.reopen()
    owner.append(["last", b"\x00\xff"])
    owner.wait()
    owner.compact()


def test_a_state_with_bytes_survives_every_crash() -> None:
    """P1, P6: The explorer accepts items with bytes, and with keys that look like bytes."""
    assert explore(Blobs, workload).images > 10


def test_bytes_and_the_map_that_stands_for_them_are_different_states() -> None:
    """P6: A state machine that loads one as the other is caught."""
    with pytest.raises(BrokenPromiseError, match="P6"):
        explore(Forgetful, workload)


def test_an_item_that_no_checkpoint_can_hold_is_refused() -> None:
    """The error names the item, as that of a compaction does."""

    class Tuples(Blobs):
        def freeze(self) -> Any:
            return [0, ("a tuple",)]

    def append(owner: Owner[Tuples]) -> None:
        owner.append(["a", 1])
        owner.wait()

    with pytest.raises(CheckpointItemError, match="item 1 of the checkpoint"):
        explore(Tuples, append)

"""Values and writes of a saver that are larger than a row: here, larger than 40 bytes."""

from __future__ import annotations

from typing import Any

import pytest

from journal.testing import SimulatedDisk, lose
from tests.installed import import_package

import_package("langgraph.checkpoint.base")

from journal.adapters.langgraph import _parts  # noqa: E402
from tests.adapters.langgraph_support import (  # noqa: E402
    checkpoint,
    place,
    put_steps,
    rows_left,
    saver_on,
    steps,
)

PART_BYTES = 40


@pytest.fixture(autouse=True)
def small_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each row have few bytes."""
    monkeypatch.setattr(_parts, "PART_BYTES", PART_BYTES)


def put(saver: Any, config: Any, size: int, version: str) -> Any:
    """Put a checkpoint whose value has `size` bytes, and a write and an interrupt of that size."""
    state = checkpoint({"n": "x" * size}, {"n": version})
    config = saver.put(config, state, {"source": "loop"}, {"n": version})
    saver.put_writes(config, [("n", "y" * size), ("__interrupt__", "z" * size)], "task")
    return config


def sizes(found: Any) -> list[int]:
    """Return the sizes of the value, the write and the interrupt of a checkpoint."""
    values = found.checkpoint["channel_values"].values()
    return [*map(len, values), *(len(text) for _, _, text in found.pending_writes)]


def test_values_and_writes_may_have_any_size(disk: SimulatedDisk) -> None:
    """P2: values and writes that take several rows survive a power cut."""
    large = [0, 39, 40, 41, 79, 80, 81, 1000]
    with saver_on(disk, keep=None) as saver:
        config = place()
        for number, size in enumerate(large):
            config = put(saver, config, size, f"{number}")
        disk.power_cut(lose)
    with saver_on(disk, keep=None) as saver:
        found = [sizes(each) for each in saver.list(place())]
        assert sorted(found) == [[size] * 3 for size in large]


def test_parts_are_removed_with_their_owner(disk: SimulatedDisk) -> None:
    """The parts of values, of writes, and of interrupts that were replaced go with their owner. A
    copy of a thread has parts of its own."""
    with saver_on(disk, keep=1) as saver:
        config = place()
        counts = set()
        for number in range(6):
            config = put(saver, config, 200, f"{number}")
            counts.add(rows_left(saver)["langgraph.parts"])
        assert len(counts) == 1
        saver.copy_thread("t", "u")
        saver.put_writes(config, [("n", "y"), ("__interrupt__", "z" * 90)], "task")
        assert rows_left(saver)["langgraph.parts"] == 2 * counts.copy().pop() - 3
        newest = saver.get_tuple(place())
        assert newest is not None
        assert sizes(newest) == [200, 90, 200]
        saver.delete_thread("t")
        copied = saver.get_tuple(place("u"))
        assert copied is not None
        assert sizes(copied) == [200, 200, 200]
        assert {*counts} == {rows_left(saver)["langgraph.parts"]}
        saver.prune(["u"], strategy="delete")
        assert rows_left(saver) == {}


def test_equal_large_values_of_a_version_are_stored_once(disk: SimulatedDisk) -> None:
    """Two checkpoints with the same version share its value if all of its parts are equal."""
    with saver_on(disk, keep=None) as saver:
        first = put_steps(saver, 1)[0]
        for end in ("a", "a", "b"):
            state = checkpoint({"n": "x" * 100 + end}, {"n": "9"})
            saver.put(first, state, {"source": "fork"}, {"n": "9"})
        assert rows_left(saver)["langgraph.values"] == 4
        assert [str(text)[-1] for text in steps(saver)] == ["b", "a", "a", "0"]

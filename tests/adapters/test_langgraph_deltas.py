"""Delta channels of a JournalSaver: each checkpoint that is there has the history that it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from journal import JournalError
from journal.testing import SimulatedDisk
from tests.installed import import_package

import_package("langgraph.checkpoint.base")

from langgraph.checkpoint.memory import InMemorySaver  # noqa: E402
from langgraph.checkpoint.serde.types import _DeltaSnapshot  # noqa: E402

from journal.adapters.langgraph._retention import doom_thread  # noqa: E402
from journal.adapters.langgraph._rows import SaverTables  # noqa: E402
from tests.adapters.langgraph_support import checkpoint, place, saver_on  # noqa: E402


def delta_chain(saver: Any, count: int, snapshots: set[int]) -> Any:
    """Put checkpoints whose channel "m" has its value only in those of `snapshots`."""
    config, since, version = place(), 0, "0"
    for step in range(count):
        since = 0 if step in snapshots else since + 1
        values = {"m": _DeltaSnapshot([step])} if step in snapshots else {}
        version = f"{step}"
        metadata = {
            "source": "loop",
            "counters_since_delta_snapshot": {"m": (since, since)} if since else {},
        }
        config = saver.put(config, checkpoint(values, {"m": version}), metadata, {"m": version})
        saver.put_writes(config, [("m", step)], f"{step}")
    return config


@pytest.mark.parametrize("snapshots", [{0}, {0, 7}, {0, 4, 9}, set()], ids=str)
def test_a_delta_channel_keeps_the_ancestors_that_it_needs(
    disk: SimulatedDisk, snapshots: set[int]
) -> None:
    """The history of a delta channel is LangGraph's, and removals don't change it."""
    oracle: Any = InMemorySaver()
    with saver_on(disk, keep=2) as saver:
        config = delta_chain(saver, 12, snapshots)
        expected = oracle.get_delta_channel_history(
            config=delta_chain(oracle, 12, snapshots), channels=["m"]
        )
        assert saver.get_delta_channel_history(config=config, channels=["m"]) == expected
        saver.prune(["t"])
        assert saver.get_delta_channel_history(config=config, channels=["m"]) == expected
        assert "seed" in expected["m"] or not snapshots


def put_delta(saver: Any, parent: Any, number: int, snapshot_every: int, **metadata: Any) -> Any:
    """Put a checkpoint whose channel "m" has its value only if its number is a multiple of
    `snapshot_every`, and a write to that channel. Return the config."""
    since = number % snapshot_every
    values = {} if since else {"m": _DeltaSnapshot([*range(number)])}
    counted = {"counters_since_delta_snapshot": {"m": (since, since)}} if since else {}
    state = checkpoint(values, {"m": f"{number}"})
    merged = {"source": "loop", "step": number} | counted | metadata
    config = saver.put(parent, state, merged, {"m": f"{number}"})
    saver.put_writes(config, [("m", number)], f"task-{number}")
    return config


def put_deltas(saver: Any, parent: Any, numbers: range, snapshot_every: int = 4) -> list[Any]:
    """Put checkpoints, each the child of the one before. Return their configs."""
    configs = [parent]
    for number in numbers:
        configs.append(put_delta(saver, configs[-1], number, snapshot_every))
    return configs[1:]


def rebuilt(saver: Any, config: Any) -> list[int]:
    """Return the value of channel "m" of a checkpoint."""
    found = saver.get_tuple(config)
    stored = found.checkpoint["channel_values"].get("m")
    if stored is not None:
        return list(stored.value)
    history = saver.get_delta_channel_history(config=found.config, channels=["m"])["m"]
    seed = history["seed"].value if "seed" in history else []
    return [*seed, *(value for _, _, value in history["writes"])]


def assert_all_whole(saver: Any) -> None:
    """Assert that each checkpoint of a thread has the value that its number says."""
    for found in saver.list(place()):
        assert rebuilt(saver, found.config) == [*range(found.metadata["step"])]


def test_a_delta_without_its_history_is_refused(disk: SimulatedDisk) -> None:
    """P2: a checkpoint whose delta channels can't be rebuilt, since another run of its thread has
    passed it, is not acknowledged. The newest state stays whole."""
    with saver_on(disk, keep=2) as saver:
        slow = put_deltas(saver, place(), range(2))[-1]
        put_deltas(saver, slow, range(2, 14))
        newest = saver.get_tuple(place())
        with pytest.raises(JournalError, match="larger `keep`"):
            put_delta(saver, slow, 2, 4)
        assert saver.get_tuple(place()) == newest
        assert_all_whole(saver)


@pytest.mark.parametrize("keep", [1, 2, 8])
@pytest.mark.parametrize("is_pruned", [True, False])
def test_a_snapshot_without_its_early_writes_is_refused(
    disk: SimulatedDisk, keep: int, is_pruned: bool
) -> None:
    """P2: the delta channels of a later checkpoint would lack the writes of one that is put late,
    after other runs have pushed it out with its writes."""
    with saver_on(disk, keep=keep) as saver:
        start = put_deltas(saver, place(), range(4))[-1]
        late = checkpoint({"m": _DeltaSnapshot([*range(4)])}, {"m": "4"})
        saver.put_writes(place(checkpoint_id=late["id"]), [("m", 4)], "task-4")
        put_deltas(saver, start, range(4, 9 if is_pruned else 5 + 4 * keep))
        if is_pruned:
            saver.prune(["t"])
        with pytest.raises(JournalError, match="stored writes or subgraphs"):
            saver.put(start, late, {"source": "loop", "step": 4}, {"m": "4"})
        assert_all_whole(saver)


def test_a_snapshot_needs_no_parent(disk: SimulatedDisk) -> None:
    """A checkpoint that has the values of its delta channels is stored, whatever was removed."""
    with saver_on(disk, keep=2) as saver:
        slow = put_deltas(saver, place(), range(4))[-1]
        put_deltas(saver, slow, range(4, 14))
        assert rebuilt(saver, put_delta(saver, slow, 4, 4)) == [0, 1, 2, 3]


def test_a_run_may_begin_at_an_id_that_was_removed(disk: SimulatedDisk) -> None:
    """LangGraph begins with an empty state then: nothing is lost."""
    with saver_on(disk, keep=2) as saver:
        unknown = place(checkpoint_id="1")
        first = put_delta(saver, unknown, 1, 4, step=-1)
        found = saver.get_tuple(first)
        assert found is not None
        assert found.parent_config == unknown
        assert rebuilt(saver, first) == []
        assert rebuilt(saver, put_delta(saver, first, 2, 4)) == [1]


def test_a_put_keeps_the_ancestors_that_it_needs(disk: SimulatedDisk) -> None:
    """A put that arrives late keeps its ancestors, even if it removes other old checkpoints."""
    with saver_on(disk, keep=8) as saver:
        slow = put_deltas(saver, place(), range(2))[-1]
        late = checkpoint({}, {"m": "2"})
        put_deltas(saver, slow, range(2, 10), snapshot_every=1)
        counted = {"counters_since_delta_snapshot": {"m": (2, 2)}}
        config = saver.put(slow, late, {"source": "loop", "step": 2, **counted}, {"m": "2"})
        assert rebuilt(saver, config) == [0, 1]


@pytest.mark.parametrize("snapshot_every", [1, 7])
def test_a_smaller_keep_leaves_whole_checkpoints(disk: SimulatedDisk, snapshot_every: int) -> None:
    """A removal that takes several puts removes a checkpoint before the ancestors it needs."""
    with saver_on(disk, keep=None) as saver:
        config = put_deltas(saver, place(), range(150), snapshot_every)[-1]
    with saver_on(disk, keep=2) as saver:
        for number in range(150, 160):
            config = put_delta(saver, config, number, snapshot_every)
            assert_all_whole(saver)


def test_a_channel_that_was_never_written_keeps_no_ancestors(disk: SimulatedDisk) -> None:
    """A delta channel without a version has no history."""
    with saver_on(disk, keep=2) as saver:
        config = place()
        for step in range(20):
            counted = {"counters_since_delta_snapshot": {"m": (0, step + 1)}}
            state = checkpoint({"n": step}, {"n": f"{step}"})
            metadata = {"source": "loop", "step": step, **counted}
            config = saver.put(config, state, metadata, {"n": f"{step}"})
        assert len([*saver.list(place())]) == 2


def before_read(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Call `act` before the checkpoint that is read as the one of this number."""
    row, begun = SaverTables.row, [0]

    def counted(self: SaverTables, *arguments: Any) -> Any:
        begun[0] += 1
        if begun[0] == number:
            act()
        return row(self, *arguments)

    monkeypatch.setattr(SaverTables, "row", counted)


@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize("number", range(1, 6))
def test_a_history_is_whole_or_an_error(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, number: int, is_named: bool
) -> None:
    """P2: no removal during a read takes away a part of the history. Without an id, the history
    is that of a checkpoint that is there."""
    with saver_on(disk, keep=1) as saver:
        last = put_deltas(saver, place(), range(4))[-1]
        config = last if is_named else place()
        before_read(monkeypatch, number, lambda: put_deltas(saver, last, range(4, 6)))
        try:
            history = saver.get_delta_channel_history(config=config, channels=["m"])["m"]
        except JournalError:
            assert is_named
        else:
            assert [value for _, _, value in history["writes"]] in ([0, 1, 2], [4])


def test_a_history_is_an_error_while_its_thread_is_removed(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: the removal of a thread takes the oldest checkpoints first. A reader sees that."""
    with saver_on(disk) as saver:
        configs = put_deltas(saver, place(), range(4))

        def begin_removal() -> None:
            saver._saved.commit(lambda t: doom_thread(t, saver._saved, "t"))
            saver._saved.checkpoints.delete(("t", "", configs[0]["configurable"]["checkpoint_id"]))

        before_read(monkeypatch, 2, begin_removal)
        with pytest.raises(JournalError, match="read the thread again"):
            saver.get_delta_channel_history(config=configs[-1], channels=["m"])


def test_a_removed_checkpoint_has_no_history(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that was removed or has expired is an error, and a thread without checkpoints
    has an empty history."""
    now = 1e9
    monkeypatch.setattr("time.time", lambda: now)
    with saver_on(disk, keep=1, ttl_s=100) as saver:
        first, *_, last = put_deltas(saver, place(), range(6))
        with pytest.raises(JournalError, match="read the thread again"):
            saver.get_delta_channel_history(config=first, channels=["m"])
        now += 200
        with pytest.raises(JournalError, match="read the thread again"):
            saver.get_delta_channel_history(config=last, channels=["m"])
        empty: Any = {"m": {"writes": []}}
        assert saver.get_delta_channel_history(config=place(), channels=["m"]) == empty


def test_a_removed_run_leaves_the_rest_of_a_history(disk: SimulatedDisk) -> None:
    """A delta channel that was built from a removed run has the history since then."""
    with saver_on(disk) as saver:
        old = put_delta(saver, place(), 0, 4, run_id="old")
        newest = put_deltas(saver, old, range(1, 4))[-1]
        saver.delete_for_runs(["old"])
        assert rebuilt(saver, newest) == [1, 2]

"""A checkpoint is consistent: it is the state as of one LSN, whatever is appended meanwhile."""

from __future__ import annotations

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from journal import (
    DurableState,
    JournalReader,
)
from journal.testing import SimulatedDisk
from journal.testing.disk import Operation
from tests.engine.compaction_support import checkpoint_lsns, compact, first_lsns, setting
from tests.support import (
    PATH,
    TIMEOUT_S,
    IdleObserver,
    Table,
    Watched,
    names,
    open_on,
    options,
    put,
    put_lines,
)


def test_a_snapshot_is_of_one_lsn_under_load(disk: SimulatedDisk) -> None:
    """P6, P10: Every checkpoint that is made under load equals the state as of its LSN, key by
    key."""
    state = DurableState.open(
        PATH, Table(), options=options(segment_bytes=1 << 20, checkpoints_kept=1000), disk=disk
    )
    stop = threading.Event()

    def write(thread: int) -> None:
        for n in itertools.count():
            if stop.is_set():
                return
            key = f"{thread}-{n * 7 % 50}"
            lsn = state.update(partial(setting, key, None if n % 11 == 3 else n))
            if n % 16 == 0:
                state.wait_durable(lsn, timeout_s=TIMEOUT_S)

    with state, ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, thread) for thread in range(3)]
        lsns = [state.compact().lsn for _ in range(12)]
        stop.set()
        for writer in writers:
            writer.result(TIMEOUT_S)
        state.wait_durable(timeout_s=TIMEOUT_S)
        live = state.machine.content()
    assert lsns == sorted(lsns)
    model = Table()
    checked = 0
    with JournalReader.open(PATH, disk=disk) as reader:
        checkpoints = {checkpoint.lsn: checkpoint for checkpoint in reader.checkpoints()}
        for entry in reader.entries(0):
            model.apply(entry.lsn, entry.record)
            if entry.lsn in checkpoints:
                items = dict(checkpoints[entry.lsn].items())
                assert items == model.content()
                checked += 1
        for checkpoint in checkpoints.values():
            checkpoint.close()
    assert checked == len(checkpoints) - 1 > 1  # the first one is at LSN 0
    assert model.content() == live
    with DurableState.open(PATH, Table(), options=options(), disk=disk) as reopened_state:
        assert reopened_state.machine.content() == live


def test_a_checkpoint_is_json_with_one_item_per_line(disk: SimulatedDisk) -> None:
    """A checkpoint is one JSON document with one item per line."""
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, {"id": "a"}, {"id": "b"})
    (name,) = names(disk, ".json")
    text = disk.contents(PATH)[name].decode()
    assert json.loads(text)["items"] == [{"id": "a"}, {"id": "b"}]
    assert '{"id":"a"},\n{"id":"b"}\n' in text


def test_stats_count_compactions(disk: SimulatedDisk) -> None:
    """`stats()` counts compactions, their time and the files, and observers are called."""
    observed: list[tuple[int, int, int]] = []

    class RecordingObserver(IdleObserver):
        def compacted(self, lsn: int, count: int, size_bytes: int, duration_ns: int) -> None:
            observed.append((lsn, count, size_bytes))
            raise ValueError("the observer's own")

    with open_on(disk) as journal:
        journal.observe(RecordingObserver())
        put_lines(journal, 12, size=700)
        size = compact(journal, 1, 2).size_bytes
        stats = journal.stats()
        assert (stats.compactions, stats.segments) == (1, len(first_lsns(disk)))
        assert stats.disk_bytes == sum(map(len, disk.contents(PATH).values()))
    assert observed == [(12, 2, size)]


def test_a_compaction_verifies_its_checkpoint(disk: SimulatedDisk) -> None:
    """P4: A checkpoint that does not verify when it is read back does not count."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        compact(journal, 1)
        put(journal, "on")
        directory = disk.open_directory(PATH, write=True)

        def rot(operation: Operation, path: str) -> None:
            if operation == "open" and path.endswith("13.json"):
                disk.before = None
                directory.open(path.rpartition("/")[2], "update").write(b"?", 20)

        disk.before = rot
        with pytest.raises(Exception, match="last line"):
            compact(journal, 2)
        assert first_lsns(disk)[0] == 1
        watched = Watched(disk)
        put(journal, "on")
        compact(journal, 3)
        assert watched.of("remove") > 0
        assert 12 in checkpoint_lsns(disk)
        assert first_lsns(disk)[0] <= 13

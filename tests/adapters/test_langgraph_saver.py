"""JournalSaver beside LangGraph's own saver, and what only it promises."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from journal.testing import SimulatedDisk, lose
from tests.installed import import_package

import_package("langgraph.checkpoint.base")

from langgraph.checkpoint.serde.encrypted import EncryptedSerializer  # noqa: E402
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer  # noqa: E402

from journal.adapters.langgraph import JournalSaver, _parts  # noqa: E402
from tests.adapters.langgraph_support import (  # noqa: E402
    checkpoint,
    place,
    put_steps,
    rows_left,
    saver_on,
    steps,
)


@dataclass
class Payload:
    """A class that LangGraph's serializer does not list."""

    text: str


@pytest.mark.slow
@pytest.mark.parametrize("part_bytes", [_parts.PART_BYTES, 40])
def test_the_conformance_suite_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int
) -> None:
    """All capabilities of LangGraph's conformance suite pass: five of the base, three extended. It
    makes no difference whether a value takes one row or several."""
    monkeypatch.setattr(_parts, "PART_BYTES", part_bytes)
    conformance = import_package("langgraph.checkpoint.conformance")
    numbers = iter(range(100))

    async def opened() -> Any:
        async with JournalSaver.open(tmp_path / str(next(numbers))) as saver:
            yield saver

    registered = conformance.checkpointer_test(name="JournalSaver")(opened)
    report = asyncio.run(conformance.validate(registered))
    failures = {name: result.failures for name, result in report.results.items()}
    assert not any(failures.values()), failures
    assert sum(result.tests_passed for result in report.results.values()) >= 81
    assert all(result.passed for result in report.results.values())


def test_a_checkpoint_survives_a_power_cut(disk: SimulatedDisk) -> None:
    """P2: a put and a write that returned are there after a power cut."""
    with saver_on(disk) as saver:
        last = put_steps(saver, 3)[-1]
        seen = saver.get_tuple(place())
        disk.power_cut(lose)
    with saver_on(disk) as saver:
        assert saver.get_tuple(place()) == seen == saver.get_tuple(last)
        assert seen is not None
        assert seen.pending_writes == [("task-2", "n", 3)]
        assert seen.checkpoint["channel_values"] == {"n": 2, "same": "s" * 100}


def test_a_value_that_does_not_change_is_written_once(disk: SimulatedDisk) -> None:
    """Each version of a channel has one row, whichever checkpoints refer to it."""
    with saver_on(disk, keep=None) as saver:
        put_steps(saver, 5)
        assert rows_left(saver)["langgraph.values"] == 5 + 1
        assert steps(saver) == [4, 3, 2, 1, 0]


def test_a_checkpoint_that_is_put_again_releases_its_values(disk: SimulatedDisk) -> None:
    """The values of a replaced checkpoint go, except those that others refer to."""
    with saver_on(disk) as saver:
        first, last = put_steps(saver, 2)
        state = saver.get(last)
        for step in range(20):
            state["channel_versions"] = {"n": f"again-{step}", "same": "1"}
            versions = {"n": f"again-{step}"}
            assert saver.put(first, state, {"source": "update"}, versions) == last
        assert rows_left(saver)["langgraph.values"] == 3
        assert [saver.get(config)["channel_values"]["same"] for config in (first, last)] == [
            "s" * 100,
            "s" * 100,
        ]


@pytest.mark.parametrize("keep", [1, 2, 3, 8])
def test_a_thread_keeps_its_newest_checkpoints(disk: SimulatedDisk, keep: int) -> None:
    """A namespace keeps at most `keep` checkpoints and a quarter more, with their values and
    writes, and no row besides."""
    with saver_on(disk, keep=keep) as saver:
        put_steps(saver, 25)
        kept = steps(saver)
        assert kept == list(range(24, 24 - len(kept), -1))
        assert keep <= len(kept) <= keep + keep // 4
        left = rows_left(saver)
        assert left.pop("langgraph.values") == len(kept) + 1
        assert left == {
            "langgraph.checkpoints": len(kept),
            "langgraph.writes": len(kept),
            "langgraph.heads": 1,
        }


def test_retention_is_on_by_default(disk: SimulatedDisk) -> None:
    """Without arguments, a thread keeps ten checkpoints, and up to two more."""
    with saver_on(disk) as saver:
        put_steps(saver, 30)
        assert 10 <= len(steps(saver)) <= 12


def test_the_subgraphs_of_a_removed_checkpoint_are_removed(disk: SimulatedDisk) -> None:
    """The namespace of a subgraph's run goes with the checkpoint under which it ran. A namespace
    that lasts stays."""
    with saver_on(disk, keep=2) as saver:
        config = place()
        for step in range(6):
            state = checkpoint({"n": step}, {"n": str(step)})
            config = saver.put(config, state, {"source": "loop"}, {"n": str(step)})
            parents = {"parents": {"": config["configurable"]["checkpoint_id"]}}
            for namespace in (f"node:{step}", "lasting"):
                put_steps(saver, 1, place(namespace=namespace), **parents)
        names = {
            t.config["configurable"]["checkpoint_ns"]
            for t in saver.list({"configurable": {"thread_id": "t"}})
        }
        assert names == {"", "node:4", "node:5", "lasting"}
        assert rows_left(saver)["langgraph.heads"] == 4
        saver.delete_thread("t")
        assert rows_left(saver) == {}


@pytest.mark.parametrize("iterations", range(12))
def test_a_cancelled_put_removes_the_subgraphs_of_what_it_removed(
    disk: SimulatedDisk, iterations: int
) -> None:
    """P2: a cancellation leaves no namespace of a subgraph whose checkpoint was removed."""

    async def put_and_cancel(saver: JournalSaver, config: Any) -> None:
        state = checkpoint({"n": 1}, {"n": "2"})
        putting = asyncio.ensure_future(saver.aput(config, state, {"source": "loop"}, {"n": "2"}))
        for _ in range(iterations):
            await asyncio.sleep(0)
        putting.cancel()
        await asyncio.wait([putting])

    is_over = threading.Event()
    with saver_on(disk, keep=1) as saver, asyncio.Runner() as runner:
        [config] = put_steps(saver, 1)
        parents = {"": config["configurable"]["checkpoint_id"]}
        put_steps(saver, 1, place(namespace="node:1"), parents=parents)
        executor = ThreadPoolExecutor(1)
        executor.submit(is_over.wait, 60)  # what is left to a thread begins after the cancellation
        runner.get_loop().set_default_executor(executor)
        try:
            runner.run(put_and_cancel(saver, config))
        finally:
            is_over.set()
            executor.shutdown()
        is_there = steps(saver) == [0]
        assert steps(saver, place(namespace="node:1")) == ([0] if is_there else [])


def test_forks_with_equal_versions_keep_their_values(disk: SimulatedDisk) -> None:
    """Two checkpoints whose channel has the same version and different values keep both."""
    with saver_on(disk) as saver:
        [first] = put_steps(saver, 1)
        forks = []
        for value in ("left", "right", "left"):
            state = checkpoint({"n": value, "same": "s" * 100}, {"n": "2", "same": "1"})
            forks.append(saver.put(first, state, {"source": "fork"}, {"n": "2"}))
        assert [saver.get(fork)["channel_values"]["n"] for fork in forks] == [
            "left",
            "right",
            "left",
        ]
        state = checkpoint({"n": "right", "same": "s" * 100}, {"n": "2", "same": "1"})
        child = saver.put(forks[1], state, {"source": "loop"}, {})
        assert saver.get(child)["channel_values"]["n"] == "right"
        assert rows_left(saver)["langgraph.values"] == 4


def test_a_checkpoint_id_of_none_stands_for_the_newest(disk: SimulatedDisk) -> None:
    """A config whose checkpoint id is None names a thread, for `list` as well."""
    with saver_on(disk) as saver:
        put_steps(saver, 3)
        config = {"configurable": {"thread_id": "t", "checkpoint_id": None}}
        assert [found.checkpoint["channel_values"]["n"] for found in saver.list(config)] == [
            2,
            1,
            0,
        ]
        assert saver.get_tuple(config) == saver.get_tuple(place())


def test_threads_expire(disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread is gone `ttl_s` seconds after its last checkpoint. Later puts remove its rows."""
    now = 1e9
    monkeypatch.setattr("time.time", lambda: now)
    with saver_on(disk, ttl_s=100) as saver:
        put_steps(saver, 2, place("old"))
        now += 60
        put_steps(saver, 1, place("new"))
        assert saver.get_tuple(place("old")) is not None
        now += 60
        assert saver.get_tuple(place("old")) is None
        assert saver.get_tuple(place("new")) is not None
        put_steps(saver, 1, place("newest"))
        assert {found.config["configurable"]["thread_id"] for found in saver.list(None)} == {
            "new",
            "newest",
        }
        now += 1000
        assert saver.remove_expired() == 2
        assert rows_left(saver) == {}


@pytest.mark.parametrize("prefix", [("t",), ("t", "node:1")])
def test_an_interrupted_removal_is_finished_at_the_next_open(
    disk: SimulatedDisk, prefix: tuple[str, ...]
) -> None:
    """A thread or namespace that was about to be removed is gone after the next open."""
    with saver_on(disk) as saver:
        put_steps(saver, 2, place("t", "node:1"))
        put_steps(saver, 2, place("u"))
        saver.tables.table("langgraph.doomed")[prefix] = None
    with saver_on(disk) as saver:
        assert list(saver.list(place("t"))) == []
        assert rows_left(saver) == {
            "langgraph.checkpoints": 2, "langgraph.values": 3, "langgraph.writes": 2,
            "langgraph.heads": 1,
        }  # fmt: skip


def test_a_type_off_the_list_is_not_rebuilt(disk: SimulatedDisk) -> None:
    """Only the types that LangGraph lists are rebuilt, and those given to `with_allowlist`."""
    with saver_on(disk) as saver:
        state = checkpoint({"n": Payload("a")}, {"n": "1"})
        saver.put(place(), state, {"source": "loop"}, {"n": "1"})
        assert not isinstance(steps(saver)[0], Payload)
        allowing = saver.with_allowlist([(Payload.__module__, "Payload")])
        assert steps(allowing) == [Payload("a")]


def test_encryption_keeps_the_restriction(disk: SimulatedDisk) -> None:
    """An encrypting serializer around one that allows no types rebuilds none, encrypted or not."""

    class Cipher:
        def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
            return "turned", plaintext[::-1]

        def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
            return ciphertext[::-1]

    state = checkpoint({"n": Payload("a")}, {"n": "1"})
    serde = EncryptedSerializer(Cipher(), JsonPlusSerializer(allowed_msgpack_modules=None))
    for first in (None, serde):
        with saver_on(disk, serde=first) as saver:
            saver.put(place(), state, {"source": "loop"}, {"n": "1"})
        with saver_on(disk, serde=serde) as saver:
            assert steps(saver) == [{"text": "a"}]


def test_loop_puts_may_skip_their_wait(disk: SimulatedDisk) -> None:
    """With `wait_loop_puts=False`, only the checkpoints of a loop are not waited for. All writes
    are."""
    with saver_on(disk, wait_loop_puts=False) as saver:
        journal = saver.tables.journal
        for source in ("input", "update", "fork", "loop"):
            config = saver.put(place(), checkpoint({}, {}), {"source": source}, {})
            assert (journal.durable_lsn == journal.last_lsn) is (source != "loop")
        saver.put_writes(config, [("n", 1)], "task")
        assert journal.durable_lsn == journal.last_lsn


def test_large_values_are_serialized_off_the_event_loop(tmp_path: Path) -> None:
    """In an event loop, a thread serializes and deserializes large values, and no thread small
    ones."""
    threads: set[bool] = set()

    class Watched(JsonPlusSerializer):
        def dumps_typed(self, obj: Any) -> Any:
            threads.add(threading.current_thread() is threading.main_thread())
            return super().dumps_typed(obj)

        def loads_typed(self, data: tuple[str, bytes]) -> Any:
            threads.add(threading.current_thread() is threading.main_thread())
            return super().loads_typed(data)

    async def run(saver: Any, value: Any) -> set[bool]:
        threads.clear()
        config = await saver.aput(place(), checkpoint({"n": value}, {"n": "1"}), {}, {"n": "1"})
        await saver.aput_writes(config, [("n", value)], "task")
        assert await saver.aget_tuple(config)
        return set(threads)

    async def main() -> None:
        async with JournalSaver.open(tmp_path / "journal", serde=Watched()) as saver:
            assert await run(saver, 1) == {True}
            assert await run(saver, "x" * 100_000) == {False}
            assert await run(saver, [{"text": "x" * 100} for _ in range(1000)]) == {False}

    asyncio.run(main())


def test_a_call_lets_the_event_loop_run_before_its_work(disk: SimulatedDisk) -> None:
    """LangGraph computes before it calls a saver, and after it has read. A timer would be late by
    the sum of that and of the saver's own work."""

    async def main(saver: JournalSaver) -> None:
        loop, seen = asyncio.get_running_loop(), list[dict[str, int]]()

        def look(times: int = 1) -> None:
            seen.append(rows_left(saver))
            if times > 1:
                loop.call_soon(look, times - 1)

        loop.call_soon(look)
        config = await saver.aput(place(), checkpoint({"n": 1}, {"n": "1"}), {}, {"n": "1"})
        assert seen == [{}]
        loop.call_soon(look)
        await saver.aput_writes(config, [("n", 1)], "task")
        assert "langgraph.writes" not in seen[1]
        loop.call_soon(look, 2)
        await saver.aget_tuple(config)
        assert len(seen) == 4

    with saver_on(disk) as saver:
        asyncio.run(main(saver))


def test_a_large_value_is_stored(tmp_path: Path) -> None:
    """A value may be larger than a record."""
    with JournalSaver.open(tmp_path / "journal") as saver:
        state = checkpoint({"n": "x" * 9_000_000}, {"n": "1"})
        saver.put(place(), state, {"source": "loop"}, {"n": "1"})
    with JournalSaver.open(tmp_path / "journal") as saver:
        assert len(steps(saver)[0]) == 9_000_000


@pytest.mark.parametrize("part_bytes", [_parts.PART_BYTES, 20])
def test_a_reader_never_sees_half_of_a_checkpoint(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, part_bytes: int
) -> None:
    """While another thread puts and removes, each checkpoint that is read is whole."""
    monkeypatch.setattr(_parts, "PART_BYTES", part_bytes)
    with saver_on(disk, keep=1) as saver:
        put_steps(saver, 1)
        end = threading.Event()
        wrong: list[Any] = []

        def read() -> None:
            while not end.is_set():
                found = saver.get_tuple(place())
                if found is None or found.checkpoint["channel_values"].keys() != {"n", "same"}:
                    wrong.append(found)

        reader = threading.Thread(target=read)
        reader.start()
        put_steps(saver, 40)
        end.set()
        reader.join()
        assert wrong == []


@pytest.mark.parametrize(
    "arguments", [{"keep": 0}, {"keep": True}, {"keep": "3"}, {"ttl_s": 0}, {"ttl_s": -1}], ids=str
)
def test_wrong_arguments_are_refused(disk: SimulatedDisk, arguments: dict[str, Any]) -> None:
    """A number of checkpoints or seconds that makes no sense is refused."""
    with pytest.raises(ValueError, match=next(iter(arguments))), saver_on(disk, **arguments):
        pass

"""The output of commands, which stays on their workers: read in pieces, and removed there."""

from __future__ import annotations

import asyncio
import os
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager import AgentResult, WorkContext
from manager._control.errors import RequestError
from manager._control.requests import WAITS_MAX
from manager._control.server import CLIENTS_MAX
from manager._remote import messages
from manager._remote.link import UnansweredError
from manager._remote.messages import Body, MessageError
from manager._remote.pieces import PIECE_BYTES_MAX, Wanted, read_piece
from manager._remote.shelf import Shelf
from manager._run.streams import OutputFiles
from manager.agent import Row
from manager.outputs import OutputDirectory, Part
from tests.remote.fleets import World, queue, run

ID = "agent_0123456789ab"
FIRST = Part(ID, 1, "out", 0)
NOTHING = {"is_known": False, "data": b""}


class HeldShelf(Shelf):
    """A shelf whose disk takes no virtual time, and needs no thread."""

    async def answer(self, verb: str, body: Body, message_bytes_max: int) -> Body:
        return self._answer(verb, body, message_bytes_max)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[OutputDirectory]:
    with closing(OutputDirectory.open(str(tmp_path), write=True)) as opened:
        yield opened


def put(directory: OutputDirectory, agent_id: str, data: bytes, start: int = 1) -> None:
    files = OutputFiles(directory, Part(agent_id, start, "out", 0), 1 << 20)
    files.write(data)
    files.close()


async def read(world: World, agent_id: str, **wanted: Any) -> tuple[str, bytes]:
    """Return the worker that has answered, and all that it has of an agent's output."""
    workers, data, at = world.manager._workers, b"", wanted.pop("at", None)
    lease = world.manager.get(agent_id).lease
    assert workers is not None
    assert lease is not None
    known = {"worker": lease["worker"], "agent_id": agent_id, "start": 1, "stream": "out"}
    while True:
        some = {**known, "position": len(data), **wanted}
        reply = await workers.output(**some, at=at)
        piece, at = b64decode(reply["data"]), reply["at"]
        if not piece:
            return at, data
        data += piece


# --- pieces ---


@given(
    data=st.binary(max_size=60),
    bytes_max=st.integers(2, 40),
    takes=st.lists(st.integers(1, 9), min_size=1, max_size=9),
    step=st.integers(1, 9),
)
def test_pieces_are_what_the_files_hold(
    tmp_path_factory: pytest.TempPathFactory,
    data: bytes,
    bytes_max: int,
    takes: list[int],
    step: int,
) -> None:
    """Pieces that are read while a command prints have the bytes at their positions, in order, and
    leave out only what the files no longer have."""
    folder = str(tmp_path_factory.mktemp("x"))
    with closing(OutputDirectory.open(folder, write=True)) as directory:
        files, position = OutputFiles(directory, FIRST, bytes_max), 0
        for at in range(0, len(data) + step, step):
            files.write(data[at : at + step])
            written = min(at + step, len(data))
            piece = read_piece(directory, Wanted(FIRST, position), takes[at % len(takes)])
            assert piece.is_known is (written > 0)
            assert piece.data == data[piece.position : piece.position + len(piece.data)]
            assert piece.position == max(position, written - files.kept_bytes)
            assert piece.data or piece.position == written
            position = piece.position + len(piece.data)
        files.close()


def test_a_file_that_no_runner_writes_is_no_piece(directory: OutputDirectory) -> None:
    """A command that makes names and files of its own in the directory harms only its output."""
    names = {FIRST._replace(number=1 << 60).name: b"x", "out": b"x", f"{FIRST.name}.0": b"x"}
    for name, data in names.items():
        Path(directory.path, name).write_bytes(data)
    assert read_piece(directory, Wanted(FIRST, 3), 9) == (False, 3, b"")
    Path(directory.path, FIRST._replace(number=5).name).write_bytes(b"12345")
    assert read_piece(directory, Wanted(FIRST, 3), 9) == (True, 25, b"12345")
    Path(directory.path, FIRST._replace(number=9).name).write_bytes(b"67")
    assert read_piece(directory, Wanted(FIRST, 31), 9) == (True, 45, b"67")
    os.symlink("/etc/passwd", Path(directory.path, FIRST.name))
    answer = asyncio.run(Shelf(directory).answer("output", wanted(), 1 << 20))
    assert "not a regular file" in answer["error"]


def test_files_are_looked_up_again_if_one_is_removed(
    directory: OutputDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that its command removes while a piece is read does not make the stream unknown."""
    Path(directory.path, FIRST._replace(number=1).name).write_bytes(b"ab")
    names = directory.names
    stale = iter([[FIRST.name, *names()]])
    monkeypatch.setattr(directory, "names", lambda: next(stale, None) or names())
    assert read_piece(directory, Wanted(FIRST, 0), 9) == (True, 2, b"ab")


def test_each_answer_of_a_shelf_fits_into_a_message(tmp_path: Path) -> None:
    """Neither files that a command has made nor the name of the directory lead to an answer that
    can't be packed, which the manager would take for that of a worker that has gone."""
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    with closing(OutputDirectory.open(str(folder), write=True)) as directory:
        path = Path(directory.path, FIRST._replace(number=(1 << 40) - 1).name)
        path.touch()
        os.truncate(path, 1 << 30)  # so that it would begin at 2**70
        shelf = Shelf(directory)
        answer = asyncio.run(shelf.answer("output", wanted(), 1 << 20))
        assert messages.unpack(messages.pack(answer)) == {**NOTHING, "position": 0}
        path.unlink()
        os.mkfifo(path)
        answer = asyncio.run(shelf.answer("output", wanted(), 1 << 20))
        assert "not a regular file" in messages.unpack(messages.pack(answer))["error"]


def wanted(**fields: object) -> Body:
    return {"agent_id": ID, "start": 1, "stream": "out", "position": 0, **fields}


@pytest.mark.parametrize(
    "fields",
    [{"agent_id": 1}, {"start": -1}, {"stream": "in"}, {"stream": []}, {"position": 1 << 62}],
    ids=str,
)
def test_a_malformed_request_is_answered(
    directory: OutputDirectory, fields: dict[str, object]
) -> None:
    """A worker answers a request that it can't understand with the reason."""
    with pytest.raises(MessageError):
        Wanted.of(wanted(**fields))
    answer = asyncio.run(Shelf(directory).answer("output", wanted(**fields), 1 << 20))
    assert [*answer] == ["error"]
    answer = asyncio.run(Shelf(directory).answer("forget", {"agent_ids": 7}, 1 << 20))
    assert [*answer] == ["error"]


# --- on the network ---


def printing(directory: OutputDirectory, data: bytes) -> Any:
    async def work(context: WorkContext) -> AgentResult:
        put(directory, context.agent.agent_id, data, context.agent.starts)
        await context.checkpoint("printed")
        if context.agent.name == "runs":
            await asyncio.sleep(1e9)
        return AgentResult("done")

    return {"t": work}


def test_output_is_read_from_the_worker_that_has_it(directory: OutputDirectory) -> None:
    """The manager gets a stream of any length, while the command runs and afterwards, also from a
    worker that was started in the directory of one that has gone. One that has gone for good is
    named."""
    data = os.urandom(3 * PIECE_BYTES_MAX + 1)

    async def body(world: World) -> None:
        shelf = HeldShelf(directory)
        first = world.work(printing(directory, data), name="gpu", shelf=shelf)
        running, ended = queue(world, "runs"), queue(world, "ends")
        await world.ended(ended)
        assert await read(world, ended) == (first, data)
        assert await read(world, running) == (first, data)
        assert await read(world, running, stream="err") == (first, b"")
        await world.kill(first)
        other = world.work({}, name="other", shelf=shelf)
        await asyncio.sleep(10)
        with pytest.raises(RequestError, match=f"worker {first} has the output.*it has gone"):
            await read(world, ended)
        for fields in ({"at": other}, {"worker": "gpu.*"}, {"worker": "a.b.c"}, {"start": 1 << 62}):
            with pytest.raises((ValueError, TypeError)):
                await read(world, ended, **fields)
        second = world.work({}, name="gpu", shelf=shelf)
        await asyncio.sleep(10)
        assert await read(world, ended) == (second, data)

    run(body)


def test_removed_agents_leave_no_output(directory: OutputDirectory) -> None:
    """The files of an agent are removed on all workers once its removal can't be lost, and not
    before. Those of others stay, and a worker that can't be reached keeps its own."""

    async def body(world: World) -> None:
        shelf, settled = HeldShelf(directory), asyncio.Event()
        settle = world.desk.settle

        async def slowly(lsn: int) -> None:
            await settled.wait()
            await settle(lsn)

        worker = world.work(printing(directory, b"x"), shelf=shelf)
        world.work({}, shelf=shelf, queues=["none"])
        kept, pruned, cleaned = (queue(world, name) for name in ("kept", "pruned", "cleaned"))
        for ref in (kept, pruned, cleaned):
            await world.ended(ref)
        put(directory, pruned, b"of an earlier start", start=7)
        world.desk.settle = slowly
        world.manager.prune(pruned)
        await asyncio.sleep(30)
        assert len(directory.names()) == 4
        settled.set()
        await asyncio.sleep(30)
        assert {part.owner for part in directory.parts()} == {kept, cleaned}
        world.link_of(worker).is_connected = False
        world.manager.spawn("p", name="live")
        world.manager.prune(cleaned)
        world.manager._updates.forget(world.manager._rows())  # as a cleanup that cancels an agent
        await asyncio.sleep(30)
        assert {part.owner for part in directory.parts()} == {kept}  # the other worker shares them
        await world.kill(worker)

    run(body)


def test_a_removal_outlives_the_dispatcher(directory: OutputDirectory) -> None:
    """A dispatcher that ends while agents are removed makes no removal fail."""

    async def body(world: World) -> None:
        world.work(printing(directory, b"x"), shelf=HeldShelf(directory))
        ref = queue(world, "a")
        await world.ended(ref)
        updates = world.manager._updates
        row = world.manager._state.read(lambda fleet: fleet.find(ref))
        workers, updates.workers = updates.workers, None
        world.manager.prune(ref)

        def ending() -> Iterator[Row]:
            updates.workers = None
            yield row

        updates.workers = workers
        updates.forget(ending())
        await asyncio.sleep(30)
        assert directory.names() == []

    run(body)


def test_removals_that_wait_are_bounded(
    directory: OutputDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While removals can't become durable or reach the mirror, a bounded number of them waits.
    Later ones leave the files where they are, and are reported."""
    monkeypatch.setattr("manager._remote.inquiries._FORGOTTEN_MAX", 2)

    async def body(world: World) -> None:
        settled, asked = asyncio.Event(), list[list[str]]()

        class Asked(Shelf):
            async def answer(self, verb: str, body: Body, message_bytes_max: int) -> Body:
                asked.append(body["agent_ids"])
                return {}

        async def slowly(lsn: int) -> None:
            await settled.wait()

        world.work({}, shelf=Asked(directory))
        await asyncio.sleep(10)
        world.desk.settle = slowly
        workers = world.manager._workers
        assert workers is not None
        for ref in "abcde":
            workers.forget({ref: "gone.1"}, 1)
            await asyncio.sleep(1)
        settled.set()
        await asyncio.sleep(30)
        assert asked == [["a"], ["b", "c"]]
        assert caplog.text.count("workers keep the output of 1 removed agents") == 2

    run(body)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"position": 0, "data": b"x" * (PIECE_BYTES_MAX + 1), "is_known": True}, "a piece of"),
        ({"position": -1, "data": b"x", "is_known": True}, "a number is missing"),
        ({"position": 1 << 63, "data": b"x", "is_known": True}, "not a piece"),
        ({"position": 0, "data": "x", "is_known": True}, "not a piece"),
        ({"position": 0, "data": b"x"}, "not a piece"),
        ({"error": 7}, "error is not a string"),
        ({"error": "\x1b" * 100_000}, "\x1b" * 200),
        ({"version": 7, "version_min": 7}, "speaks versions"),
    ],
    ids=["huge", "negative", "far", "text", "incomplete", "error", "long", "version"],
)
def test_a_wrong_answer_of_a_worker_is_an_error(
    directory: OutputDirectory, answer: Body, problem: str
) -> None:
    """A worker that answers with anything but a piece is reported to the one who asked, and harms
    neither the manager nor its other workers."""

    class Wrong(Shelf):
        async def answer(self, verb: str, body: Body, message_bytes_max: int) -> Body:
            return answer

    async def body(world: World) -> None:
        world.work(printing(directory, b"x"), shelf=Wrong(directory))
        agent_id = queue(world, "a")
        await world.ended(agent_id)
        with pytest.raises(RequestError) as caught:
            await read(world, agent_id)
        assert problem in str(caught.value)
        assert len(str(caught.value)) < 1000
        world.manager.prune(agent_id)
        await world.ended(queue(world, "b"))

    run(body)


def test_late_answers_are_bounded(directory: OutputDirectory) -> None:
    """A worker that does not answer occupies a bounded number of clients, each for a bounded time,
    and beside those that wait, they leave connections for other requests. A worker reads for all
    of them at a time, and answers no more requests."""

    class Late(Shelf):
        asked = 0

        async def answer(self, verb: str, body: Body, message_bytes_max: int) -> Body:
            self.asked += 1
            await asyncio.sleep(1e6)
            return {}

    async def body(world: World) -> None:
        shelf = Late(directory)
        worker = world.work(printing(directory, b"x"), shelf=shelf)
        agent_id = queue(world, "a")
        await world.ended(agent_id)
        asked = [asyncio.create_task(read(world, agent_id)) for _ in range(20)]
        refused, waiting = await asyncio.wait(asked, timeout=1)
        assert shelf.asked == len(waiting)
        assert WAITS_MAX + len(waiting) < CLIENTS_MAX
        assert "others read output" in str(refused.pop().exception())
        data = messages.pack(world.desk.stamped(wanted(agent_id=agent_id)))
        with pytest.raises(UnansweredError):
            await world.link.ask(f"f.worker.{worker}.output", data, 1)
        assert shelf.asked == len(waiting)
        for task in asked:
            with pytest.raises(RequestError):
                async with asyncio.timeout(60):
                    await task
        await world.drain(worker)

    run(body)


def test_a_stale_manager_reads_nothing(
    directory: OutputDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker gives output only to the manager that it may obey, and ignores the others."""

    async def body(world: World) -> None:
        shelf = HeldShelf(directory)
        worker = world.work(printing(directory, b"x"), shelf=shelf)
        agent_id = queue(world, "runs")
        await asyncio.sleep(5)
        for stamp in ({"epoch": 0}, {"journal": "other", "epoch": 9}, {"version": 0}):
            body = world.desk.stamped(wanted(agent_id=agent_id))
            data = messages.pack({**body, **stamp})
            with pytest.raises(Exception, match=f"{worker}.output"):
                await world.link.ask(f"f.worker.{worker}.output", data, 1)
        assert not caplog.records  # over NATS, a handler that raises sends an answer

    run(body)

"""A soak of the adapters: a process that uses all of them is killed again and again.

    python -m tests.soak.soak_adapters --kills 100 --seed 7

A child process opens one journal with LangGraph's checkpoints, sessions of the Agents SDK,
conversations of Pydantic AI and tasks of A2A. Threads and an event loop write numbers to them as
fast as they can, and each acknowledgement is sent through a pipe. SIGKILL strikes at a random
moment. The next child first reports the numbers that its stores return. They must be whole, and
none may be lower than an acknowledged one. It needs the dependency group `adapters`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from a2a.server.cluster.version import TaskVersion
from a2a.server.context import ServerCallContext
from a2a.types.a2a_pb2 import ListTasksRequest, Task
from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import ModelRequest, UserPromptPart

from journal import Options, Tables
from journal.adapters.a2a import JournalVersionedTaskStore
from journal.adapters.langgraph import JournalSaver
from journal.adapters.openai_agents import JournalSession
from journal.adapters.pydantic_ai import JournalConversationStore
from tests.adapters.langgraph_support import checkpoint, place

ROOT = Path(__file__).resolve().parents[2]
THREADS = 8  # with a graph each
COROUTINES = 4  # of each other kind
RUN_S = 0.5  # the longest time from a child's report to its death
TIMEOUT_S = 120
CALL: Any = ServerCallContext()

Numbers = dict[str, int]  # the last number of each writer; -1 if it has written none


def opened(path: Path) -> Tables:
    """Open the tables, with segments and checkpoints so small that many compactions run."""
    options = Options(segment_bytes=1 << 16, checkpoint_min_bytes=1 << 18)
    return Tables.open(path, options=options, transaction_keys_max=100_000)


class Graph:
    """The checkpoints of a thread of LangGraph, each with a write and a value that stays."""

    def __init__(self, tables: Tables, name: str) -> None:
        self.name, self._saver = f"graph-{name}", JournalSaver(tables, keep=3)

    def last(self) -> int:
        """Return the number of the newest checkpoint, which must be whole."""
        found: Any = self._saver.get_tuple(place(self.name))
        if found is None:
            return -1
        number: int = found.checkpoint["channel_values"]["number"]
        assert found.checkpoint["channel_values"]["static"] == "x" * 500
        assert found.metadata["step"] == number
        # A crash may strike between the checkpoint and its write. Then only the checkpoint before
        # was acknowledged.
        if found.pending_writes != [("task", "number", number)]:
            assert found.pending_writes == []
            return number - 1
        return number

    def write(self, number: int) -> None:
        """Put the next checkpoint, and a write of it."""
        versions = {"number": f"{number + 1}", "static": "1"}
        state = checkpoint({"number": number, "static": "x" * 500}, versions)
        found = self._saver.get_tuple(place(self.name))
        config = place(self.name) if found is None else found.config
        new = versions if found is None else {"number": versions["number"]}
        config = self._saver.put(config, state, {"source": "loop", "step": number}, new)
        self._saver.put_writes(config, [("number", number)], "task")


class Session:
    """The items of a session of the Agents SDK, two in each turn."""

    def __init__(self, tables: Tables, name: str) -> None:
        self.name, self._session = f"session-{name}", JournalSession(name, tables)

    async def last(self) -> int:
        """Return the number of the newest item, whose turn must be whole."""
        found: list[Any] = await self._session.get_items()
        numbers = [item["number"] for item in found]
        assert numbers == [number for number in range(len(numbers) // 2) for _ in "ab"], numbers
        return numbers[-1] if numbers else -1

    async def write(self, number: int) -> None:
        """Add the two items of a turn."""
        items: Any = [{"role": "user", "content": "", "number": number} for _ in "ab"]
        await self._session.add_items(items)


class Chat:
    """The messages of a conversation of Pydantic AI."""

    def __init__(self, tables: Tables, name: str) -> None:
        self.name, self._store = f"chat-{name}", JournalConversationStore(tables)

    async def last(self) -> int:
        """Return the number of the newest message. All messages before it must be there."""
        chat = await self._store.load(self.name)
        numbers = [] if chat is None else [_number_of(message) for message in chat.messages]
        assert numbers == list(range(len(numbers))), numbers
        return len(numbers) - 1

    async def write(self, number: int) -> None:
        """Save the conversation with one more message."""
        chat = await self._store.load(self.name, limit=1)
        chat = chat or Conversation(conversation_id=self.name)
        chat.messages.append(ModelRequest(parts=[UserPromptPart(content=f"{number}")]))
        await self._store.save(chat)


class Job:
    """A task of A2A, whose context changes with each save."""

    def __init__(self, tables: Tables, name: str) -> None:
        self.name, self._store = f"task-{name}", JournalVersionedTaskStore(tables)

    async def last(self) -> int:
        """Return the number of the stored task, which only the list of its context may have."""
        stored = await self._store.get(self.name, CALL)
        listed = [
            (context, task.id)
            for context in ("even", "odd")
            for task in (await self._store.list(ListTasksRequest(context_id=context), CALL)).tasks
            if task.id == self.name
        ]
        if stored is None:
            assert listed == []
            return -1
        assert listed == [(stored.task.context_id, self.name)]
        return int(stored.task.metadata["number"])

    async def write(self, number: int) -> None:
        """Save the next version of the task."""
        stored = await self._store.get(self.name, CALL)
        version = TaskVersion.MISSING if stored is None else stored.version
        task = Task(id=self.name, context_id="odd" if number % 2 else "even")
        task.metadata["number"] = number
        await self._store.save(task, prev_version=version, context=CALL)


def _number_of(message: Any) -> int:
    return int(message.parts[0].content)


def writers(tables: Tables) -> tuple[list[Graph], list[Any]]:
    """Return the writers that work in threads, and those that work in an event loop."""
    kinds = (Session, Chat, Job)
    graphs = [Graph(tables, f"{number}") for number in range(THREADS)]
    return graphs, [kind(tables, f"{n}") for kind in kinds for n in range(COROUTINES)]


# --- the child ---


def work(path: Path, *, runs: bool) -> None:
    """Print the numbers of all writers. Then write until killed, and print acknowledgements."""
    with opened(path) as tables:
        threaded, looped = writers(tables)
        numbers = {writer.name: writer.last() for writer in threaded}
        numbers |= asyncio.run(_last_of(looped))
        print(json.dumps(numbers), flush=True)
        if not runs:
            return
        for writer in threaded:
            run = threading.Thread(target=_write_all, args=(writer, numbers[writer.name]))
            run.daemon = True
            run.start()
        asyncio.run(_write_in_loop(looped, numbers))


async def _last_of(looped: list[Any]) -> Numbers:
    return {writer.name: await writer.last() for writer in looped}


def _write_all(writer: Graph, number: int) -> None:
    while True:
        number += 1
        writer.write(number)
        _acknowledge(writer.name, number)


async def _write_in_loop(looped: list[Any], numbers: Numbers) -> None:
    async def run(name: str, write: Callable[[int], Awaitable[None]]) -> None:
        number = numbers[name]
        while True:
            number += 1
            await write(number)
            _acknowledge(name, number)

    await asyncio.gather(*(run(writer.name, writer.write) for writer in looped))


def _acknowledge(name: str, number: int) -> None:
    # The line is written at once and whole, since it is shorter than a pipe's atomic size.
    os.write(1, f"{name} {number}\n".encode())


# --- the parent ---


@contextmanager
def started(path: Path, *, runs: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """Start a child, and yield it until the block ends."""
    command = [sys.executable, "-m", "tests.soak.soak_adapters", "--child", str(path)]
    command += [] if runs else ["--reports-only"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
        try:
            yield child
        finally:
            child.kill()


def check_report(child: subprocess.Popen[bytes], acknowledged: Numbers) -> None:
    """Compare what a child's stores return with everything that was acknowledged."""
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line, f"the child ended with {child.wait()} before it reported"
    report: Numbers = json.loads(line)
    lost = {name: (n, report[name]) for name, n in acknowledged.items() if report[name] < n}
    assert not lost, f"acknowledged and lost: {lost}"


def acknowledgements(output: IO[bytes]) -> Iterator[tuple[str, int]]:
    """Yield the acknowledgements that a dead child has sent."""
    for line in output.read().splitlines(keepends=True):
        if line.endswith(b"\n"):
            name, number = line.split()
            yield name.decode(), int(number)


def soak(kills: int, seed: int) -> int:
    """Kill children. Return the number of acknowledged writes, of which none was lost."""
    generator, acknowledged, count = random.Random(seed), Numbers(), 0
    with tempfile.TemporaryDirectory(prefix="soak-adapters-") as name:
        path = Path(name) / "journal"
        for kill in range(1, kills + 1):
            with started(path) as child:
                assert child.stdout is not None
                check_report(child, acknowledged)
                time.sleep(generator.uniform(0, RUN_S))
                child.kill()
                for writer, number in acknowledgements(child.stdout):
                    acknowledged[writer] = number
                    count += 1
            if kill % 10 == 0:
                print(f"{kill} kills, {count:,} acknowledged writes, none lost", flush=True)
        with started(path, runs=False) as child:
            check_report(child, acknowledged)
            assert child.wait(TIMEOUT_S) == 0
    return count


def main(arguments: list[str]) -> None:
    """Run the soak, or a child of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--reports-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        work(options.child, runs=not options.reports_only)
        return
    count = soak(options.kills, options.seed)
    print(f"{options.kills} kills, {count:,} acknowledged writes, none lost")


if __name__ == "__main__":
    main(sys.argv[1:])

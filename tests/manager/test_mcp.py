"""MCP: a client reads and changes a fleet through `subagents mcp` while its writer lives."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from manager import SubAgentManager, WorkContext, run_workers
from manager._cli.cli import run_cli
from manager._cli.mcp_tools import Tools, server_of
from manager._control.requests import WAITS_MAX
from tests.installed import import_package
from tests.manager.control_support import controlled
from tests.manager.runner_support import put_in_state
from tests.support import TIMEOUT_S, until

mcp = import_package("mcp")

READING = {"list", "show", "history", "wait"}
CHANGING = {"spawn", "cancel", "retry", "pause", "resume", "answer", "prune"}


@asynccontextmanager
async def client(workspace: Path, *, read_only: bool = False) -> AsyncIterator[Any]:
    """Connect to a server in this process."""
    server = server_of(str(workspace), ".subagents", read_only=read_only)
    async with asyncio.timeout(TIMEOUT_S), mcp.Client(server) as connected:
        yield connected


async def call(client: Any, tool: str, /, **arguments: Any) -> Any:
    """Call a tool, and return what it returns, or the text of its error."""
    result = await client.call_tool(tool, arguments)
    return result.content[0].text if result.is_error else result.structured_content


def test_a_client_on_stdio_controls_a_fleet_while_its_writer_lives(tmp_path: Path) -> None:
    """A client that starts `subagents mcp` spawns, sees, pauses, resumes, answers and cancels the
    agents of a program that runs them, and waits for their ends."""

    async def work(context: WorkContext) -> str:
        if context.agent.starts == 1:
            await context.checkpoint({"at": 1})
            await context.cancelled.wait()
        return f"done {context.agent.prompt}"

    async def control(manager: SubAgentManager, connected: Any) -> None:
        names = {tool.name for tool in (await connected.list_tools()).tools}
        assert names == READING | CHANGING
        spawned = await call(connected, "spawn", prompt="p", agent_type="t", name="a")
        assert (spawned["name"], spawned["status"]) == ("a", "queued")
        assert "no worker" in await call(connected, "spawn", prompt="p", agent_type="u")
        async for agent in manager.changes(after=0):
            if agent.checkpoint:
                break
        assert (await call(connected, "wait", ref="a", timeout_s=0.01))["status"] == "running"
        assert (await call(connected, "pause", ref="a"))["status"] == "interrupted"
        assert (await call(connected, "answer", ref="a", value=["b"]))["name"] == "a"
        assert manager.get("a").answer == ["b"]
        await call(connected, "resume", ref="a")
        assert (await call(connected, "wait", ref="a"))["status"] == "completed"
        assert await call(connected, "pause") == {"paused": True}
        await call(connected, "spawn", prompt="p", agent_type="t", name="b")
        assert (await call(connected, "cancel", ref="b", reason="r"))["reason"] == "r"
        assert (await call(connected, "retry", ref="b"))["status"] == "queued"
        assert await call(connected, "resume") == {"paused": False}
        assert await call(connected, "prune", ref="a") == {"pruned": 1}
        assert "no agent 'a'; agents: 1" in await call(connected, "cancel", ref="a")

    async def main() -> None:
        args = ["-P", "-m", "manager", "mcp", "--workspace", str(tmp_path)]
        command = mcp.StdioServerParameters(command=sys.executable, args=args)
        async with (
            asyncio.timeout(TIMEOUT_S),
            SubAgentManager.aopen(tmp_path, control=True) as manager,
            mcp.Client(command) as connected,
        ):
            loop = asyncio.create_task(run_workers(manager, {"t": work}, until_idle=False))
            await control(manager, connected)
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)

    asyncio.run(main())


def test_a_client_reads_without_a_writer(tmp_path: Path) -> None:
    """Agents and their histories can be read without a process that runs them. Long lists are
    bounded, and say how long they are."""
    put_in_state(tmp_path, ("a", "true", "interrupted"), ("b", "true", "queued"))

    async def main() -> None:
        async with client(tmp_path, read_only=True) as connected:
            listed = await connected.list_tools()
            assert {tool.name for tool in listed.tools} == READING
            assert all(tool.annotations.read_only_hint for tool in listed.tools)
            everything = await call(connected, "list")
            assert [agent["name"] for agent in everything["agents"]] == ["a", "b"]
            newest = await call(connected, "list", limit=1)
            assert ([agent["name"] for agent in newest["agents"]], newest["total"]) == (["b"], 2)
            assert (await call(connected, "list", status="failed"))["total"] == 0
            assert "status must be one of" in await call(connected, "list", status="x")
            assert (await call(connected, "show", ref="a"))["metadata"]["task"] == "name:a"
            history = await call(connected, "history", ref="a", limit=2)
            kinds = [change["kind"] for change in history["changes"]]
            assert (kinds, history["total"]) == (["start", "interrupt"], 3)
            assert "no agent 'nobody'; agents: 1" in await call(connected, "show", ref="nobody")

    asyncio.run(main())


def test_a_client_changes_a_fleet_without_a_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs no process that runs agents works without one, and the rest is refused."""
    monkeypatch.setattr("manager._cli.reach._LOCKED_FOR_S", 0)
    put_in_state(tmp_path, ("a", "true", "queued"))

    async def main() -> None:
        async with client(tmp_path) as connected:
            assert (await call(connected, "cancel", ref="a"))["status"] == "cancelled"
            assert (await call(connected, "wait", ref="a"))["status"] == "cancelled"
            assert (await call(connected, "retry", ref="a"))["status"] == "queued"
            assert "no process that takes requests" in await call(connected, "pause")
            assert "could end it takes requests" in await call(connected, "wait", ref="a")

    asyncio.run(main())
    with controlled(tmp_path) as manager:
        assert manager.get("a").attempt == 2


def test_waits_hold_up_no_other_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many clients' waits leave threads for other tools. A wait above the limit is refused."""
    put_in_state(tmp_path, ("a", "true", "queued"))
    is_over = threading.Event()

    def waited(*_: object) -> dict[str, Any]:
        assert is_over.wait(TIMEOUT_S)
        return {"status": "completed"}

    monkeypatch.setattr("manager._cli.mcp_tools.waited", waited)

    async def main() -> None:
        async with client(tmp_path) as connected:
            waits = [asyncio.create_task(call(connected, "wait", ref="a")) for _ in range(49)]
            listed = asyncio.create_task(call(connected, "list"))
            refused, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            assert "48 others wait already" in refused.pop().result()
            assert (await listed)["total"] == 1
            is_over.set()
            ends = await asyncio.gather(*waits)
            assert sum(end == {"status": "completed"} for end in ends) == 48

    try:
        asyncio.run(main())
    finally:
        is_over.set()


def test_a_cancelled_wait_counts_until_its_thread_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait that no thread is free for is refused, even if the clients of the others have gone."""
    is_over, begun = threading.Event(), threading.Semaphore(0)

    def waited(*_: object) -> dict[str, Any]:
        begun.release()
        assert is_over.wait(TIMEOUT_S)
        return {"status": "completed"}

    monkeypatch.setattr("manager._cli.mcp_tools.waited", waited)
    tools = Tools(str(tmp_path), ".subagents")

    async def main() -> None:
        waits = [asyncio.create_task(tools.wait("a")) for _ in range(WAITS_MAX)]
        await asyncio.sleep(0)
        for _ in waits:
            assert begun.acquire(timeout=TIMEOUT_S)
        for each in waits:
            each.cancel()
        await asyncio.wait(waits)
        with pytest.raises(Exception, match="48 others wait already"):
            await asyncio.wait_for(tools.wait("a"), TIMEOUT_S)
        is_over.set()
        until(lambda: all(wait.done() for wait in tools._waiting), "the ends of the waits")
        assert await tools.wait("a") == {"status": "completed"}

    try:
        asyncio.run(main())
    finally:
        is_over.set()


@contextmanager
def server_process(workspace: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a server, and return it once it has replied."""
    command = [sys.executable, "-P", "-m", "manager", "mcp", "--workspace", str(workspace)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            client_info = {"name": "n", "version": "1"}
            params = {
                "protocolVersion": "2024-11-05",
                "capabilities": {},
                "clientInfo": client_info,
            }
            send(process, method="initialize", id=1, params=params)
            assert "serverInfo" in process.stdout.readline()
            send(process, method="notifications/initialized")
            yield process
        finally:
            process.kill()


def send(process: subprocess.Popen[str], **message: object) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    process.stdin.flush()


def test_an_interrupt_ends_the_server(tmp_path: Path) -> None:
    """SIGINT ends a server at once, with the exit code of the command line, although its client
    keeps stdin open."""
    with server_process(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S / 2) == 130


def test_the_server_ends_with_its_client(tmp_path: Path) -> None:
    """A server whose stdin has ended does not wait for what its client waited for."""
    with controlled(tmp_path) as manager, server_process(tmp_path) as process:
        manager.spawn("p", name="a")
        params = {"name": "wait", "arguments": {"ref": "a"}}
        send(process, method="tools/call", id=2, params=params)
        control = manager._control
        assert control is not None
        until(lambda: control.requests._waits == 1, "the wait")
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(TIMEOUT_S / 2) == 0


def test_the_command_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the extra, the command says what to install, and exits with 4."""
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    assert run_cli(["mcp", "--workspace", str(tmp_path)]) == 4
    assert "pip install 'journal-engine[mcp]'" in capsys.readouterr().err

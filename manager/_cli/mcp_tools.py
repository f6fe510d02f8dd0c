"""MCP tools: the requests that an MCP client may make of a fleet.

Each tool is a method; its docstring and its arguments are what the client is shown. A tool that
raises an error is answered with the error's message.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from _journal_console.exits import STOPPED_BY_SIGNAL

from journal import __version__
from manager._cli.messages import message_of
from manager._cli.options import state_path
from manager._cli.output import as_json
from manager._cli.reach import changed, waited
from manager._cli.signs import signs_of
from manager._cli.states import fleet_at
from manager._control.requests import EXPECTED, WAITS_MAX, as_reply
from manager.history import AgentChange, read_history

if TYPE_CHECKING:
    from mcp.server import MCPServer

_SHOWN = 100
_WAIT_S = 60.0
_INSTRUCTIONS = (
    "The sub-agents of one workspace. A ref is an agent's id or name; a name means its newest "
    "agent. Changes are durable when a tool returns."
)


class Tools:
    """The tools for one fleet. Each runs in a thread, because it reads files and waits."""

    def __init__(self, workspace: str, state_dir: str) -> None:
        self._where = workspace, state_dir
        self._path = state_path(workspace, state_dir)
        self._waiting: set[Future[dict[str, Any]]] = set()

    async def list(self, status: str | None = None, limit: int = _SHOWN) -> dict[str, Any]:
        """List the newest agents, oldest first, or those with a status: queued, running,
        interrupted, completed, failed, cancelled or budget_exhausted. `total` counts all of them.
        """

        def read() -> dict[str, Any]:
            agents = fleet_at(self._path).agents(status=status, include_archived=True)  # type: ignore[arg-type]
            shown = agents[-limit:] if limit > 0 else []
            known = [as_reply(agent) | {"agent_type": agent.agent_type} for agent in shown]
            return {"agents": known, "total": len(agents)}

        return await _in_thread(read)

    async def show(self, ref: str) -> dict[str, Any]:
        """Show all fields of an agent, such as its result, its checkpoint and its question."""

        def read() -> dict[str, Any]:
            agent = fleet_at(self._path).get(ref)
            return as_json(agent, signs_of(self._path, [agent]))

        return await _in_thread(read)

    async def history(self, ref: str, limit: int = _SHOWN) -> dict[str, Any]:
        """List the last changes of an agent that the journal retains, oldest first."""

        def read() -> dict[str, Any]:
            changes = read_history(self._path, ref)
            shown = changes[-limit:] if limit > 0 else []
            return {"changes": [_change(change) for change in shown], "total": len(changes)}

        return await _in_thread(read)

    async def wait(self, ref: str, timeout_s: float = _WAIT_S) -> dict[str, Any]:
        """Wait until an agent has ended, and return its status. If it has not ended within
        `timeout_s`, return the status that it has then; call this again."""

        def read() -> dict[str, Any]:
            try:
                return waited(self._path, ref, min(max(timeout_s, 0.0), _WAIT_S))
            except TimeoutError:
                return as_reply(fleet_at(self._path).get(ref))

        # A request that was cancelled leaves its thread, which waits on.
        self._waiting = {wait for wait in self._waiting if not wait.done()}
        if len(self._waiting) >= WAITS_MAX:
            raise _tool_error(f"{WAITS_MAX} others wait already; try again later")
        waiting = _in_daemon_thread(read)
        self._waiting.add(waiting)
        return await _shown(asyncio.wrap_future(waiting))

    async def spawn(
        self,
        prompt: str,
        agent_type: str = "general",
        name: str | None = None,
        parent_id: str | None = None,
        model: str | None = None,
        role: str | None = None,
        token_budget: int | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Queue a new agent. This is refused unless a program runs agents of its type."""
        return await self._change(
            "spawn",
            prompt=prompt,
            agent_type=agent_type,
            name=name,
            parent_id=parent_id,
            model=model,
            role=role,
            token_budget=token_budget,
            metadata=metadata,
        )

    async def cancel(
        self, ref: str, reason: str | None = None, descendants: bool = False
    ) -> dict[str, Any]:
        """Cancel an agent, and with `descendants` all live agents below it. One that has ended
        stays as it is."""
        return await self._change("cancel", ref=ref, reason=reason, descendants=descendants)

    async def retry(self, ref: str) -> dict[str, Any]:
        """Queue another agent like one that has ended without completing."""
        return await self._change("retry", ref=ref)

    async def pause(self, ref: str | None = None) -> dict[str, Any]:
        """Interrupt a running agent until it is resumed. Without a ref, start no more agents."""
        return await self._change("pause", ref=ref)

    async def resume(self, ref: str | None = None) -> dict[str, Any]:
        """Let an interrupted agent run again. Without a ref, start agents again."""
        return await self._change("resume", ref=ref)

    async def answer(self, ref: str, value: Any) -> dict[str, Any]:
        """Store the answer to the question (`needs_input`) of an interrupted agent."""
        return await self._change("answer", ref=ref, value=value)

    async def prune(
        self, ref: str | None = None, ended_for_s: float | None = None
    ) -> dict[str, Any]:
        """Remove an ended agent and all below it, or all that ended at least `ended_for_s` ago."""
        return await self._change("prune", ref=ref, ended_for_s=ended_for_s)

    async def _change(self, verb: str, **arguments: Any) -> dict[str, Any]:
        return await _in_thread(lambda: changed(*self._where, verb, **arguments))


def server_of(workspace: str, state_dir: str, *, read_only: bool) -> MCPServer[Any]:
    """Return an MCP server with the tools for a fleet. Raises ImportError without the package."""
    try:
        from mcp.server import MCPServer
        from mcp.types import ToolAnnotations
    except ImportError as error:
        raise ImportError(
            "subagents mcp needs the package mcp; run: pip install 'journal-engine[mcp]'"
        ) from error
    tools = Tools(workspace, state_dir)
    server = MCPServer(
        "subagents", instructions=_INSTRUCTIONS, version=__version__, log_level="WARNING"
    )
    reading = ToolAnnotations(read_only_hint=True)
    for tool in (tools.list, tools.show, tools.history, tools.wait):
        server.add_tool(tool, annotations=reading)
    changing: tuple[Callable[..., Any], ...] = (
        *(tools.spawn, tools.cancel, tools.retry, tools.pause),
        *(tools.resume, tools.answer, tools.prune),
    )
    for change in () if read_only else changing:
        ends = change in (tools.cancel, tools.prune)
        hints = ToolAnnotations(read_only_hint=False, destructive_hint=ends)
        server.add_tool(change, annotations=hints)
    return server


def serve(workspace: str, state_dir: str, *, read_only: bool) -> None:
    """Serve the tools for a fleet on stdin and stdout, until stdin ends or SIGINT ends the process.

    The thread that reads stdin can't be interrupted, so nothing is tidied up at SIGINT. Like any
    kill, that harms no state.
    """
    server = server_of(workspace, state_dir, read_only=read_only)
    signal.signal(signal.SIGINT, lambda number, _: os._exit(STOPPED_BY_SIGNAL + number))
    server.run()


def _in_daemon_thread(function: Callable[[], dict[str, Any]]) -> Future[dict[str, Any]]:
    """Call `function` in a thread of its own, so that many waits hold up no other tool. The exit of
    the process does not wait for it."""
    future: Future[dict[str, Any]] = Future()
    future.set_running_or_notify_cancel()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, name="subagents-wait", daemon=True).start()
    return future


async def _in_thread(function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Call `function` in a thread. Raise its errors as `_shown` does."""
    return await _shown(asyncio.to_thread(function))


async def _shown(call: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """Await a call. Raise its expected errors as errors that the client is shown."""
    try:
        return await call
    except (*EXPECTED, OSError) as error:
        raise _tool_error(message_of(error)) from error


def _tool_error(text: str) -> Exception:
    """Return an error whose text the client is shown."""
    from mcp.server.mcpserver.exceptions import ToolError

    error: Exception = ToolError(text)
    return error


def _change(change: AgentChange) -> dict[str, Any]:
    after = change.after
    return {
        "lsn": change.lsn,
        "written_at_ns": change.written_at_ns,
        "kind": change.kind or None,
        "by_agent_id": change.agent_id,
        "status": None if after is None else after.status,
        "reason": None if after is None else after.reason,
        "progress": None if after is None else after.progress,
        "steps_taken": None if after is None else after.steps_taken,
        "tokens_used": None if after is None else after.tokens_used,
    }

"""output: print what a command has printed."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import click
from _journal_console import naming_stdout, release_stdout
from _journal_console.exits import READER_GONE

from manager._cli.completion import complete_ref
from manager._cli.options import check_servers, state_dir_option, state_path, workspace_option
from manager._cli.output import find_agent, say
from manager._cli.remote_output import RemoteReader, connected
from manager._cli.states import changes_at, fleet_at
from manager._control.errors import RequestError
from manager._run.facts import printed
from manager.agent import Agent
from manager.outputs import OutputDirectory, Part, Stream, owner_of

_READ_BYTES = 1 << 16


@click.command(short_help="Print what a command has printed.")
@click.argument("ref", shell_complete=complete_ref)
@workspace_option
@state_dir_option
@click.option("--stderr", is_flag=True, help="Print what it wrote to stderr, not to stdout.")
@click.option("-f", "--follow", is_flag=True, help="Continue until the command has ended.")
@click.option(
    "--on", metavar="URL", help="Ask the workers of these servers if no other process can."
)
@click.option(
    "--creds",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="File with NATS credentials for --on.",
)
def output(
    ref: str,
    workspace: str,
    state_dir: str,
    stderr: bool,
    follow: bool,
    on: str | None,
    creds: str | None,
) -> int:
    """Print what the command of the sub-agent whose id or name is REF has printed.

    The bytes are printed as they are, with everything that controls a terminal. If the command has
    been started several times, this is the output of the last time. The beginning of an output that
    is longer than `run --output-bytes` is not kept, and a crash of the machine may lose the end of
    it; a message says so.

    The output of a command that runs, or ran last, on a worker elsewhere is in the worker's
    directory. The process that has the state open asks the worker for it. If there is none, give
    the --on of the run; then this process opens the state, and starts nothing.

    Exits with 1 if a part of the output is missing.
    """
    from manager._run.tasks import argv_of

    check_servers(on, creds)
    path = state_path(workspace, state_dir)
    agent = find_agent(fleet_at(path), ref)
    if argv_of(agent) is None:
        say(f"{ref}: has no output, because it is not a command of `subagents run`")
        return 1
    if on is not None and agent.lease is not None:
        click.get_current_context().with_resource(connected(workspace, state_dir, on, creds))
    following = _Following(path, agent) if follow else None
    stream: Stream = "err" if stderr else "out"
    reader, said = _reader(path, agent, stream), set[str]()
    try:
        while following is not None and not following.has_ended(reader.poll_s):
            reader = _reader(path, following.agent, stream, reader)
            _copy_some(ref, reader, said)
        if following is not None:
            reader = _reader(path, following.agent, stream, reader)
        _copy(reader)
    except BrokenPipeError:
        release_stdout()
        return READER_GONE
    if following is not None and following.error is not None:
        raise following.error
    return _report_missing(ref, reader, "stderr" if stderr else "stdout")


def _reader(
    path: str, agent: Agent, stream: Stream, known: _Reader | RemoteReader | None = None
) -> _Reader | RemoteReader:
    """Return a reader of an agent's output: the known one, unless the agent has moved."""
    kind = _Reader if agent.lease is None else RemoteReader
    reader = known if isinstance(known, kind) else kind(path, agent, stream)
    reader.agent = agent
    return reader


def _copy_some(ref: str, reader: _Reader | RemoteReader, said: set[str]) -> None:
    """Copy what there is. A worker or a manager that does not answer now may do so later."""
    try:
        _copy(reader)
    except (RequestError, TimeoutError) as error:
        if str(error) not in said:
            said.add(str(error))
            say(f"{ref}: waits: {error}")


def _copy(reader: _Reader | RemoteReader) -> None:
    for data in reader.read():
        with naming_stdout():
            sys.stdout.buffer.write(data)
    sys.stdout.flush()


def _report_missing(ref: str, reader: _Reader | RemoteReader, stream: str) -> int:
    """Say how much of the output is missing. Return 1, or 0 if it is complete."""
    total = printed(reader.agent, stream).get("bytes")
    if not isinstance(total, int):  # the command runs, or was killed with its runner
        if reader.has_gap:
            say(f"{ref}: the beginning of its {stream} is no longer kept")
        return int(reader.has_gap)
    if total <= reader.bytes:
        return 0
    say(
        f"{ref}: {total - reader.bytes} of the {total} bytes of its {stream} are not kept; "
        "to see its end: subagents show"
    )
    return 1


class _Following:
    """Follows an agent in a thread until it has ended, was interrupted or is gone."""

    def __init__(self, path: str, agent: Agent) -> None:
        self.agent = agent
        """The newest state of the agent."""

        self.error: Exception | None = None
        """The error that ended the following."""

        self._path = path
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def has_ended(self, wait_s: float) -> bool:
        """Wait up to `wait_s` seconds, and return whether nothing more is printed."""
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def _follow(self) -> None:
        try:
            for agent in changes_at(self._path):
                if agent.agent_id == self.agent.agent_id:
                    self.agent = agent
                    if agent.status not in ("queued", "running"):
                        break
        except Exception as error:
            self.error = error


class _Reader:
    """Reads the parts of one stream, those of the last start, as they are written."""

    poll_s = 0.05
    """The time between two calls of `read`, in seconds."""

    def __init__(self, state_path: str, agent: Agent, stream: Stream) -> None:
        self.agent = agent
        """The agent as it was last seen."""

        self.bytes = 0
        """The number of bytes that were read."""

        self.has_gap = False
        """True if parts were removed before they were read."""

        self._state_path = state_path
        self._stream = stream
        self._next = 0  # the number of the part after the open one
        self._fd: int | None = None

    def read(self) -> Iterator[bytes]:
        """Yield everything that has been written since the last call."""
        try:
            directory = OutputDirectory.open(self._state_path)
        except FileNotFoundError:
            return
        with closing(directory):
            while True:
                yield from self._rest()
                part = self._open_next(directory)
                if part is None:
                    return
                yield from self._rest()  # what was written before the next part began
                if self._fd is not None:
                    os.close(self._fd)
                self._fd, self._next = part

    def _rest(self) -> Iterator[bytes]:
        while self._fd is not None and (data := os.read(self._fd, _READ_BYTES)):
            self.bytes += len(data)
            yield data

    def _open_next(self, directory: OutputDirectory) -> tuple[int, int] | None:
        """Open the next part. Return its handle and the number after its own, or None if there is
        no next part yet.
        """
        owner = owner_of(self.agent.agent_id)
        part = Part(owner, self.agent.starts, self._stream, self._next)
        with suppress(FileNotFoundError):
            return directory.read(part), part.number + 1
        for each in directory.parts():
            if each[:3] == part[:3] and each >= part:
                with suppress(FileNotFoundError):
                    fd = directory.read(each)
                    self.has_gap |= each > part  # it was removed, because two newer ones exist
                    return fd, each.number + 1
        return None

"""Control: a process with `control=True` takes requests of other processes of its user."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from journal import JournalReader, UnsafePathError
from manager import AgentResult, SubAgentManager, UnknownAgentError
from manager._control import place, server
from manager._control.client import request
from manager._control.errors import NoReplyError, RefusedError, RequestError
from manager.outputs import OutputDirectory, Part
from tests.manager.control_support import STATE, ask, client, controlled, received
from tests.manager.runner_support import until
from tests.support import foreign_loop


def wait_until(manager: SubAgentManager, waits: int) -> None:
    """Wait until so many clients wait for an agent's end."""
    control = manager._control
    assert control is not None
    until(lambda: control.requests._waits == waits, f"{waits} clients wait")


def test_a_request_changes_an_agent_durably(tmp_path: Path) -> None:
    """A reply comes once the change is durable, and says how the agent is now."""
    with controlled(tmp_path) as manager:
        agent = manager.spawn("p", name="a")
        child = manager.spawn("p", name="b", parent_id="a")
        reply = ask(tmp_path, "cancel", ref="b", reason="enough")
        expected = {"agent_id": child.agent_id, "name": "b", "status": "cancelled"}
        assert reply == {**expected, "reason": "enough"}
        assert manager.stats().durable_lsn >= manager.get("b").lsn
        manager.spawn("p", name="c", parent_id="a")
        ask(tmp_path, "cancel", ref=agent.agent_id, descendants=True)
        assert [manager.get(name).status for name in "ac"] == ["cancelled", "cancelled"]
        manager.spawn("p", name="painter")
        manager.interrupt("painter", "asks", needs_input="red?")
        assert ask(tmp_path, "answer", ref="painter", value=["blue"])["status"] == "interrupted"
        assert manager.get("painter").answer == ["blue"]


def test_a_prune_removes_agents_and_their_files(tmp_path: Path) -> None:
    """A prune removes an ended agent, or all that ended long enough ago, and what their commands
    have printed. The reply states their number."""
    with controlled(tmp_path) as manager:
        for name in "abc":
            agent = manager.spawn("p", name=name)
            manager.update_from_result(name, AgentResult("done"))
            with closing(OutputDirectory.open(manager.path, write=True)) as outputs:
                os.close(outputs.create(Part(agent.agent_id, 1, "out", 0)))
        manager.spawn("p", name="live")
        assert ask(tmp_path, "prune", ref="a") == {"pruned": 1}
        with closing(OutputDirectory.open(manager.path)) as outputs:
            assert len(outputs.names()) == 2
        with pytest.raises(RefusedError, match="prune needs"):
            ask(tmp_path, "prune", ref="live")
        assert ask(tmp_path, "prune", ended_for_s=0) == {"pruned": 2}
        assert [agent.name for agent in manager.agents()] == ["live"]
        with closing(OutputDirectory.open(manager.path)) as outputs:
            assert outputs.names() == []


def test_a_wait_ends_with_the_agent(tmp_path: Path) -> None:
    """A client can wait for an agent's end, while others send requests."""
    with controlled(tmp_path) as manager:
        manager.spawn("p", name="a")
        replies: list[dict[str, object]] = []
        waiter = threading.Thread(target=lambda: replies.append(ask(tmp_path, "wait", ref="a")))
        waiter.start()
        ask(tmp_path, "cancel", ref="a")
        waiter.join()
        assert [reply["status"] for reply in replies] == ["cancelled"]
        assert ask(tmp_path, "wait", ref="a") == replies[0]


def test_a_wait_has_any_time_limit(tmp_path: Path) -> None:
    """A time limit of 0 ends the wait for an agent that lives, and one beyond what the system
    counts is none."""
    with controlled(tmp_path) as manager:
        manager.spawn("p", name="a")
        with pytest.raises(TimeoutError, match="within 0 s"):
            request(manager.path, "wait", timeout_s=0, ref="a")
        manager.cancel("a")
        reply = request(manager.path, "wait", timeout_s=1e300, ref="a")
        assert reply is not None
        assert reply["status"] == "cancelled"


def test_an_error_keeps_its_name_and_its_message(tmp_path: Path) -> None:
    """What the manager raises, the client raises with the same message."""
    with controlled(tmp_path) as manager:
        with pytest.raises(UnknownAgentError) as expected:
            manager.get("nobody")
        with pytest.raises(RefusedError) as raised:
            ask(tmp_path, "cancel", ref="nobody")
        assert (raised.value.kind, str(raised.value)) == ("UnknownAgentError", str(expected.value))
        manager.spawn("p", name="a")
        with pytest.raises(RefusedError, match="interrupted agent"):
            ask(tmp_path, "answer", ref="a", value=1)
        with pytest.raises(RefusedError, match="use a newer version"):
            ask(tmp_path, "fly", ref="a")


def test_the_socket_is_the_owners_alone(tmp_path: Path) -> None:
    """The socket and its directory are private, known to every tool, and gone after the close.
    Without `control` there is none."""
    state = tmp_path / STATE
    with SubAgentManager.open(tmp_path):
        assert request(str(state), "wait", ref="a") is None
    before = os.umask(0o377)
    try:
        manager = SubAgentManager.open(tmp_path, control=True)
    finally:
        os.umask(before)
    with manager:
        assert stat.S_IMODE((state / "control").stat().st_mode) == 0o700
        assert stat.S_IMODE((state / "control" / "socket").stat().st_mode) == 0o600
        with JournalReader.open(state) as reader:
            assert [file.kind for file in reader.files() if file.name == "control"] == ["companion"]
    assert not list((state / "control").iterdir())


def test_the_other_side_has_the_same_uid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither side talks to a process of another user."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert place.is_own(ours)
        other = os.geteuid() + 1
        with monkeypatch.context() as patch:
            patch.setattr(os, "geteuid", lambda: other)
            assert not place.is_own(ours)
    with controlled(tmp_path):
        with monkeypatch.context() as patch:
            patch.setattr(server, "is_own", lambda connection: False)
            with pytest.raises(NoReplyError):
                ask(tmp_path, "wait", ref="a")
        with monkeypatch.context() as patch:
            patch.setattr(place, "is_own", lambda connection: False)
            with pytest.raises(UnsafePathError, match="another user's process"):
                ask(tmp_path, "wait", ref="a")


def test_a_stale_socket_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that a killed writer has left means that nobody listens, and makes room for the next
    one. What is no socket is refused."""
    file = tmp_path / STATE / "control" / "socket"
    with controlled(tmp_path):
        pass
    monkeypatch.chdir(file.parent)  # the whole path may be too long for a socket
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(file.name)
    assert request(str(tmp_path / STATE), "wait", ref="a") is None
    with controlled(tmp_path) as manager:
        manager.spawn("p", name="a")
        ask(tmp_path, "cancel", ref="a")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafePathError, match="not a socket"):
        SubAgentManager.open(tmp_path, control=True)
    file.unlink()
    file.parent.rmdir()
    file.parent.symlink_to(tmp_path)
    with pytest.raises(UnsafePathError, match="symlink"):
        SubAgentManager.open(tmp_path, control=True)
    SubAgentManager.open(tmp_path).close()  # the lock was released


def test_a_path_of_any_length_works_or_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of a state may be longer than that of a socket. Where the system has no other name
    for the socket, the open fails and names the way out."""
    workspace = tmp_path / ("long" * 40)
    workspace.mkdir()
    with controlled(workspace) as manager:
        manager.spawn("p", name="a")
        ask(workspace, "cancel", ref="a")
    monkeypatch.setattr(place, "_HANDLES", "/nowhere")
    with pytest.raises(OSError, match="use a state with a shorter path"):
        SubAgentManager.open(workspace, control=True)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, controlled(Path(folder)) as manager:
        manager.spawn("p", name="a")
        ask(Path(folder), "cancel", ref="a")


def test_the_thread_runs_no_loop_of_the_program_s_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are answered where a loop that the program's policy makes can't run in a thread."""
    monkeypatch.setattr(asyncio, "new_event_loop", foreign_loop)
    with controlled(tmp_path) as manager:
        manager.spawn("p", name="a")
        assert ask(tmp_path, "cancel", ref="a")["name"] == "a"


def test_a_forked_child_does_not_listen(tmp_path: Path) -> None:
    """If the writer is killed while a forked child of it lives, nobody listens any more."""
    code = (
        "import os, sys, time\n"
        "from manager import SubAgentManager\n"
        "manager = SubAgentManager.open(sys.argv[1], control=True)\n"
        "child = os.fork()\n"
        "if child == 0: print(os.getpid(), flush=True)\n"
        "time.sleep(600)\n"
    )
    argv = [sys.executable, "-P", "-W", "ignore", "-c", code, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        child = int(writer.stdout.readline())
        try:
            writer.kill()
            writer.wait()
            assert request(str(tmp_path / STATE), "wait", timeout_s=5, ref="a") is None
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", b""),
        (b"\n", b"not a line of JSON"),
        (b"{", b""),
        (b"\xff\xfe\n", b"not a line of JSON"),
        (b"[" * 100_000 + b"\n", b"not a line of JSON"),
        (b"7" * 10_000 + b"\n", b"not a line of JSON"),
        (b"[]\n", b"not a JSON object"),
        (b"{}\n", b"no request None"),
        (b'{"verb": ["cancel"]}\n', b"no request"),
        (b'{"verb": "_notify"}\n', b"no request"),
        (b'{"verb": "cancel"}\n', b"TypeError"),
        (b'{"verb": "cancel", "ref": 7}\n', b"TypeError"),
        (b'{"verb": "cancel", "ref": "\\ud800"}\n', b"Error"),
        (b'{"verb": "cancel", "ref": "a", "more": 1}\n', b"TypeError"),
        (b'{"verb": "answer", "ref": "a", "value": NaN}\n', b"ValueError"),
        (b'{"verb": "wait", "ref": "nobody"}\n', b"UnknownAgentError"),
        (b'{"verb": "pause", "ref": []}\n', b"TypeError"),
        (b'{"verb": "retry"}\n', b"TypeError"),
        (b'{"verb": "prune"}\n', b"ValueError"),
        (b'{"verb": "prune", "ended_for_s": "1"}\n', b"TypeError"),
        (b'{"verb": "prune", "ended_for_s": NaN}\n', b"ValueError"),
        (b'"' + b"a" * (3 * server.REQUEST_BYTES_MAX), b"bytes"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_hostile_request_harms_only_its_client(
    tmp_path: Path, sent: bytes, expected: bytes
) -> None:
    """Whatever a client sends, it gets an error or nothing, and the next one is served."""
    with controlled(tmp_path) as manager:
        manager.spawn("p", name="a")
        manager.interrupt("a", "asks", needs_input="?")
        lsn = manager.get("a").lsn
        with client(tmp_path, sent) as connection:
            connection.shutdown(socket.SHUT_WR)
            reply = received(connection)
        assert expected in reply
        assert manager.get("a").lsn == lsn
        assert ask(tmp_path, "cancel", ref="a")["status"] == "cancelled"


def test_a_slow_client_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not complete its request in time loses its connection."""
    monkeypatch.setattr(server, "_PATIENCE_S", 0.05)
    with controlled(tmp_path), client(tmp_path, b'{"verb') as slow:
        assert received(slow) == b""


def test_a_silent_client_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If all places are taken, the oldest client without a whole request gives way to a new one.
    If all of them wait for replies, the new one is not taken."""
    monkeypatch.setattr(server, "CLIENTS_MAX", 2)
    wait = b'{"verb": "wait", "ref": "a"}\n'
    with controlled(tmp_path) as manager:
        manager.spawn("p", name="a")
        with ExitStack() as stack:

            def connect(*sent: bytes) -> socket.socket:
                return stack.enter_context(client(tmp_path, *sent))

            oldest, older = connect(b'{"verb'), connect()
            first = connect(wait)
            wait_until(manager, 1)
            assert received(oldest) == b""
            second = connect(wait)
            wait_until(manager, 2)
            assert received(older) == b""
            assert received(connect(wait)) == b""
            manager.cancel("a")
            for waiter in (first, second):
                assert b"cancelled" in received(waiter)


def test_dying_waiters_free_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many clients may wait at a time. One that dies makes room for another."""
    monkeypatch.setattr("manager._control.requests.WAITS_MAX", 1)
    wait = b'{"verb": "wait", "ref": "a"}\n'
    with controlled(tmp_path) as manager:
        manager.spawn("p", name="a")
        with client(tmp_path, wait):
            wait_until(manager, 1)
            with pytest.raises(RefusedError, match="wait already"):
                ask(tmp_path, "wait", ref="a")
        wait_until(manager, 0)
        with client(tmp_path, wait) as waiter:
            ask(tmp_path, "cancel", ref="a")
            assert b"cancelled" in received(waiter)


def test_a_close_ends_all_connections(tmp_path: Path) -> None:
    """A close waits for no client. A client that waits learns that there is no reply."""
    errors: list[Exception] = []

    def wait() -> None:
        try:
            ask(tmp_path, "wait", ref="a")
        except RequestError as error:
            errors.append(error)

    with controlled(tmp_path) as manager:
        manager.spawn("p", name="a")
        waiter = threading.Thread(target=wait)
        waiter.start()
        wait_until(manager, 1)
        with client(tmp_path, b"{"):
            manager.close()
    waiter.join()
    assert [type(error) for error in errors] == [NoReplyError]


def test_a_close_that_was_interrupted_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a signal handler raises while a close waits, another close ends the thread, and removes
    the socket."""
    manager = SubAgentManager.open(tmp_path, control=True)
    control = manager._control
    assert control is not None

    def interrupted(timeout_s: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(control._thread, "join", interrupted)
        patch.setattr(control, "_end", lambda: None)
        with pytest.raises(KeyboardInterrupt):
            manager.close()
    assert not manager.closed
    manager.close()
    assert not control._thread.is_alive()
    assert not list((tmp_path / STATE / "control").iterdir())

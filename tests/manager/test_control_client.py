"""Requests to a process that can't take them."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest

from manager import SubAgentManager
from manager._control import client as client_module
from manager._control import place
from manager._control.client import request
from manager._control.errors import NoReplyError, RequestError
from tests.support import TIMEOUT_S


def test_a_client_that_finds_no_place_gets_no_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the process with the state is stopped, and too many clients wait for it already, the next
    one learns that it is busy."""
    monkeypatch.setattr(place, "_BACKLOG", 0)
    with SubAgentManager.open(tmp_path) as manager, closing(place.Listener.open(manager.path)):
        waiting = place.connect(manager.path)
        assert waiting is not None
        with waiting, pytest.raises(NoReplyError, match=r"wait: the process .* is busy"):
            request(manager.path, "wait", ref="a")


def test_a_request_that_is_too_long_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client refuses a request that no server takes."""
    monkeypatch.setattr(client_module, "REQUEST_BYTES_MAX", 100)
    with pytest.raises(RequestError, match="over 100"):
        request(str(tmp_path), "answer", ref="a", value="v" * 100)


@pytest.mark.parametrize("reply", [b"hello\n", b"\xff\n", b"7\n", b"{}\n", b'{"error": "E"}\n'])
def test_a_reply_of_something_else_is_refused(tmp_path: Path, reply: bytes) -> None:
    """A client says so if no manager answers at the socket."""

    def answer() -> None:
        connection, _ = listener.socket.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(reply)

    with closing(place.Listener.open(str(tmp_path))) as listener:
        listener.socket.setblocking(True)
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(RequestError, match="control: a program that is not a manager answers"):
            request(str(tmp_path), "wait", ref="a")
        thread.join(TIMEOUT_S)

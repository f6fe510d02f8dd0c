"""Requests to a process that can't take them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from manager import SubAgentManager
from manager._control import client as client_module
from manager._control import place
from manager._control.client import request
from manager._control.errors import NoReplyError, RequestError


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

"""An open with `control=True` that can't serve requests."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manager import SubAgentManager
from manager._control import server
from manager._control.client import request
from tests.manager.control_support import STATE, controlled
from tests.support import until

START = threading.Thread.start


def no_loop() -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def no_thread(thread: threading.Thread) -> None:
    if thread.name == "subagents-control":
        raise RuntimeError("can't start new thread")
    START(thread)


@pytest.mark.parametrize(
    ("owner", "name", "refuse"),
    [(asyncio, "SelectorEventLoop", no_loop), (threading.Thread, "start", no_thread)],
    ids=["event loop", "thread"],
)
def test_an_open_that_can_not_serve_leaves_nothing(
    owner: Any,
    name: str,
    refuse: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If requests can have no event loop or no thread, the open fails, and its handles are
    closed."""
    SubAgentManager.open(tmp_path, control=True).close()
    handles = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refuse)
        with pytest.raises((OSError, RuntimeError), match=r"Too many open files|new thread"):
            SubAgentManager.open(tmp_path, control=True)
    assert len(os.listdir("/proc/self/fd")) == handles
    assert not list((tmp_path / STATE / "control").iterdir())


def test_nobody_listens_once_the_thread_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the thread's event loop fails, as where gevent has replaced `select`, a client learns that
    nobody listens, and the manager goes on."""

    async def fail(_: object) -> None:
        raise OSError("the loop can't run here")

    monkeypatch.setattr(server.ControlServer, "_serve_all", fail)
    with controlled(tmp_path) as manager:
        until(lambda: "no longer answered" in caplog.text, "the report")
        assert request(str(tmp_path / STATE), "wait", timeout_s=5, ref="a") is None
        manager.spawn("p", name="a")

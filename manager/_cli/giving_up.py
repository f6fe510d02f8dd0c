"""Giving up: ends a command that was interrupted while the disk took no changes."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from _journal_console.exits import STOPPED_BY_SIGNAL

from manager._cli.output import say
from manager.manager import SubAgentManager

CLOSE_S = 2.0  # the time for an interrupted change to become durable


@contextmanager
def closing_in_time(manager: SubAgentManager, doubt: str) -> Iterator[None]:
    """Close the manager after the block.

    If Ctrl-C has interrupted the block, perhaps because the disk is full, wait at most CLOSE_S for
    the disk. If it has not taken the changes then, say `doubt` and give up.
    """
    timeout_s = None
    try:
        yield
    except KeyboardInterrupt:
        timeout_s = CLOSE_S
        raise
    finally:
        try:
            manager.close(timeout_s=timeout_s)
        except (TimeoutError, KeyboardInterrupt):
            if timeout_s is None:
                raise
            say(doubt)
            skip_last_wait(STOPPED_BY_SIGNAL + signal.SIGINT)


def skip_last_wait(code: int) -> None:
    """Let this process end with `code` as soon as the command has ended. The engine would wait for
    the disk again at the exit, for 10 s."""
    atexit.register(os._exit, code)

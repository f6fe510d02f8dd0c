"""follow: keep a directory up to date with a mirror."""

from __future__ import annotations

import time

import click
from _journal_console.exits import FINE

from journal import Follower, follow
from journal_inspect.exits import TimedOutError
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.objects import JSON, dumps, put_one, versioned
from journal_inspect.rendering.renderer import Renderer

_SHOW_S = 1.0


def follow_mirror(
    url: str,
    path: str,
    renderer: Renderer,
    *,
    until_lsn: int | None,
    timeout_s: float | None,
    put_aside: bool,
) -> int:
    """Follow until an LSN, a time limit or a signal."""
    until_s = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        follower = follow(url, path, put_aside=put_aside)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with follower:
        say(f"{follower.path}: follows {follower.url}; see it with: {command('log', path)} -f")
        try:
            _show(follower, renderer, until_lsn, until_s)
        finally:
            if renderer.form == "json":
                put_one(_object(follower))
    return FINE


def _show(
    follower: Follower, renderer: Renderer, until_lsn: int | None, until_s: float | None
) -> None:
    shown_lsn = -1
    while True:
        follower.check()
        lsn = follower.lsn
        if lsn != shown_lsn and renderer.form == "text":
            print(f"LSN {lsn}, {follower.lag_s:.1f} s behind", flush=True)
        elif lsn != shown_lsn and renderer.form == "jsonl":
            print(dumps(_object(follower)), flush=True)
        shown_lsn = lsn
        if until_lsn is not None and lsn >= until_lsn:
            return
        pause_s = _SHOW_S if until_s is None else min(_SHOW_S, until_s - time.monotonic())
        if pause_s <= 0:
            raise TimedOutError(f"{follower.path}: timed out at LSN {lsn}")
        _pause(follower, until_lsn, pause_s)


def _pause(follower: Follower, until_lsn: int | None, pause_s: float) -> None:
    if until_lsn is None:
        time.sleep(pause_s)
        return
    try:
        follower.wait(until_lsn, timeout_s=pause_s)
    except TimeoutError:
        return


def _object(follower: Follower) -> JSON:
    return versioned(
        path=follower.path,
        url=follower.url,
        lsn=follower.lsn,
        lag_s=round(follower.lag_s, 3),
    )

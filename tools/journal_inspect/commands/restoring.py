"""restore: make a directory from a mirror."""

from __future__ import annotations

import os
from contextlib import suppress

import click
from _journal_console.exits import FINE
from _journal_console.text import put_facts, size

from journal import LockedError, restore
from journal_inspect.commands.moments import Time
from journal_inspect.exits import RefusedError
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.objects import as_object, put_one
from journal_inspect.rendering.progress import counter
from journal_inspect.rendering.renderer import Renderer


def restore_mirror(
    url: str, path: str, renderer: Renderer, *, lsn: int | None, at: Time | None
) -> int:
    if lsn is not None and at is not None:
        raise click.UsageError("give --lsn or --at, not both")
    at_s = None if at is None else at.unix_ns(utc=renderer.utc) / 1e9
    is_new = not os.path.lexists(path)
    try:
        with counter("restore") as progress:
            report = restore(url, path, lsn, at_s, progress=progress)
    except FileExistsError as error:
        raise RefusedError(f"{path}: already exists; choose a new directory") from error
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except LockedError:  # another copy is using the directory, which may still be empty
        raise
    except BaseException:
        if is_new:
            with suppress(OSError):  # `restore` left it empty
                os.rmdir(path)
        raise
    if renderer.form == "text":
        put_facts(
            [
                ("path", report.path),
                ("up to LSN", report.lsn),
                ("of", report.mirrored_lsn),
                ("segments", report.segments),
                ("checkpoints", report.checkpoints),
                ("size", size(report.size_bytes)),
            ]
        )
    else:
        put_one(as_object(report))
    say(f"{report.path}: verified; see what is in it: {command('info', report.path)}")
    if report.lsn < report.mirrored_lsn:
        say(f"{report.path}: it needs a new mirror, because {url} has later records")
    return FINE

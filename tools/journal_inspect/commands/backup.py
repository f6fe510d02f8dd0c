"""backup: copy a journal, live or not, and verify the copy."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

from _journal_console.exits import FINE
from _journal_console.text import put_facts, size

from journal import JournalReader, LockedError, backup
from journal_inspect.commands.backup_output import Copied, copy_output
from journal_inspect.exits import RefusedError
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.objects import as_object, put_one
from journal_inspect.rendering.renderer import Renderer


def make_backup(path: str, renderer: Renderer, dest: str, *, with_output: bool) -> int:
    source, target = os.path.realpath(path), os.path.realpath(dest)
    if os.path.commonpath([source, target]) == source:
        raise RefusedError(f"{dest}: lies inside the journal; choose a directory outside it")
    if not os.path.isdir(os.path.dirname(target)):
        raise RefusedError(f"{dest}: its parent directory does not exist; create that first")
    JournalReader.open(path).close()  # so that an error in PATH is not blamed on DEST
    is_new = not os.path.lexists(target)
    try:
        report = backup(path, dest)
    except (FileExistsError, NotADirectoryError) as error:
        raise RefusedError(f"{dest}: already exists; choose a new directory") from error
    except LockedError:  # another copy is using the directory, which may still be empty
        raise
    except BaseException:
        if is_new:
            with suppress(OSError):  # `backup` left it empty
                os.rmdir(target)
        raise
    copied = _copy_output(path, dest) if with_output else Copied()
    if renderer.form == "text":
        put_facts(
            [
                ("path", report.path),
                ("up to LSN", report.lsn),
                ("segments", report.segments),
                ("checkpoints", report.checkpoints),
                ("size", size(report.size_bytes)),
                *([("output", f"{copied.files} files, {size(copied.size_bytes)}")] * with_output),
            ]
        )
    else:
        more = {"output_files": copied.files, "output_bytes": copied.size_bytes}
        put_one(as_object(report, **more))
    say(f"{report.path}: verified; see what is in it: {command('info', report.path)}")
    return FINE


def _copy_output(path: str, dest: str) -> Copied:
    try:
        return copy_output(path, dest)
    except BaseException as error:
        shutil.rmtree(os.path.join(dest, "output"), ignore_errors=True)
        problem = "the journal is copied and verified, but the output of its commands is not"
        if isinstance(error, OSError):
            problem += f": {error.strerror}"
        problem = f"{dest}: {problem}; remove {dest}, and try again"
        if isinstance(error, OSError):
            raise RefusedError(problem) from error
        say(problem)
        raise

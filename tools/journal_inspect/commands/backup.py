"""backup: copy a journal, live or not, and verify the copy."""

from __future__ import annotations

import os
from contextlib import suppress

from journal import JournalError, JournalReader, backup
from journal_inspect.exits import FINE, RefusedError
from journal_inspect.rendering.objects import as_object, put_one
from journal_inspect.rendering.renderer import Renderer
from journal_inspect.rendering.text import command, put_facts, say, size


def make_backup(path: str, renderer: Renderer, dest: str) -> int:
    source, target = os.path.realpath(path), os.path.realpath(dest)
    if os.path.commonpath([source, target]) == source:
        raise RefusedError(f"{dest}: lies inside the journal; choose a directory outside it")
    if not os.path.isdir(os.path.dirname(target)):
        raise RefusedError(f"{dest}: its parent directory does not exist; create that first")
    JournalReader.open(path).close()  # so that an error in PATH is not blamed on DEST
    is_new = not os.path.lexists(target)
    try:
        report = backup(path, dest)
    except JournalError:
        if is_new:
            with suppress(OSError):  # `backup` left it empty
                os.rmdir(target)
        raise
    except (FileExistsError, NotADirectoryError) as error:
        raise RefusedError(f"{dest}: already exists; choose a new directory") from error
    if renderer.form == "text":
        put_facts(
            [
                ("path", report.path),
                ("up to LSN", report.lsn),
                ("segments", report.segments),
                ("checkpoints", report.checkpoints),
                ("size", size(report.size_bytes)),
            ]
        )
    else:
        put_one(as_object(report))
    say(f"{report.path}: verified; see what is in it: {command('info', report.path)}")
    return FINE

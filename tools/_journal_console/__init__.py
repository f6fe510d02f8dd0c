"""The standard streams of both command lines, `subagents` and `journal-inspect`.

This is a package of its own because `--help` may wait for neither `journal` nor `manager`: it
imports the standard library alone.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any


def repair_streams() -> None:
    """Give a process that was started without some of its streams the null device for them, and
    let no stream fail on a character that it can't encode.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream: Any = getattr(sys, name) or open(os.devnull, mode)  # noqa: SIM115 - open to the end
        if name == "stdout" and isinstance(getattr(stream, "buffer", None), io.RawIOBase):
            # PYTHONUNBUFFERED would cost a system call for each half of a line.
            stream = open(stream.fileno(), mode, encoding=stream.encoding, closefd=False)  # noqa: SIM115 - the same
        if mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, stream)


def release_stdout() -> None:
    """Drop what stdout can't take: at exit the interpreter would try again, and report that."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

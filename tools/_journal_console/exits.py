"""Exits: the exit codes of both command lines, and the words for errors that both report."""

from __future__ import annotations

import os
import signal

FINE = 0
NEGATIVE = 1
WRONG_USAGE = 2
CORRUPT = 3
CANT_OPEN = 4
LOCKED = 5
TIMED_OUT = 124
STOPPED_BY_SIGNAL = 128  # plus the signal's number, as in shells
READER_GONE = STOPPED_BY_SIGNAL + signal.SIGPIPE


def describe_lock(path: str, pid: int | None, instead: str) -> str:
    """Describe that another process has the journal open for writing. `instead`: what needs no
    lock."""
    holder = f"process {pid}" if pid else "another process"
    return f"{path}: locked by {holder}; stop it first, or {instead}"


def describe_system(error: OSError) -> str:
    """Describe an error of the system: the file, if there is one, and the cause."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}"

"""Exits: the exit codes of both command lines, and the words for errors that both report."""

from __future__ import annotations

import os
import shlex
import signal
import stat
from contextlib import suppress

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
    if type(error) is FileNotFoundError and error.errno and error.filename is None:
        return "the working directory was removed"  # the others have the path of a file
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}"


def advise_permission(error: PermissionError) -> str:
    """Return the next step after a missing permission. The owner can change the mode of the file,
    or of the directory that contains it; anybody else has to become the owner."""
    path = os.path.abspath(os.fsdecode(error.filename or ""))
    while not os.path.lexists(path):  # it was to be made, or its directory can't be searched
        path = os.path.dirname(path)
    for place in (path, os.path.dirname(path)) if error.filename else ():
        with suppress(FileNotFoundError):  # it was removed meanwhile
            info = os.lstat(place)
            needed = 0o700 if stat.S_ISDIR(info.st_mode) else 0o600
            if info.st_uid != os.geteuid():
                return f"run the command as the owner of {place}, uid {info.st_uid}"
            if info.st_mode & needed != needed:
                return f"make it readable and writable: chmod u+rwX {shlex.quote(place)}"
    return "run the command as the owner"

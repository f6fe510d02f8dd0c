"""Exits: the exit codes, and the code and the message for each error.

0 fine · 1 a negative answer: a torn tail, damage that no open needs, nothing found, a difference ·
2 usage · 3 corruption: an open refuses, or the verb can't read what it was asked for · 4 can't
open: missing, not a journal, no permission, a newer version · 5 locked by a live writer · 124 timed
out · 130, 143 stopped by SIGINT, SIGTERM · 141 the reader of the output has gone.

The engine is imported only after an error, so that `--help` does not wait for it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from _journal_console.exits import (
    CANT_OPEN,
    CORRUPT,
    LOCKED,
    NEGATIVE,
    READER_GONE,
    STOPPED_BY_SIGNAL,
    TIMED_OUT,
    advise_permission,
    describe_lock,
    describe_system,
)

if TYPE_CHECKING:
    from journal import CorruptionError

_NEXT_STEPS: dict[type[OSError], str] = {
    FileNotFoundError: "give the path of a journal's directory",
    NotADirectoryError: "a journal is a directory: give its path",
    FileExistsError: "nothing was overwritten; choose another name",
}


class RefusedError(Exception):
    """A journal or a file that the verb can't work with."""


class DamagedError(Exception):
    """Damage for which the verb knows a better next step."""


class NothingFoundError(Exception):
    """A question to which the journal has no answer: no such entry, agent or moment."""


class TimedOutError(Exception):
    """The end of the time that the user allowed for a wait."""


_VERB_CODES = {
    RefusedError: CANT_OPEN,
    DamagedError: CORRUPT,
    NothingFoundError: NEGATIVE,
    TimedOutError: TIMED_OUT,
}


def explain(error: BaseException) -> tuple[int, str]:
    """Return the exit code for `error`, and a line for the user, empty if none is needed."""
    if isinstance(error, KeyboardInterrupt):
        return STOPPED_BY_SIGNAL + signal.SIGINT, ""
    if isinstance(error, BrokenPipeError):
        return READER_GONE, ""
    if isinstance(error, MemoryError):
        return CANT_OPEN, (
            "this needs more memory than there is; nothing was changed; raise the limit, or run it "
            "on a larger machine: one record may take 150 times its size on disk"
        )
    if isinstance(error, ImportError):  # a platform, or a user's module of the same name
        return CANT_OPEN, str(error)
    for kind, code in _VERB_CODES.items():
        if isinstance(error, kind):
            return code, str(error)
    return (
        _explain_journal(error)
        or _explain_manager(error)
        or _explain_system(error)
        or _explain_own(error)
    )


def _explain_journal(error: BaseException) -> tuple[int, str] | None:
    from journal import (
        CompactedError,
        CorruptionError,
        JournalError,
        LockedError,
        MirrorError,
        MirrorReason,
        NotAJournalError,
    )

    codes = {CorruptionError: CORRUPT, LockedError: LOCKED, CompactedError: NEGATIVE}
    if not isinstance(error, JournalError):
        return None
    code = next((code for kind, code in codes.items() if isinstance(error, kind)), CANT_OPEN)
    if isinstance(error, MirrorError) and error.reason is MirrorReason.DAMAGED:
        return CORRUPT, str(error)
    if isinstance(error, LockedError) and error.host is None:
        instead = "use journal-inspect log and verify, which need no lock"
        text = describe_lock(error.path, error.pid, instead)
    elif isinstance(error, CorruptionError):
        text = _describe_damage(error)
    elif isinstance(error, NotAJournalError):
        text = str(error) if error.is_incomplete_copy else f"{error}{_suggest_journal(error.path)}"
    elif isinstance(error, MirrorError) and error.reason is MirrorReason.UNREACHABLE:
        text = f"{error}; fix that, then try again"
    else:
        text = str(error)
    return code, text


def _describe_damage(error: CorruptionError) -> str:
    from journal import DamageReason
    from journal_inspect.rendering.messages import command

    if error.reason is DamageReason.OVERTAKEN:
        return f"{error.path}: {error.what}; nothing is damaged; try again"
    step, at_lsn = "", f", LSN {error.lsn}" if error.lsn else ""
    if error.reason is DamageReason.NO_START:
        log_command = command("log", error.directory)
        step = f": restore a backup, or see what is left: {log_command}"
    return (
        f"{error.path}: offset {error.offset}{at_lsn}: {error.what}{step}; nothing was "
        f"changed; look closer with: {command('verify', error.directory)}"
    )


def _suggest_journal(path: str) -> str:
    from journal_inspect.rendering.messages import command

    journal = os.path.join(path, ".subagents")
    if os.path.isdir(journal):
        return f"; a manager's journal is in {journal}: {command('info', journal)}"
    return "; a manager's is WORKSPACE/.subagents"


def _explain_manager(error: BaseException) -> tuple[int, str] | None:
    if "manager" not in sys.modules:  # then the error is not one of its own
        return None
    from manager import ManagerError

    return (NEGATIVE, str(error)) if isinstance(error, ManagerError) else None


def _explain_system(error: BaseException) -> tuple[int, str] | None:
    if not isinstance(error, OSError):
        return None
    if type(error) is FileNotFoundError and error.errno is None:  # a mirror's: it has no path
        return CANT_OPEN, f"{error}; check the address"
    if isinstance(error, PermissionError):
        return CANT_OPEN, f"{describe_system(error)}; {advise_permission(error)}"
    steps = (step for kind, step in _NEXT_STEPS.items() if isinstance(error, kind))
    step = next(steps, "nothing was changed; fix that, then try again")
    return CANT_OPEN, f"{describe_system(error)}; {step}"


def _explain_own(error: BaseException) -> tuple[int, str]:
    trace, place = error.__traceback__, "unknown"
    while trace:
        place = f"{trace.tb_frame.f_globals.get('__name__')}, line {trace.tb_lineno}"
        trace = trace.tb_next
    cause = f"{type(error).__name__}: {error}"
    return CANT_OPEN, f"internal error in journal-inspect; please report it: {cause} (in {place})"

"""Messages: says in the words of the command line what went wrong, where, and what to do next."""

from __future__ import annotations

import os
import shlex

from _journal_console.exits import advise_permission, describe_lock, describe_system

from journal import (
    FailedError,
    FormatVersionError,
    LockedError,
    MirrorError,
    MirrorReason,
    NotAJournalError,
)

NO_STATE = (
    "no state is there; give the --workspace and --state-dir of a run, or start one with: "
    "subagents run TASKS"
)
"""The reason, and the next step, if a state directory is missing."""

_MARKER = "MIRROR"  # the file that states the mirror of its directory
_FIX_THAT = "fix that, then run the same command again"
_NEXT_STEPS: dict[type[OSError], str] = {
    FileNotFoundError: "check the path",
    NotADirectoryError: "move it away, or give another path",
    IsADirectoryError: "move it away, or give another path",
    FileExistsError: "nothing was overwritten; choose another name",
}


def message_of(error: BaseException) -> str:
    """Return the line for the user that explains `error`."""
    if isinstance(error, LockedError):
        return _message_of_lock(error)
    if isinstance(error, MirrorError):
        return _message_of_mirror(error)
    if isinstance(error, NotAJournalError) and not error.is_incomplete_copy:
        return f"{error.path}: {NO_STATE}"
    if isinstance(error, FormatVersionError):
        return _message_of_format(error)
    if type(error) is FailedError and error.__cause__ is not None:
        step = "" if isinstance(error.__cause__, OSError) else f"; {_FIX_THAT}"
        return f"the state can't be written: {message_of(error.__cause__)}{step}"
    if isinstance(error, MemoryError):  # the interpreter's says nothing
        return "this needs more memory than there is; raise the limit, or use a larger machine"
    return _message_of_system(error) if isinstance(error, OSError) else str(error)


def _message_of_lock(error: LockedError) -> str:
    if error.host is not None:
        return (
            f"{error.path}: process {error.pid} on {error.host} holds its mirror; stop that "
            "process, or if it is dead, add --takeover"
        )
    return describe_lock(error.path, error.pid, "look with: subagents list")


def _message_of_mirror(error: MirrorError) -> str:
    url = shlex.quote(error.url)
    if error.reason is MirrorReason.NEEDED:
        return (
            f"{error.url}: the state has this mirror, which every change must reach, too; nothing "
            f"was changed; add --mirror {url}"
        )
    if error.reason is MirrorReason.EMPTIED:
        return (
            f"{error.url}: the mirror had entries of this state, and has none now: it was emptied "
            "or made anew; nothing was changed; find out why; to begin it again, remove the file "
            f"{_MARKER} from the directory of the state, and run the same command again"
        )
    if error.reason is MirrorReason.DAMAGED and os.path.basename(error.url) == _MARKER:
        return (
            f"{error.url}: this file states the mirror of its directory, and is damaged; nothing "
            "was changed; if the directory is the one that was last written, remove the file, and "
            "run: subagents run --mirror URL --takeover"
        )
    if error.reason is MirrorReason.UNREACHABLE:
        return f"{error}; {_FIX_THAT}"
    return str(error)


def _message_of_format(error: FormatVersionError) -> str:
    """Say what is wrong with a record or an item, and not which method has refused it."""
    why = error.__cause__
    if not isinstance(why, FormatVersionError) or why.path is not None:
        return str(error)
    return f"{error.path}: {why}; nothing was changed"


def _message_of_system(error: OSError) -> str:
    text = describe_system(error)
    if error.errno is None or error.strerror != os.strerror(error.errno):
        return text  # this package has made it, and it has a next step
    if isinstance(error, PermissionError):
        return f"{text}; {advise_permission(error)}"
    steps = (step for kind, step in _NEXT_STEPS.items() if isinstance(error, kind))
    return f"{text}; {next(steps, _FIX_THAT)}"

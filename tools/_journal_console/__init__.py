"""The parts that both command lines, `subagents` and `journal-inspect`, share: the standard
streams, the check that their packages are installed, and in its modules their text and exit codes.

This is a package of its own, which imports only the standard library, so that `--help` need not
wait for the import of `journal` or `manager`. It imports only modules that the interpreter has at
its start, because Ctrl-C during its own import is not quiet.
"""

from __future__ import annotations

import io
import os
import sys

TYPE_CHECKING = False  # without the import of typing, which type checkers do not need
if TYPE_CHECKING:
    from typing import Any

LACKS_EXTRA = 4  # the exit code of both; they also use it for a journal that can't be opened
_NEEDED = ("click", "rich", "msgpack", "crc32c")  # an installation may be broken


def missing_extra() -> str:
    """Return what to install if the packages of the command lines are not installed, or ""."""
    from importlib.util import find_spec

    missing = [name for name in _NEEDED if find_spec(name) is None]
    if not missing:
        return ""
    verb, them = ("is", "it") if len(missing) == 1 else ("are", "them")
    return (
        f"needs {' and '.join(missing)}, which {verb} not installed; "
        f"install {them} with: python -m pip install 'journal-engine[cli]'"
    )


def lost_help() -> str:
    """Return a note for `--help` if the interpreter has removed most of its text, or ""."""
    if sys.flags.optimize < 2 or {"-h", "--help"}.isdisjoint(sys.argv):
        return ""
    return "Python runs with -OO, which removes most of this help; run it without -OO to see it"


class naming_stdout:  # noqa: N801 - used like a function
    """A block in which an error of writing to stdout names it, as that of a file names the file."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            error.filename = "stdout"


class _Stdout(io.TextIOWrapper):
    """The stream of stdout, whose errors name it.

    This is not done in the raw file: a signal handler's exception after a write would hide from the
    buffer how much was written, and the buffer would write it again.
    """

    def write(self, text: str) -> int:
        """Write `text`. With `naming_stdout`, a line would take 1.3 us and not 0.2."""
        try:
            return super().write(text)
        except OSError as error:
            error.filename = "stdout"
            raise

    def flush(self) -> None:
        """Write what is buffered."""
        with naming_stdout():
            super().flush()


def repair_streams() -> None:
    """Replace missing standard streams by the null device, and make the output streams escape the
    characters that they can't encode. An error of writing text to stdout names it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream: Any = getattr(sys, name) or open(os.devnull, mode)  # noqa: SIM115 - open to the end
        if name == "stdout" and stream is sys.__stdout__ and isinstance(stream, io.TextIOWrapper):
            # With a buffer also if PYTHONUNBUFFERED is set: otherwise, `print` would make two
            # system calls for each line.
            buffer = open(stream.fileno(), "wb", closefd=False)  # noqa: SIM115 - open to the end
            stream = _Stdout(buffer, stream.encoding, line_buffering=stream.isatty())
        if mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, stream)


def release_stdout() -> None:
    """Discard the output that stdout does not accept.

    Otherwise the interpreter would flush it at exit again, and print a traceback.
    """
    _release(sys.stdout)


def release_stderr() -> None:
    """Discard the messages that stderr does not accept.

    Otherwise the interpreter would flush them at exit again, and exit with 120.
    """
    _release(sys.stderr)


def _release(stream: Any) -> None:
    try:
        stream.flush()
    except OSError:
        from contextlib import suppress

        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

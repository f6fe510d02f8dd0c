"""The parts that both command lines, `subagents` and `journal-inspect`, share: the standard
streams, the check that their extra is installed, and in its modules their text and exit codes.

This is a package of its own, which imports only the standard library, so that `--help` need not
wait for the import of `journal` or `manager`.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

LACKS_EXTRA = 4  # the exit code of both; they also use it for a journal that can't be opened
_NEEDED = ("click", "rich")


def missing_extra() -> str:
    """Return what to install if the packages of the command lines are not installed, or ""."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if not missing:
        return ""
    verb, them = ("is", "it") if len(missing) == 1 else ("are", "them")
    return (
        f"needs {' and '.join(missing)}, which {verb} not installed; "
        f"install {them} with: python -m pip install 'journal-engine[cli]'"
    )


def repair_streams() -> None:
    """Replace missing standard streams by the null device, and make the output streams escape the
    characters that they can't encode.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream: Any = getattr(sys, name) or open(os.devnull, mode)  # noqa: SIM115 - open to the end
        if name == "stdout" and isinstance(getattr(stream, "buffer", None), io.RawIOBase):
            # With PYTHONUNBUFFERED, `print` would make two system calls for each line.
            stream = open(stream.fileno(), mode, encoding=stream.encoding, closefd=False)  # noqa: SIM115 - the same
        if mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, stream)


def release_stdout() -> None:
    """Discard the output that stdout does not accept.

    Otherwise the interpreter would flush it at exit again, and print a traceback.
    """
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

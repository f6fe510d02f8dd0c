"""`python -m manager`, and the console script `subagents`."""

from __future__ import annotations

import gc
import io
import os
import sys
from importlib.util import find_spec
from typing import Any

_NEEDED = ("click", "rich")


def main() -> None:
    _mend_streams()
    try:
        sys.exit(_main())
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()  # nothing is to be collected any more: to look takes a tenth of a listing


def _main() -> int:
    for name in _NEEDED:
        if find_spec(name) is None:
            what = f"needs {name}: python -m pip install 'journal-engine[cli]'"
            print(f"subagents: the command line {what}", file=sys.stderr)
            return 1
    gc.disable()  # nothing that is made by an import is garbage
    from manager._cli.cli import run_cli

    gc.enable()
    return run_cli(sys.argv[1:])


def _mend_streams() -> None:
    """One that was closed before we began has nothing, or takes all; none stops at a character."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream: Any = getattr(sys, name) or open(os.devnull, mode)  # noqa: SIM115 - open to the end
        if name == "stdout" and isinstance(getattr(stream, "buffer", None), io.RawIOBase):
            # PYTHONUNBUFFERED: a system call for each half of a line.
            stream = open(stream.fileno(), mode, encoding=stream.encoding, closefd=False)  # noqa: SIM115 - the same
        if mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, stream)


if __name__ == "__main__":
    main()

"""Start: the entry points of both console scripts.

They import their package inside of the `try`, so that Ctrl-C during its import, which takes a tenth
of a second, ends the command as quietly as later. `python -m` imports a package before it runs
anything of ours.
"""

from __future__ import annotations

import sys
from importlib import import_module

_INTERRUPTED = 130  # as in `exits`, whose import takes time


def subagents() -> None:
    """Run `subagents`, and exit."""
    _run("manager")


def journal_inspect() -> None:
    """Run `journal-inspect`, and exit."""
    _run("journal_inspect")


def _run(package: str) -> None:
    try:
        sys.exit(import_module(f"{package}.__main__").main())
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)

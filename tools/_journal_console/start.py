"""Start: the entry points of both console scripts.

They import their package inside of the `try`, so that Ctrl-C during its import, which takes a tenth
of a second, ends the command as quietly as later. `python -m` imports a package before it runs
anything of ours.
"""

from __future__ import annotations

import sys
from importlib import import_module

from _journal_console import LACKS_EXTRA, missing_extra

_INTERRUPTED = 130  # as in `exits`, whose import takes time


def subagents() -> None:
    """Run `subagents`, and exit."""
    _run("subagents", "manager")


def journal_inspect() -> None:
    """Run `journal-inspect`, and exit."""
    _run("journal-inspect", "journal_inspect")


def _run(program: str, package: str) -> None:
    try:
        sys.exit(import_module(f"{package}.__main__").main())
    except ModuleNotFoundError:  # the package itself may need one that is missing
        advice = missing_extra()
        if not advice:
            raise
        print(f"{program}: {advice}", file=sys.stderr)
        sys.exit(LACKS_EXTRA)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)

"""Find the commands and packages that some tests need and that a machine may lack.

A test that needs a missing one is skipped. `.ci/run` sets `JOURNAL_MISSING` to the names that it
could not install, separated by spaces. A test that misses any other one then fails.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from typing import Any, NoReturn

import pytest


def find_command(*names: str) -> str:
    """Return the path of the first installed command in `names`. Skip the test if there is none.

    A package may have put the command beside the interpreter, in a folder that is not on PATH.
    """
    folders = os.pathsep.join((os.environ.get("PATH", ""), os.path.dirname(sys.executable)))
    path = next(filter(None, (shutil.which(name, path=folders) for name in names)), None)
    return path or _miss(names[0])


def import_package(name: str) -> Any:
    """Import a module. If it is not installed, skip the test, or the importing test module."""
    try:
        return importlib.import_module(name)
    except ImportError:
        _miss(name.partition(".")[0])


def _miss(name: str) -> NoReturn:
    """Skip the test. Fail it if `JOURNAL_MISSING` is set and does not contain `name`."""
    missing = os.environ.get("JOURNAL_MISSING")
    if missing is not None and name not in missing.split():
        pytest.fail(f"{name} is not installed, and JOURNAL_MISSING does not name it")
    pytest.skip(f"{name} is not installed", allow_module_level=True)

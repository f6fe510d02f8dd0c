"""Commands and packages that some tests need, and that a machine may not have.

A test skips without them. `.ci/run` sets `JOURNAL_MISSING` to the names of those that it could not
install, parted by spaces: then a test fails if it misses another one.
"""

from __future__ import annotations

import importlib
import os
import shutil
from typing import Any, NoReturn

import pytest


def find_command(*names: str) -> str:
    """Return the path of a command that has one of `names`. Skip the test if there is none."""
    found = next(filter(None, map(shutil.which, names)), None)
    return found or _miss(names[0])


def import_package(name: str) -> Any:
    """Import a module. Skip the test, or all of the importing module, if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        _miss(name.partition(".")[0])


def _miss(name: str) -> NoReturn:
    missing = os.environ.get("JOURNAL_MISSING")
    if missing is not None and name not in missing.split():
        pytest.fail(f"{name} is not installed, and JOURNAL_MISSING does not name it")
    pytest.skip(f"{name} is not installed", allow_module_level=True)

"""The examples in the docstrings of `journal.testing` run."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import journal.testing
import journal.testing.explorer
import journal.testing.fixtures
import journal.testing.machine
from tests.tiers import slow_unless

HEAD = """
import errno
from journal import CowTable, Journal
from journal.testing import *


class Jobs:
    application = "jobs/1"
    def __init__(self): self.table = CowTable()
    def load(self, item): self.table[item["id"]] = item
    def apply(self, lsn, record): self.table[record[1]] = {"id": record[1], "state": record[0]}
    def freeze(self): return self.table.freeze()
"""
FEW_EXAMPLES = """
from hypothesis import settings
settings.register_profile("few", max_examples=5, deadline=None)
settings.load_profile("few")
"""
DRAWN = """
from types import SimpleNamespace
integers = lambda least, most: most
data = SimpleNamespace(draw=lambda value: value)
"""


def example(documented: Any) -> str:
    """Return the indented lines of a docstring."""
    lines = (inspect.getdoc(documented) or "").splitlines()
    example_lines = [line for line in lines if line.startswith("    ") or not line]
    return dedent("\n".join(example_lines)).strip()


@pytest.mark.parametrize(
    "documented", [journal.testing, journal.testing.explorer, journal.testing.Owner], ids=str
)
def test_an_example_runs(documented: Any) -> None:
    """An example runs as it stands, with only its imports and a state machine added."""
    source = example(documented)
    assert len(source.splitlines()) > 3
    exec(HEAD + DRAWN + source, {})


@pytest.mark.parametrize(
    ("documented", "tests"),
    slow_unless(
        lambda documented, tests: documented is journal.testing.fixtures,
        [(journal.testing.machine, 1), (journal.testing.fixtures, 3)],
    ),
    ids=str,
)
def test_an_example_for_pytest_runs(documented: Any, tests: int, tmp_path: Path) -> None:
    """pytest finds the tests of the example, and they pass in a directory of their own."""
    source = example(documented)
    (tmp_path / "conftest.py").write_text(FEW_EXAMPLES)
    (tmp_path / "test_example.py").write_text(HEAD + source)
    # Without a folder of its own, it would also remove those of earlier runs.
    options = ["-q", "-p", "no:cacheprovider", "-W", "error", f"--basetemp={tmp_path / 'folders'}"]
    result = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(rf"^{tests} passed", result.stdout, re.MULTILINE), result.stdout


def test_a_crash_test_takes_at_most_ten_lines() -> None:
    """A program can crash-test its own state machine in ten lines."""
    for documented in (journal.testing.machine, journal.testing.explorer):
        assert len([line for line in example(documented).splitlines() if line]) <= 10


def test_importing_the_kit_imports_neither_hypothesis_nor_pytest() -> None:
    """Importing `journal.testing` imports only what the engine needs."""
    script = "import sys, journal.testing; print({'pytest', 'hypothesis'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True)
    assert result.stdout == "set()\n", result.stderr


def test_public_names_are_documented() -> None:
    """Each public name has a docstring, and so has each method that takes arguments."""
    public = {name: getattr(journal.testing, name) for name in journal.testing.__all__}
    assert sorted(public) == list(public)
    # The others are aliases, of which Python keeps no docstring.
    made = {n: v for n, v in public.items() if inspect.isclass(v) or inspect.isroutine(v)}
    undocumented = [name for name, value in made.items() if not value.__doc__]
    for name, value in made.items():
        for method, member in vars(value).items() if inspect.isclass(value) else ():
            parameter_count = (
                len(inspect.signature(member).parameters) if inspect.isfunction(member) else 0
            )
            if parameter_count > 1 and not method.startswith("_") and not inspect.getdoc(member):
                undocumented.append(f"{name}.{method}")
    of_the_seam = ("SimulatedDisk", "SimulatedDirectory", "SimulatedFile")
    assert [name for name in undocumented if not name.startswith(of_the_seam)] == []

"""Missing tools: their tests are skipped, unless the environment says that they are required."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.installed import find_command, import_package

TESTS = Path(__file__).resolve().parents[1]
MISSING = [partial(find_command, "no-tool", "not-this-either"), partial(import_package, "no_tool")]


@pytest.mark.parametrize("find_tool", MISSING)
@pytest.mark.parametrize("missing", [None, "strace no-tool no_tool"])
def test_a_missing_tool_skips_its_test(
    monkeypatch: pytest.MonkeyPatch, find_tool: Callable[[], object], missing: str | None
) -> None:
    """A missing tool skips its tests on a developer's machine, and if it is listed as one that
    can't be installed."""
    monkeypatch.delenv("JOURNAL_MISSING", raising=False)
    if missing is not None:
        monkeypatch.setenv("JOURNAL_MISSING", missing)
    with pytest.raises(pytest.skip.Exception, match=r"^no.tool is not installed$"):
        find_tool()


@pytest.mark.parametrize("find_tool", MISSING)
@pytest.mark.parametrize("missing", ["", "strace tool"])
def test_a_missing_required_tool_fails_its_test(
    monkeypatch: pytest.MonkeyPatch, find_tool: Callable[[], object], missing: str
) -> None:
    """A tool that `.ci/run` must install fails its tests if it is missing."""
    monkeypatch.setenv("JOURNAL_MISSING", missing)
    with pytest.raises(pytest.fail.Exception, match=r"^no.tool is not installed"):
        find_tool()


def test_an_installed_tool_is_returned() -> None:
    """A command is found under any of its names, and a module of a package is imported."""
    assert find_command("no-tool", "sh") == shutil.which("sh")
    assert import_package("json.decoder").JSONDecoder


def test_all_checks_for_tools_are_in_one_place() -> None:
    """No test checks for a command or a package by itself."""
    own = re.compile(r"\bimportorskip\(|\bshutil\.which,|\bshutil\.which\(")
    modules = {path for path in TESTS.rglob("*.py") if own.search(path.read_text())}
    assert modules == {TESTS / "installed.py", Path(__file__).resolve()}

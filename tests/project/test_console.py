"""The console: what both command lines print, they print in the same way."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import _journal_console
import pytest
from _journal_console.exits import describe_lock, describe_system
from _journal_console.text import cut, escaped, one_line, say, width

from tests.support import TIMEOUT_S


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain größe 日本", "plain größe 日本"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31m\x9b\x00", r"\u001b[31m\u009b\u0000"),
        ("\u202e\u2028", r"\u202e\u2028"),
        ("\U000e0001", r"\udb40\udc01"),
        ("deploy\u3164", r"deploy\u3164"),
        ("a\ufe0f\u034f\u115f\u1160\uffa0\u2800", r"a\ufe0f\u034f\u115f\u1160\uffa0\u2800"),
    ],
)
def test_what_does_not_print_is_escaped_as_in_json(text: str, shown: str) -> None:
    """P9: Control characters and characters that nobody sees are shown as JSON escapes."""
    assert escaped(text) == shown


def test_a_text_is_one_line_without_the_newline_at_its_end() -> None:
    """A newline within a text is an escape, and one at its end is left out."""
    assert (one_line("exit 2\nout\n"), one_line("a\n\n"), one_line("")) == (
        r"exit 2\nout",
        r"a\n",
        "",
    )


def test_wide_characters_count_twice_and_accents_not_at_all() -> None:
    """Widths are those on a terminal, and a cut text ends with dots."""
    assert [width(text) for text in ("abc", "日本", "e\u0301")] == [3, 4, 1]
    assert (cut("日本日本", 7), cut("abcdef", 5), cut("abc", 2)) == ("日本...", "ab...", "..")


def test_messages_name_the_program_and_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    """A message begins with its program. Errors of the system name the file and the cause."""
    say("subagents", "a\x1b")
    assert capsys.readouterr().err == "subagents: a\\u001b\n"
    assert describe_system(FileNotFoundError(2, "No such file", "/a")) == "/a: No such file"
    assert describe_system(OSError("alone")) == "alone"
    assert (
        describe_system(FileNotFoundError(2, "No such file")) == "the working directory was removed"
    )
    assert describe_lock("/j", 7, "wait") == "/j: locked by process 7; stop it first, or wait"
    assert "another process" in describe_lock("/j", None, "wait")


@pytest.mark.parametrize("program", ["manager", "journal"])
def test_help_without_docstrings_says_so(program: str) -> None:
    """The help says why it is short if Python runs with -OO, which removes most of it. Without -OO,
    each line of the commands is whole."""
    for options, is_lost in (["-OO"], True), (["-O"], False):
        command = [sys.executable, *options, "-P", "-m", program, "--help"]
        child = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert (child.returncode, "Commands:" in child.stdout) == (0, True)
        assert ("Python runs with -OO" in child.stderr) == is_lost
        assert "..." not in child.stdout.partition("Commands:")[2]


def test_the_console_imports_little_before_an_interrupt_is_quiet() -> None:
    """Until Ctrl-C is quiet, a console script imports only what Python itself imports at its start,
    and small modules."""
    code = "import sys; known = {*sys.modules}; import _journal_console.start; "
    code += "print(*{*sys.modules} - known)"
    env = os.environ | {"PYTHONPATH": str(Path(_journal_console.__file__).parents[1])}
    command = [sys.executable, "-P", "-c", code]
    shown = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60).stdout
    small = {"_journal_console", "_journal_console.start", "__future__", "importlib", "warnings"}
    assert "_journal_console.start" in (names := {*shown.split()})
    assert {n for n in names if not n.startswith("importlib.")} <= small | {"io"}


# Refuses an import as if Ctrl-C came at it, and then runs an entry point.
INTERRUPTED = """
import importlib, sys

class Interrupt:
    def find_spec(name, *_):
        if name == {interrupted!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt)
module, _, function = {script!r}.partition(":")
sys.exit(getattr(importlib.import_module(module), function)())
"""


@pytest.mark.parametrize(
    ("script", "interrupted"),
    [
        ("subagents", "manager"),
        ("subagents", "manager.agent"),
        ("subagents", "manager._cli.cli"),
        ("journal-inspect", "journal_inspect"),
        ("journal-inspect", "journal_inspect.exits"),
        ("journal-inspect", "journal_inspect.commands.cli"),
    ],
)
def test_an_interrupt_during_the_imports_is_quiet(script: str, interrupted: str) -> None:
    """Ctrl-C while a console script imports its package ends it with 130 and without a message."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    code = INTERRUPTED.format(script=project["scripts"][script], interrupted=interrupted)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "--version"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")

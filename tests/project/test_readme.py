"""The README: every snippet and every command that it shows is run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from proof.mutants import WEAKENINGS

from tests.project.page_support import ROOT, Block, blocks_of, matches

TEXT = (ROOT / "README.md").read_text()
SNIPPETS = [block for block in blocks_of(TEXT) if block.kind == "python"]
COMMANDS = [block.text for block in blocks_of(TEXT) if block.kind == "sh"]
TIMEOUT_S = 60
MODULES = {"subagents": "manager", "journal-inspect": "journal_inspect"}


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_snippet_prints_what_the_page_shows(snippet: Block, tmp_path: Path) -> None:
    """Each Python snippet runs by itself, twice on the same files, and prints the text below it."""
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-P", "-W", "error", "-c", snippet.text],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert snippet.prints
        assert matches(snippet.prints, done.stdout)


def test_the_snippets_are_short() -> None:
    """The dict takes three lines of code and an import, and the state machine ten lines."""
    a_dict, state = (
        [line for line in snippet.text.splitlines() if line.strip()] for snippet in SNIPPETS
    )
    assert len([line for line in a_dict if not re.match("from|    print", line)]) == 3
    assert len([line for line in state if not re.match("from|    print", line)]) <= 10


@pytest.mark.parametrize("block", COMMANDS, ids=range(len(COMMANDS)))
def test_a_block_of_commands_runs_as_written(block: str, tmp_path: Path) -> None:
    """Each line of a shell block exits with 0, from the first to the last."""
    functions = "".join(
        f'{script}() {{ "{sys.executable}" -P -m {module} "$@"; }}\n'
        for script, module in MODULES.items()
    )
    done = subprocess.run(
        ["bash", "-c", f"set -eu\n{functions}{block}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_has_snippets_and_commands() -> None:
    """The snippets and commands were found, so a README with other fences is not skipped."""
    assert len(SNIPPETS) == 2
    assert COMMANDS
    assert "python -m pip install '.[cli]' && subagents demo" in TEXT
    assert "python -m pip install '.[test]' && python -m pytest" in TEXT


def test_the_readme_is_short() -> None:
    """The README is short, and links to every page."""
    assert len(TEXT.splitlines()) < 150
    pages = [
        p for top in ("journal", "manager", "tools", ".github") for p in ROOT.glob(f"{top}/**/*.md")
    ]
    assert not [page.name for page in pages if f"({page.relative_to(ROOT)})" not in TEXT]


def test_the_number_of_weakenings_is_true() -> None:
    """The README states the number of weakenings, rounded down to hundreds."""
    (stated,) = re.findall(r"mutants` removes over ([\d,]+) pieces", TEXT)
    assert int(stated.replace(",", "")) == len(WEAKENINGS) // 100 * 100


def test_the_links_have_targets() -> None:
    """Each link to a file of the project leads to an existing file."""
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target

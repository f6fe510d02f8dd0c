"""Support for tests of Markdown pages: finds the blocks of a page, and runs them as a reader would.

The blocks of one part of a page (from one `## ` heading to the next, or a whole tutorial) are run
in order in one new directory:

    ```python   saved if the text before it says so ("Save this as `jobs.py`"), else run
    ```sh       run by bash; each line must exit with 0, or as its comment says: `# exits with 3`
    ```text     directly after one of these: its output; `...` matches anything
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from tests.installed import import_package

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300
# From 3.13 on, sqlite3 warns of the connection that sqlitedict leaves open when it lists tables.
_OF_SQLITEDICT = "ignore:unclosed database:ResourceWarning"
RUN = ("python", "sh")
# Other kinds of blocks that a page may show. They are not run; `py` is a signature.
SHOWN = ("text", "hex", "py", "mermaid")
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_EXITS = re.compile(r"^(.*\S) +# exits with (\d+)$", re.MULTILINE)
_CHECKED = r"code=0; \1 || code=$?; test $code -eq \2"
_SAVED = re.compile(r"[Ss]ave\s+(?:this|it)\s+as\s+`([\w./-]+)`")
_SCRIPTS = {
    "python": "",
    "python3": "",
    "subagents": " -P -m manager",
    "journal-inspect": " -P -m journal_inspect",
}


class Block(NamedTuple):
    kind: str
    text: str
    saved_as: str | None
    prints: str | None


@dataclass(frozen=True)
class Part:
    """The blocks of one part of a page. Each may need the files of those before it."""

    page: str
    title: str
    blocks: tuple[Block, ...]

    def __str__(self) -> str:
        return f"{self.page}: {self.title}"


def blocks_of(text: str) -> Iterator[Block]:
    fences = list(_FENCE.finditer(text))
    end = 0
    for number, match in enumerate(fences):
        _, kind, source = match.groups()
        before, end = text[end : match.start()], match.end()
        if kind not in RUN:
            continue
        named = _SAVED.search(before.strip().rpartition("\n\n")[2])
        after = fences[number + 1] if number + 1 < len(fences) else None
        is_output = after and after[2] == "text" and not text[match.end() : after.start()].strip()
        yield Block(
            kind,
            dedent(source),
            named[1] if named and kind == "python" else None,
            dedent(after[3]) if after and is_output else None,
        )


def parts_of(page: Path, *, whole: bool = False) -> list[Part]:
    """Return the parts of a page that have blocks to run."""
    text, name = page.read_text(), str(page.relative_to(ROOT))
    sections = [text] if whole else _sections(text)
    titles = [re.sub(r"^#+ ", "", section.partition("\n")[0]) for section in sections]
    parts = [
        Part(name, title, tuple(blocks_of(section)))
        for title, section in zip(titles, sections, strict=True)
    ]
    return [part for part in parts if part.blocks]


def _sections(text: str) -> list[str]:
    """Split a page at each `## ` heading outside of a fence."""
    fenced = [match.span() for match in _FENCE.finditer(text)]
    starts = [
        match.start()
        for match in re.finditer(r"^## ", text, re.MULTILINE)
        if not any(begin <= match.start() < end for begin, end in fenced)
    ]
    edges = [0, *starts, len(text)]
    return [text[begin:end] for begin, end in pairwise(edges)]


def shims(folder: Path) -> Path:
    """Make the commands that an installation would put on PATH, for this checkout and this
    Python."""
    folder.mkdir()
    for script, arguments in _SCRIPTS.items():
        path = folder / script
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        path.chmod(0o755)
    return folder


def run_part(part: Part, folder: Path, path: str) -> None:
    """Run the blocks of a part. Raise AssertionError if one does not do what its page says."""
    for block in part.blocks:
        if block.saved_as:
            (folder / block.saved_as).write_text(block.text)
            continue
        command = (
            [sys.executable, "-W", "error", "-W", _OF_SQLITEDICT, "-c", block.text]
            if block.kind == "python"
            else ["bash", "-c", f"set -eu\n{_EXITS.sub(_CHECKED, block.text)}"]
        )
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        output = f"{block.text}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
        assert done.returncode == 0, output
        assert block.kind == "sh" or not done.stderr, output
        if block.prints is not None:
            assert matches(block.prints, done.stdout), f"{output}\n--- promised\n{block.prints}"


def environment(path: str) -> dict[str, str]:
    return os.environ | {"PATH": path, "COLUMNS": "100", "TZ": "UTC"}


def matches(promised: str, printed: str) -> bool:
    """Return whether the output matches, apart from spaces at the ends of lines."""

    def bare(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())

    pieces = map(re.escape, bare(promised).split("..."))
    return re.fullmatch(".*?".join(pieces), bare(printed), re.DOTALL) is not None


def import_needed_packages(part: Part) -> None:
    """Skip the test if a part needs a package of a dependency group that is not installed."""
    text = "".join(block.text for block in part.blocks)
    stores = (
        "sqlitedict",
        "diskcache",
        "persistqueue",
        "langgraph",
        "agents",
        "pydantic_ai",
        "a2a",
    )
    others = [(name, f"^from {name}") for name in stores]
    for name, use in (("ruff", "^ruff"), ("mypy", "^mypy"), ("sphinx", "tools/site"), *others):
        if re.search(rf"{use}\b", text, re.MULTILINE):
            import_package(name)


def copy_of_checkout(to: Path) -> Path:
    """Copy the checkout, without the files that tools leave in it."""
    ignored = shutil.ignore_patterns(
        "__pycache__", ".git", ".*_cache", ".hypothesis", ".venv", "build", "dist", "*.egg-info"
    )
    return shutil.copytree(ROOT, to, ignore=ignored)

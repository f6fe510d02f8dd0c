"""The project's own rules: the size of files, words that no file contains, and public names."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import pickle
import re
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, get_type_hints

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted(
    p for top in ("journal", "manager", "tools", "tests") for p in ROOT.glob(f"{top}/**/*.py")
)
TESTS = sorted(ROOT.glob("tests/**/test_*.py"))

CODE_LINES_MAX = 300
FUNCTION_LINES_MAX = 60


# --- size ---


def code_lines(source: str) -> set[int]:
    """Return the numbers of the lines with code: no docstrings, comments or blank lines."""
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout and token.type != tokenize.ENDMARKER:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a docstring
            lines -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return lines


def oversized(path: Path) -> Iterator[str]:
    """Yield a message for each part of a file that has too many lines of code."""
    source = path.read_text()
    spans = {
        node: range(node.lineno, (node.end_lineno or 0) + 1)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    longest = max(map(len, spans.values()), default=0)
    if len(source.splitlines()) <= CODE_LINES_MAX and longest < FUNCTION_LINES_MAX:
        return  # whatever its lines contain; counting takes ten times as long
    lines = code_lines(source)
    name = path.relative_to(ROOT)
    if len(lines) > CODE_LINES_MAX:
        yield f"{name} has {len(lines)} lines"
    for node, span in spans.items():
        if len(span) >= FUNCTION_LINES_MAX:
            length = len(lines & {*span})
            if length >= FUNCTION_LINES_MAX:
                yield f"{name}: {node.name} has {length} lines"


@pytest.mark.usefixtures("few_to_collect")
def test_files_and_functions_stay_small() -> None:
    """No module has more than 300 lines of code, and each function has less than 60."""
    assert len(CODE) > 100
    assert [line for path in CODE for line in oversized(path)] == []


def test_code_lines_are_counted_correctly() -> None:
    """The counter leaves out docstrings, comments and blank lines, and nothing else."""
    source = (
        '"""Doc,\nof two lines."""\n\nX = 1  # why\n# a comment\n\n\n'
        'def f():\n    """Doc."""\n    return """a\n    b"""\n\n\nY = 2\n"""Of Y,\nand more."""\n'
    )
    assert code_lines(source) == {4, 8, 10, 11, 14}


# --- words ---


def written_files() -> list[Path]:
    """Return all files that people write, without the files that tools leave."""
    folders = ("journal", "manager", "tools", "tests", ".ci", ".github", "docs")
    paths = [
        p
        for folder in folders
        for p in (ROOT / folder).glob("**/*")
        if "__pycache__" not in p.parts
    ]
    files = [
        p for p in (*paths, *ROOT.iterdir()) if p.is_file() and p.suffix not in (".seg", ".pyc")
    ]
    assert len(files) > 20
    return files


def test_no_file_names_a_machine_or_leaves_work_undone() -> None:
    """No file names a path of the machine on which it was written, or contains unfinished work."""
    machine = re.compile(r"/(?:work|farm|root|home/\w+|Users/\w+|tmp/bash_jobs)/")
    undone = re.compile(r"\b(?:TO[D]O|FIX[M]E|X{3})\b")
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in written_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if machine.search(line) or undone.search(line)
    ]
    assert lines == []


@pytest.mark.usefixtures("few_to_collect")
def test_every_test_states_its_rule() -> None:
    """The docstring of each test states its rule."""
    assert TESTS
    mute = [
        f"{path.name}: {node.name}"
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test")
        and not ast.get_docstring(node)
    ]
    assert mute == []


# --- packages ---


def test_the_version_is_written_once() -> None:
    """The build reads the version from the package, and no other file states one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    source = (ROOT / project["tool"]["hatch"]["version"]["path"]).read_text()
    versions = re.findall(r'^__version__ = "(\d+\.\d+\.\d+)"$', source, re.MULTILINE)
    assert versions == [importlib.import_module("journal").__version__]


def test_the_changelog_begins_with_the_bytes_on_disk() -> None:
    """The newest version is this one, and each version's changes begin with the files on disk."""
    headings = re.findall(r"^##.*", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    versions = [heading for heading in headings if heading.startswith("## ")]
    newest = next(heading for heading in versions if heading != "## [Unreleased]")
    version = re.escape(importlib.import_module("journal").__version__)
    assert re.fullmatch(rf"## \[{version}\] - \d{{4}}-\d\d-\d\d", newest)
    assert {headings[headings.index(each) + 1] for each in versions} == {"### On-disk format"}


@pytest.mark.parametrize("package", ["journal", "manager"])
def test_no_module_takes_a_public_name(package: str) -> None:
    """No module has the name of a public function: `journal.repair` would be a module or a
    function, depending on which was imported first."""
    module = importlib.import_module(package)
    assert not {name for _, name, _ in iter_modules(module.__path__)} & set(module.__all__)


@pytest.mark.parametrize("package", ["journal", "manager"])
def test_public_names_are_sorted(package: str) -> None:
    """The names in `__all__` are sorted, constants first."""
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module.__all__, key=lambda name: (not name.isupper(), name))


@pytest.mark.parametrize("package", ["journal", "manager"])
def test_public_names_hide_private_modules(package: str) -> None:
    """Tracebacks, `repr` and pickles name the package, and the types of public fields can be
    resolved."""
    module = importlib.import_module(package)
    values = {name: getattr(module, name) for name in module.__all__}
    defined = {
        name: value
        for name, value in values.items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value is not Any
    }
    others = {name for name in values.keys() - defined.keys() if not name.isupper()}
    assert others <= {"Buffer", "FileMode", "Freeze", "Key", "Record", "Status", "StrPath"}
    for value in defined.values():
        assert value.__module__ == package, value
        assert pickle.loads(pickle.dumps(value)) is value
        assert get_type_hints(value) is not None

"""The check of a docstring's first word: a verb for a function, a noun for a class or a field.

    python -m tests.project.docstrings [PATHS]

The command lists every docstring that opens with another kind of word, in the files and folders of
PATHS or in the whole checkout, and counts them by folder. Ruff's rule D401 knows many verbs and
nouns, and this module knows the words that D401 lets through. A folder is checked, here and by
ruff, unless `per-file-ignores` in `pyproject.toml` excuses it from D401. Docstrings of tests state
rules, so they are not checked.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TOPS = ("journal", "manager", "tools", "tests")
NEITHER = (  # these words begin a clause or a phrase, and hide its subject
    "After Again And As At Because Before Behind But By For From How If In Into It Never Not "
    "Now Of On Once Only Or Out Over So Than That Then There These They This Those Through Though "
    "To Under Unless Until Up What Whatever When Where Whether Which While Who Whoever Whose Why "
    "With Within Without"
)
NOUN = (  # these words begin a noun phrase
    "A All An Another Any Anything Best Both Each Either Every Everything Few First Half Her His "
    "Its Last Long Many More Most Neither Next No Nobody None Nothing One Other Our Ours Several "
    "Small Some Something Such Ten The Their Three Two Whole"
)


class Offence(NamedTuple):
    """A docstring with the wrong first word."""

    path: str
    line: int
    name: str
    text: str


def is_wrong_for_function(word: str) -> bool:
    """Return whether a function's docstring must not open with `word`."""
    if word in (*NEITHER.split(), *NOUN.split()) or not re.fullmatch("[A-Z][a-z]+", word):
        return True
    return word.endswith("s") and not word.endswith("ss")  # a plural, or the third person


def is_property(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether the function is read like a field."""
    return any(ast.unparse(each).endswith("property") for each in function.decorator_list)


def field_docstrings(node: ast.AST) -> Iterator[tuple[str, str, int]]:
    """Yield the name, docstring and line of each field or constant that `node` assigns."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        return
    for field, after in pairwise(node.body):
        if isinstance(field, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
            match after.value:
                case ast.Constant(value=str(text)):
                    target = field.target if isinstance(field, ast.AnnAssign) else field.targets[0]
                    yield ast.unparse(target), text, after.lineno


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and the statements in it. No definition is inside an expression."""
    yield node
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        for child in getattr(node, field, ()):
            yield from statements(child)


def docstrings(tree: ast.Module) -> Iterator[tuple[str, str, int, bool]]:
    """Yield the name, docstring and line of each definition, and whether a noun is due."""
    for node in statements(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            is_noun_due = isinstance(node, ast.ClassDef) or is_property(node)
            yield node.name, ast.get_docstring(node) or "", node.body[0].lineno, is_noun_due
        for field in field_docstrings(node):
            yield (*field, True)


def offences_in(path: Path, root: Path = ROOT) -> Iterator[Offence]:
    """Yield the docstrings of a module that open with a word of the wrong kind."""
    for name, text, line, is_noun_due in docstrings(ast.parse(path.read_text())):
        doc = text.strip()
        if not doc or name.startswith("test"):
            continue
        word = doc.split()[0].rstrip(".,:;")
        if word in NEITHER.split() if is_noun_due else is_wrong_for_function(word):
            yield Offence(str(path.relative_to(root)), line, name, doc.partition("\n")[0])


def modules(paths: Iterable[Path]) -> list[Path]:
    """Return the Python files in `paths`, which are files or folders."""
    paths_found = {p for path in paths for p in (path.rglob("*.py") if path.is_dir() else [path])}
    return sorted(path.resolve() for path in paths_found)


def checked_modules() -> list[Path]:
    """Return the modules that `pyproject.toml` does not excuse from D401."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    ignores = project["tool"]["ruff"]["lint"]["per-file-ignores"]
    excused = [str(ROOT / glob) for glob, rules in ignores.items() if "D401" in rules]
    candidates = modules(ROOT / top for top in TOPS)
    return [path for path in candidates if not any(fnmatch(str(path), glob) for glob in excused)]


def offences_by_ruff(paths: list[Path]) -> Iterator[Offence]:
    """Yield the offences that ruff's D401 finds, in excused files too."""
    options = ("--isolated", "--select=D401", "--output-format=json")
    command = [sys.executable, "-m", "ruff", "check", *options, *map(str, paths)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    for offence in json.loads(output.stdout):
        path, row = Path(offence["filename"]), offence["location"]["row"]
        line = path.read_text().splitlines()[row - 1].strip().removeprefix('"""')
        yield Offence(str(path.relative_to(ROOT)), row, "D401", line.removesuffix('"""'))


def main(arguments: list[str]) -> int:
    """Print the offences and their number by folder. Return 1 if there are any."""
    paths = modules([Path(each) for each in arguments] or [ROOT / top for top in TOPS])
    ours = {each[:2]: each for path in paths for each in offences_in(path)}
    theirs = {each[:2]: each for each in offences_by_ruff(paths)}
    offences = sorted((theirs | ours).values())
    for each in offences:
        print(f"{each.path}:{each.line}: {each.name}: {each.text}")
    by_folder = Counter(str(Path(each.path).parent) for each in offences)
    for folder, count in sorted(by_folder.items()):
        print(f"{count:5}  {folder}")
    print(f"{len(offences):5}  in all")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

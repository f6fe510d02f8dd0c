"""The project's own rules: which way imports go, how long a file may be, what no file says."""

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
from graphlib import TopologicalSorter
from pathlib import Path
from pkgutil import iter_modules
from typing import get_type_hints

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "journal": ROOT / "journal",
    "manager": ROOT / "manager",
    "journal_inspect": ROOT / "tools" / "journal_inspect",
}
CODE = sorted(
    p for top in ("journal", "manager", "tools", "tests") for p in ROOT.glob(f"{top}/**/*.py")
)
TESTS = sorted(ROOT.glob("tests/**/test_*.py"))

# A module imports from lower floors, or from its own room; "" is the package itself, which is all
# its public names. Words that are not rooms are modules beside the package's `__init__`.
JOURNAL_FLOORS = (
    ("_public",),
    ("errors",),
    ("_handle", "_log", "_mutex"),
    ("metrics",),
    ("_disk",),
    ("_format",),
    ("options",),
    ("_recovery",),
    ("_commit",),
    ("_offline",),
    ("_engine",),
    ("_state",),
    ("",),
    ("_exporting",),
    ("testing", "prometheus", "otel"),
)
MANAGER_FLOORS = (
    ("_public",),
    ("errors", "arguments"),
    ("agent", "values", "ids", "workspace"),
    ("records",),
    ("changes", "given", "steps", "family", "checks"),
    ("replay", "legacy"),
    ("fleet",),
    ("watch", "cleanup", "view", "recovery"),
    ("updates",),
    ("manager",),
    ("",),
    ("_run",),
    ("_cli",),
    ("__main__",),
)
# These reach the world outside; of the engine only these modules may.
OUTSIDE = {
    "os",
    "fcntl",
    "io",
    "mmap",
    "pathlib",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
}
MAY_REACH_OUTSIDE = "journal._disk."
CODE_LINES_MAX = 300
FUNCTION_LINES_MAX = 60


def module_name(path: Path) -> str:
    for package, folder in PACKAGES.items():
        if path.is_relative_to(folder):
            parts = path.relative_to(folder).with_suffix("").parts
            return ".".join([package, *parts]).removesuffix(".__init__")
    raise AssertionError(f"{path} is in no package")


def modules_of(package: str) -> dict[str, ast.Module]:
    paths = sorted(PACKAGES[package].glob("**/*.py"))
    assert paths
    return {module_name(path): ast.parse(path.read_text(), str(path)) for path in paths}


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Each name imported anywhere in a module: (module, name), the name "" for a whole module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from ((str(node.module), alias.name) for alias in node.names)


def inner_imports(package: str) -> Iterator[tuple[str, str]]:
    """(module, module of the same package that it imports), both without the package's name."""
    trees = modules_of(package)
    for importer, tree in trees.items():
        for module, name in imports(tree):
            target = f"{module}.{name}" if f"{module}.{name}" in trees else module
            if target.split(".")[0] == package:
                yield importer.partition(".")[2], target.partition(".")[2]


def top(module: str) -> str:
    return module.split(".")[0]


def wrong_arrows(package: str, floors: tuple[tuple[str, ...], ...]) -> list[str]:
    """Return the imports that go neither down nor to the importer's own room."""
    floor_of = {room: floor for floor, rooms in enumerate(floors) for room in rooms}
    known = {top(name.partition(".")[2]) for name in modules_of(package)}
    assert known == floor_of.keys()
    return [
        f"{package}.{importer} imports {package}.{target}"
        for importer, target in inner_imports(package)
        if top(target) != top(importer) and floor_of[top(target)] >= floor_of[top(importer)]
    ]


@pytest.mark.parametrize(
    ("package", "floors"),
    [
        ("journal", JOURNAL_FLOORS),
        ("manager", MANAGER_FLOORS),
    ],
)
def test_imports_go_one_way(package: str, floors: tuple[tuple[str, ...], ...]) -> None:
    """A module imports lower floors and its own room only, and no imports run in a circle."""
    assert wrong_arrows(package, floors) == []
    arrows: dict[str, set[str]] = {}
    for importer, target in inner_imports(package):
        # `from journal._format import frame` names the module; the room's own file holds nothing.
        arrows.setdefault(importer, set()).add(target)
    TopologicalSorter(arrows).prepare()  # raises CycleError


def test_only_the_real_disk_and_the_process_reach_the_world() -> None:
    """The engine below `testing` does I/O through the seam: it opens nothing by itself."""
    trees = modules_of("journal")
    inner = [name for name in trees if "._" in name]
    assert len(inner) > 30
    for name in inner:
        if name.startswith(MAY_REACH_OUTSIDE):
            continue
        tree = trees[name]
        assert not {top(module) for module, _ in imports(tree)} & OUTSIDE, name
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert not [f for f in calls if isinstance(f, ast.Name) and f.id == "open"], name


@pytest.mark.parametrize(
    ("user", "used"),
    [("manager", "journal"), ("journal_inspect", "journal"), ("journal_inspect", "manager")],
)
def test_packages_use_each_others_public_names_only(user: str, used: str) -> None:
    """What is above the engine needs nothing of it but what `__all__` names."""
    public = {*importlib.import_module(used).__all__, "__file__", "__version__"}
    for name, tree in modules_of(user).items():
        for module, imported in imports(tree):
            assert module == used or top(module) != used, f"{name} imports {module}"
            if module == used and imported:
                assert imported in public, f"{name} imports {imported} from {used}"
        if (used, "") in imports(tree):
            attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
            of_used = [
                a for a in attributes if isinstance(a.value, ast.Name) and a.value.id == used
            ]
            assert {a.attr for a in of_used} <= public, f"{name} reaches into {used}"


def test_the_engine_knows_nothing_of_its_users() -> None:
    """The engine imports neither the manager nor the tools, and the manager not the tools."""
    for package, above in (
        ("journal", {"manager", "journal_inspect"}),
        ("manager", {"journal_inspect"}),
    ):
        for name, tree in modules_of(package).items():
            assert not {top(module) for module, _ in imports(tree)} & above, name


# --- size ---


def code_lines(source: str) -> set[int]:
    """The numbers of the lines that hold code: no docstrings, comments, blank lines."""
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout and token.type != tokenize.ENDMARKER:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return lines


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    """No module holds over 300 lines of code, no function 60."""
    source = path.read_text()
    lines = code_lines(source)
    assert len(lines) <= CODE_LINES_MAX
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = len(lines & set(range(node.lineno, (node.end_lineno or 0) + 1)))
            assert length < FUNCTION_LINES_MAX, f"{node.name} has {length} lines"


def test_code_lines_are_counted_rightly() -> None:
    """The counter leaves out what is not code, and nothing else."""
    source = (
        '"""Doc,\nof two lines."""\n\nX = 1  # why\n# a comment\n\n\n'
        'def f():\n    """Doc."""\n    return """a\n    b"""\n'
    )
    assert code_lines(source) == {4, 8, 10, 11}


# --- words ---


def written_files() -> list[Path]:
    """All that people write here, none of what tools leave."""
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
    """The project speaks of itself alone, and what it holds is finished."""
    machine = re.compile(r"/(?:work|farm|root|home/\w+|Users/\w+|tmp/bash_jobs)/")
    undone = re.compile(r"\b(?:TO[D]O|FIX[M]E|X{3})\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in written_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if machine.search(line) or undone.search(line)
    ]
    assert found == []


def test_every_test_states_its_rule() -> None:
    """Each test's docstring says which rule it holds."""
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
    """The build reads the version from where the package has it; nothing else states one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    source = (ROOT / project["tool"]["hatch"]["version"]["path"]).read_text()
    found = re.findall(r'^__version__ = "(\d+\.\d+\.\d+)"$', source, re.MULTILINE)
    assert found == [importlib.import_module("journal").__version__]


def test_the_changelog_begins_with_the_bytes_on_disk() -> None:
    """The newest version is this one; who upgrades reads first what happens to the files."""
    headings = re.findall(r"^##.*", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    versions = [heading for heading in headings if heading.startswith("## ")]
    newest = next(heading for heading in versions if heading != "## [Unreleased]")
    version = re.escape(importlib.import_module("journal").__version__)
    assert re.fullmatch(rf"## \[{version}\] - \d{{4}}-\d\d-\d\d", newest)
    assert {headings[headings.index(each) + 1] for each in versions} == {"### On-disk format"}


@pytest.mark.parametrize("package", ["journal", "manager"])
def test_no_module_takes_a_public_name(package: str) -> None:
    """A module that is imported becomes what its package has of that name: `journal.repair` would
    be a module or a function, by who came first."""
    module = importlib.import_module(package)
    assert not {name for _, name, _ in iter_modules(module.__path__)} & set(module.__all__)


@pytest.mark.parametrize("package", ["journal", "manager"])
def test_public_names_are_sorted_and_documented(package: str) -> None:
    """`__all__` is sorted, constants first; each class and function in it says what it is, and so
    does each method and property. (For all else, see test_docs.py: the reference.)"""
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module.__all__, key=lambda name: (not name.isupper(), name))
    values = {name: getattr(module, name) for name in module.__all__}
    said = {name: v for name, v in values.items() if inspect.isclass(v) or inspect.isfunction(v)}
    mute = [name for name, value in said.items() if not documented(value)]
    for name, value in said.items():
        for method, member in vars(value).items():
            inner = getattr(member, "__func__", member)
            is_shown = inspect.isfunction(inner) or isinstance(inner, property)
            if is_shown and not method.startswith("_") and not inspect.getdoc(inner):
                mute.append(f"{name}.{method}")
    assert mute == []


@pytest.mark.parametrize("package", ["journal", "manager"])
def test_public_names_show_no_private_room(package: str) -> None:
    """Tracebacks, `repr` and pickles name the package; public fields' types can be looked up."""
    module = importlib.import_module(package)
    values = {name: getattr(module, name) for name in module.__all__}
    defined = [v for v in values.values() if inspect.isclass(v) or inspect.isfunction(v)]
    assert len(defined) >= len(values) - 2  # but for a Literal and a constant of the manager's
    for value in defined:
        assert value.__module__ == package, value
        assert pickle.loads(pickle.dumps(value)) is value
        assert get_type_hints(value) is not None


def documented(value: type | object) -> bool:
    # A dataclass without a docstring gets its own signature for one.
    doc = getattr(value, "__doc__", None) or ""
    return bool(doc) and not doc.startswith(f"{getattr(value, '__name__', '')}(")

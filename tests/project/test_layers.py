"""The layers: the direction of imports, access to the outside world, and the use of public
names."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "journal": ROOT / "journal",
    "manager": ROOT / "manager",
    "_journal_console": ROOT / "tools" / "_journal_console",
    "journal_inspect": ROOT / "tools" / "journal_inspect",
}
# A module may import from lower layers, and from its own package. "" is the package itself, with
# all its public names. A word that is not a folder is a module beside the package's `__init__`.
JOURNAL_LAYERS = (
    ("_extra", "_public", "_time"),
    ("_names",),
    ("errors",),
    ("_callbacks", "_handle", "_log", "_mutex", "_waits"),
    ("metrics",),
    ("_recorder",),
    ("_disk",),
    ("_format",),
    ("options",),
    ("_recovery",),
    ("_commit",),
    ("_offline",),
    ("_mirror",),
    ("_engine",),
    ("_state",),
    ("_tables",),
    ("",),
    ("_exporting",),
    ("testing", "prometheus", "otel", "adapters"),
    ("__main__",),
)
MANAGER_LAYERS = (
    ("_public", "clock"),
    ("errors", "arguments"),
    ("agent", "values", "ids", "workspace", "companion"),
    ("legacy_export", "again", "worker_checks"),
    ("layouts", "columns"),
    ("records",),
    (
        "changes",
        "limits",
        "result",
        "steps",
        "family",
        "checks",
        "items",
        "names",
        "queue",
        "recent",
        "elsewhere",
    ),
    ("legacy_workers",),
    ("replay", "legacy", "waking", "sources", "bulk_checks"),
    ("admission", "typed_items"),
    ("fleet",),
    ("waiting", "bulk_replay"),
    ("watch", "cleanup", "outputs", "machine", "fleet_reader", "recovery", "draft", "tables"),
    ("updates", "view", "history", "verbs", "fleet_outputs"),
    ("transaction", "delivery", "scheduling", "retention", "importing", "_control"),
    ("removal", "leasing"),
    ("manager",),
    ("worker",),
    ("_remote",),
    ("",),
    ("_run",),
    ("_cli",),
    ("__main__",),
)
INSPECT_LAYERS = (
    ("",),
    ("rendering",),
    ("exits",),
    ("diagnosis",),
    ("report",),
    ("commands",),
    ("__main__",),
)
# Modules that reach the outside world. In the engine, only `_disk` may import them.
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
# What a test of a program may stop or replace in `time`. A commit or a time limit depends on it.
STOPPABLE = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"}


def module_name(path: Path) -> str:
    for package, folder in PACKAGES.items():
        if path.is_relative_to(folder):
            parts = path.relative_to(folder).with_suffix("").parts
            return ".".join([package, *parts]).removesuffix(".__init__")
    raise AssertionError(f"{path} is in no package")


@cache
def modules_of(package: str) -> dict[str, ast.Module]:
    folder = PACKAGES[package]
    # The examples in `docs` are users of the packages, and no package imports them.
    paths = [p for p in sorted(folder.glob("**/*.py")) if p.relative_to(folder).parts[0] != "docs"]
    assert paths
    return {module_name(path): ast.parse(path.read_text(), str(path)) for path in paths}


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield each import anywhere in a module as (module, name), with the name "" for a whole
    module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from ((str(node.module), alias.name) for alias in node.names)


def inner_imports(package: str) -> Iterator[tuple[str, str]]:
    """Yield (importer, imported module) within one package, both without the package's name."""
    trees = modules_of(package)
    for importer, tree in trees.items():
        for module, name in imports(tree):
            target = f"{module}.{name}" if f"{module}.{name}" in trees else module
            if target.split(".")[0] == package:
                yield importer.partition(".")[2], target.partition(".")[2]


def top(module: str) -> str:
    return module.split(".")[0]


def wrong_imports(package: str, layers: tuple[tuple[str, ...], ...]) -> list[str]:
    """Return the imports that lead neither to a lower layer nor into the importer's own package."""
    layer_of = {name: layer for layer, names in enumerate(layers) for name in names}
    known = {top(name.partition(".")[2]) for name in modules_of(package)}
    assert known == layer_of.keys()
    return [
        f"{package}.{importer} imports {package}.{target}"
        for importer, target in inner_imports(package)
        if top(target) != top(importer) and layer_of[top(target)] >= layer_of[top(importer)]
    ]


@pytest.mark.usefixtures("few_to_collect")
@pytest.mark.parametrize(
    ("package", "layers"),
    [
        ("journal", JOURNAL_LAYERS),
        ("manager", MANAGER_LAYERS),
        ("journal_inspect", INSPECT_LAYERS),
    ],
)
def test_imports_go_one_way(package: str, layers: tuple[tuple[str, ...], ...]) -> None:
    """A module imports from lower layers and its own package only, and no imports form a cycle."""
    assert wrong_imports(package, layers) == []
    imports_of: dict[str, set[str]] = {}
    for importer, target in inner_imports(package):
        # `from journal._format import frame` means the module `frame`: the folder's own file is
        # empty.
        imports_of.setdefault(importer, set()).add(target)
    TopologicalSorter(imports_of).prepare()  # raises CycleError


def test_only_the_disk_package_does_io() -> None:
    """Only `_disk` does I/O: the other private folders of the engine open nothing by themselves."""
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


def test_no_clock_that_a_program_may_stop_is_used() -> None:
    """The engine and the manager take clocks and pauses from `_time` and `clock`, not from `time`.
    Only commands run in processes of their own, where nobody stops a clock."""
    for package in ("journal", "manager"):
        for name, tree in modules_of(package).items():
            if name.startswith(("journal._time", "manager.clock", "manager._cli", "manager._run")):
                continue
            taken = {name for module, name in imports(tree) if module == "time"}
            if "" in taken:
                nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
                taken |= {node.attr for node in nodes if getattr(node.value, "id", "") == "time"}
            assert not taken & STOPPABLE, name


@pytest.mark.parametrize(
    ("user", "used"),
    [("manager", "journal"), ("journal_inspect", "journal"), ("journal_inspect", "manager")],
)
def test_packages_use_each_others_public_names_only(user: str, used: str) -> None:
    """A package above the engine uses only the names in the engine's `__all__`."""
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


def test_adapters_use_public_names_only_and_nothing_imports_them() -> None:
    """An adapter imports of the engine only the names in its `__all__`, and no other adapter, but
    what all adapters share. Only the package of an adapter imports it."""
    public = {*importlib.import_module("journal").__all__}
    for name, tree in modules_of("journal").items():
        own = ".".join(name.split(".")[:3]) if name.startswith("journal.adapters.") else ""
        for module, imported in imports(tree):
            if own and top(module) == "journal":
                shared = "journal.adapters._", "journal._extra."
                is_own = f"{module}.".startswith((f"{own}.", *shared))
                assert is_own or (module == "journal" and imported in public), (name, module)
            else:
                assert not f"{module}.".startswith("journal.adapters."), (name, module)
    for package in set(PACKAGES) - {"journal"}:
        for name, tree in modules_of(package).items():
            assert not [m for m, _ in imports(tree) if m.startswith("journal.adapters")], name


def test_the_engine_does_not_import_its_users() -> None:
    """The engine imports neither the manager nor the tools, and the manager not the tools. What
    both command lines share imports none of them, so that `--help` is printed before any is
    loaded. Only `python -m journal` runs a tool."""
    for package, above in (
        ("_journal_console", {"journal", "manager", "journal_inspect"}),
        ("journal", {"manager", "journal_inspect", "_journal_console"}),
        ("manager", {"journal_inspect"}),
    ):
        for name, tree in modules_of(package).items():
            if name != "journal.__main__":
                assert not {top(module) for module, _ in imports(tree)} & above, name

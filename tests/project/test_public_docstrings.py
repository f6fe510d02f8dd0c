"""Docstrings of the public API, which editors and the site show for each name and field."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_origin

import click
import pytest
from contents import COMMANDS, Command, Module, importable_modules

ROOT = Path(__file__).resolve().parents[2]
MODULES = importable_modules()
# The interfaces that these classes implement describe their methods.
IMPLEMENTATIONS = ("SimulatedDirectory", "SimulatedFile")


def names_of(module: Module) -> list[str]:
    """Return the names of a module in the reference."""
    return [name for names in module.headings.values() for name in names]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_the_reference_has_each_public_name_once(module: Module) -> None:
    """The reference contains each name of `__all__` once."""
    assert sorted(names_of(module)) == sorted(import_module(module.name).__all__)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_each_public_name_has_a_docstring(module: Module) -> None:
    """Each public class, method, property and function has its own docstring."""
    package = import_module(module.name)
    values = {name: getattr(package, name) for name in names_of(module)}
    defined = {name: value for name, value in values.items() if get_origin(value) is None}
    mute = [name for name, value in defined.items() if not has_docstring(value)]
    for name, value in values.items():
        if inspect.isclass(value) and name not in IMPLEMENTATIONS:
            mute += [f"{name}.{member}" for member in mute_members(value)]
    assert mute == []


def has_docstring(value: object) -> bool:
    """Return whether a docstring was written. A dataclass without one gets its signature
    instead."""
    return bool(value.__doc__) and not str(value.__doc__).startswith(
        f"{getattr(value, '__name__', '')}("
    )


def mute_members(value: type) -> Iterator[str]:
    """Yield the public methods and properties of a class that have no docstring."""
    for name, member in vars(value).items():
        inner = getattr(member, "__func__", member)
        is_rule = any(attribute.startswith("hypothesis_") for attribute in dir(inner))
        if not (inspect.isfunction(inner) or isinstance(inner, property)) or is_rule:
            continue
        if not name.startswith("_") and not inner.__doc__:
            yield name


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_each_public_field_has_a_docstring(module: Module) -> None:
    """Each field of a public dataclass, enumeration, error or other class has a docstring below
    it."""
    mute = [
        f"{name}.{field}"
        for name, node in public_classes(module).items()
        for field in fields_of(node) - documented_fields_of(node)
    ]
    assert sorted(mute) == []


def public_classes(module: Module) -> dict[str, ast.ClassDef]:
    """Return the definitions of a module's public classes, from its sources."""
    path = ROOT.joinpath(*module.name.split("."))
    folder = path if path.is_dir() else path.parent
    sources = sorted(folder.glob("**/*.py")) if path.is_dir() else [path.with_suffix(".py")]
    values = {name: getattr(import_module(module.name), name) for name in names_of(module)}
    names = {n for n, value in values.items() if inspect.isclass(value) and value is not Any}
    classes = {
        node.name: node
        for source in sources
        if module.name != "journal" or folder / "testing" not in source.parents
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name in names
    }
    assert classes.keys() == names
    return classes


def fields_of(node: ast.ClassDef) -> set[str]:
    """Return the public names that a class body annotates or assigns, or that `__init__` sets."""
    names: set[str] = set()
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and "ClassVar" not in ast.unparse(part.annotation):
            names.add(ast.unparse(part.target))
        elif isinstance(part, ast.Assign):
            names |= {ast.unparse(target) for target in part.targets}
        elif isinstance(part, ast.FunctionDef) and part.name == "__init__":
            names |= {
                target.attr
                for target in ast.walk(part)
                if isinstance(target, ast.Attribute)
                and isinstance(target.ctx, ast.Store)
                and ast.unparse(target.value) == "self"
            }
    return {name for name in names if not name.startswith("_")}


def documented_fields_of(node: ast.ClassDef) -> set[str]:
    """Return the names in a class body that have a docstring below them."""
    names: set[str] = set()
    for part, below in zip(node.body, node.body[1:], strict=False):
        if isinstance(part, ast.AnnAssign | ast.Assign) and isinstance(below, ast.Expr):
            targets = [part.target] if isinstance(part, ast.AnnAssign) else part.targets
            names |= {ast.unparse(target) for target in targets}
    return names


def test_a_field_without_a_docstring_is_found() -> None:
    """The search for fields without a docstring knows every way to define a field."""
    [node] = ast.parse(
        "class A:\n    a: int\n    '''Doc.'''\n    b: int = 0\n    C = 'c'\n"
        "    d: ClassVar[int] = 0\n    _e: int\n"
        "    def __init__(self):\n        self.f = self._g = 0\n"
    ).body
    assert isinstance(node, ast.ClassDef)
    assert fields_of(node) - documented_fields_of(node) == {"b", "C", "f"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.program)
def test_each_verb_and_option_has_help(command: Command) -> None:
    """`--help` describes each verb and each option."""
    mute: list[str] = []

    def check(command_found: click.Command, name: str) -> None:
        if not command_found.help:
            mute.append(name)
        options = [option for option in command_found.params if isinstance(option, click.Option)]
        mute.extend(f"{name} {option.opts[0]}" for option in options if not option.help)
        if isinstance(command_found, click.Group):
            for inner, other in command_found.commands.items():
                check(other, f"{name} {inner}")

    check(getattr(import_module(command.module), command.name), command.program)
    assert mute == []

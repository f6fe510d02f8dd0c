"""The types in public signatures: each one is public, so that a user's program can name it."""

from __future__ import annotations

import ast
import asyncio
import builtins
import collections.abc
import inspect
import types
import typing
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from contents import CALLED, MODULES

import journal
import manager

PACKAGES = [import_module(module.name) for module in MODULES]
WELL_KNOWN = (asyncio, builtins, typing, types, collections.abc)


def definitions(package: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield each public class, function, method and property, with its name."""
    for name in package.__all__:
        value = getattr(package, name)
        yield name, value
        if inspect.isclass(value) and value is not Any:
            special = ("__init__", "__call__") if name in CALLED else ()
            for member, inner in vars(value).items():
                if not member.startswith("_") or member in special:
                    yield f"{name}.{member}", inner


def annotations_of(value: Any) -> list[str]:
    """Return the annotations of a function, a property, or the public fields of a class."""
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return []
    fields = inspect.get_annotations(value)
    return [text for name, text in fields.items() if name[0] != "_" and isinstance(text, str)]


def inner_of(value: Any) -> Any:
    """Return the function in a method or a property, or the value itself."""
    value = getattr(value, "__func__", getattr(value, "fget", value))
    return inspect.unwrap(value) if callable(value) else value


def names_in(annotation: str) -> set[str]:
    """Return the names in an annotation, and in the annotations that it quotes."""
    names = set()
    for node in ast.walk(ast.parse(annotation, mode="eval")):
        if isinstance(node, ast.Name):
            names.add(node.id)
    return names


def namespace(value: Any) -> dict[str, Any]:
    """Return the names that the annotations of a class may use."""
    functions = map(inner_of, vars(value).values()) if inspect.isclass(value) else ()
    return next((each.__globals__ for each in functions if inspect.isfunction(each)), {})


def is_public(name: str, value: Any) -> bool:
    """Return whether a program can import a type by this name from a public module."""
    if isinstance(value, (typing.TypeVar, ModuleType)):
        return True
    if any(hasattr(known, name) for known in WELL_KNOWN):
        return True
    if any(name in package.__all__ for package in PACKAGES):
        return True
    home = getattr(value, "__module__", "journal")
    return home.partition(".")[0] not in ("journal", "manager")


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_each_type_in_a_signature_is_public(package: ModuleType) -> None:
    """Each name in the annotations of public functions, methods and fields is that of a built-in
    type, or can be imported from a public module."""
    private = []
    for name, value in definitions(package):
        inner = inner_of(value)
        known = getattr(inner, "__globals__", None) or namespace(inner)
        private += [
            f"{name}: {each}"
            for annotation in annotations_of(inner)
            for each in sorted(names_in(annotation))
            if not is_public(each, known.get(each))
        ]
    assert private == []


@pytest.mark.parametrize("package", [journal, manager], ids=lambda package: package.__name__)
def test_each_name_is_listed_once(package: ModuleType) -> None:
    """`dir` lists each name of a package once, imported or not."""
    getattr(package, package.__all__[0])
    names = dir(package)
    assert sorted(set(names)) == names
    assert set(package.__all__) <= set(names)

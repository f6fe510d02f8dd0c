"""Users' programs that type checkers check: they use the whole public API."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path

from contents import MODULES

PROGRAMS = Path(__file__).with_name("typed_programs")


def used_names() -> set[str]:
    """Return the names that the programs use, apart from their imports."""
    return {
        node.id
        for program in PROGRAMS.glob("*.py")
        for node in ast.walk(ast.parse(program.read_text()))
        if isinstance(node, ast.Name)
    }


def test_each_public_class_is_used() -> None:
    """The programs use each public class and type. A class is what its name has a capital for."""
    public = {
        name
        for module in MODULES
        for name in import_module(module.name).__all__
        if name[0].isupper() and not isinstance(getattr(import_module(module.name), name), str)
    }
    constants = {"RECORD_FIELDS", "AGENT_ID_PATTERN"}
    assert sorted(public - used_names() - constants) == []


def test_each_public_function_is_used() -> None:
    """The programs use each public function of the two packages."""
    public = {
        name
        for package in (import_module("journal"), import_module("manager"))
        for name in package.__all__
        if inspect.isfunction(getattr(package, name))
    }
    assert sorted(public - used_names()) == []

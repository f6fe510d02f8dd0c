"""A Sphinx extension that appends the reference to the pages, from docstrings and click commands,
and the programs to the page of examples.

A public name or member without a docstring causes a warning, which fails the build.
"""

from __future__ import annotations

import builtins
import inspect
import re
import shutil
from collections.abc import Iterator
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import click
from contents import CALLED, COMMANDS, FRONT_PAGE, PAGES, PROGRAMS, Module, importable_modules
from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

log = logging.getLogger(__name__)
_MODULES = importable_modules()
_INDENT = " " * 4
_TERMINAL_COLUMNS = 80
# Each public name, with its module.
_FULL_NAMES = {
    name: f"{module.name}.{name}"
    for module in _MODULES
    for names in module.headings.values()
    for name in names
}
# In docstrings, matches a class or its member in backticks, other code, or a class as a bare word.
_REFERENCE = re.compile(r"`([A-Z]\w+)(\.\w+)?`|`[^`]*`|\b([A-Z]\w+[A-Z]\w+)\b")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension to the events of a build."""
    for module in _MODULES:
        _gather_docstrings(module)
    app.add_lexer("hex", TextLexer)
    app.connect("source-read", _append_reference)
    app.connect("autodoc-skip-member", _skip_member)
    app.connect("autodoc-process-signature", _hide_signature)
    app.connect("autodoc-process-docstring", _prepare_docstring)
    app.connect("doctree-read", _unlink_builtins)
    app.connect("build-finished", _copy_front_page)
    return {"parallel_read_safe": True}


def _gather_docstrings(module: Module) -> None:
    """Give Sphinx the docstrings of fields and constants.

    Sphinx searches the source of the module that a class gives in `__module__`. For a public class
    that is the package, but the class is defined in another module of the package.
    """
    names = {name for names in module.headings.values() for name in names}
    package = import_module(module.name)
    public = ModuleAnalyzer.for_module(module.name)
    public.analyze()
    for submodule in walk_packages(getattr(package, "__path__", ()), f"{module.name}."):
        if submodule.name.endswith(".__main__"):
            continue
        if submodule.name.startswith("journal.adapters") and module.name == "journal":
            continue  # they may lack what they import, and have entries of their own
        source = ModuleAnalyzer.for_module(submodule.name)
        source.analyze()
        for (owner, name), docstring in source.attr_docs.items():
            if (owner or name) in names:
                public.attr_docs[owner, name] = docstring
        for qualified_name, position in source.tagorder.items():
            if qualified_name.partition(".")[0] in names:
                public.tagorder[qualified_name] = position


# --- pages ---


def _append_reference(_: Sphinx, page: str, source: list[str]) -> None:
    parts = [source[0]]
    if page == FRONT_PAGE:
        parts += map(_toctree, PAGES)
    parts += map(_program, PROGRAMS.get(page, ()))
    for module in _MODULES:
        if module.page == page:
            parts += _names(module)
    for command in COMMANDS:
        if command.page == page:
            parts += _help(getattr(import_module(command.module), command.name), command.program)
    source[0] = "\n\n".join(parts)


def _program(path: str) -> str:
    return f"## {path.rpartition('/')[2]}\n\n```{{literalinclude}} {path}\n:language: python\n```"


def _toctree(caption: str) -> str:
    entries = "".join(
        f"{title} <{'self' if page == FRONT_PAGE else page}>\n"
        for title, page in PAGES[caption].items()
    )
    return f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}```"


def _names(module: Module) -> Iterator[str]:
    yield _rst(f"module:: {module.name}")
    for heading, names in module.headings.items():
        yield f"## {heading}"
        for name in names:
            yield _documented(f"{module.name}.{name}", getattr(import_module(module.name), name))


def _documented(name: str, value: Any) -> str:
    if inspect.isclass(value):
        options = {"members": "", "undoc-members": ""}
        bases = {base.__name__ for base in value.__bases__}
        if bases.isdisjoint({"object", "OpenHandle", "AsyncHandle", "Verbs"}):
            options["show-inheritance"] = ""
        # Otherwise, Sphinx omits the fields that a base class has as well, and the verbs.
        if is_dataclass(value) or "Verbs" in {base.__name__ for base in value.__mro__}:
            options["inherited-members"] = ""
        kind = "exception" if issubclass(value, BaseException) else "class"
        return _rst(f"auto{kind}:: {name}", **options)
    if inspect.isroutine(value):
        return _rst(f"autofunction:: {name}")
    return _rst(f"autodata:: {name}", **{"no-value": ""})


def _rst(directive: str, **options: str) -> str:
    lines = "".join(f"   :{option}: {value}\n" for option, value in options.items())
    return f"```{{eval-rst}}\n.. {directive}\n{lines}```"


def _help(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[str]:
    """Yield the help of a command and of its subcommands, each under its own heading."""
    width = {"terminal_width": _TERMINAL_COLUMNS, "max_content_width": _TERMINAL_COLUMNS}
    context = command.make_context(name, [], parent, resilient_parsing=True, **width)
    yield f"{'##' if parent is None else '###'} {context.command_path}"
    yield f"```text\n{command.get_help(context)}\n```"
    if isinstance(command, click.Group):
        for subcommand_name in command.list_commands(context):
            subcommand = command.get_command(context, subcommand_name)
            assert subcommand is not None
            yield from _help(subcommand, subcommand_name, context)


# --- names ---


def _skip_member(
    _: Sphinx, kind: str, name: str, member: Any, skip: bool, options: Any
) -> bool | None:
    """Skip the rules of Hypothesis, which nobody calls by name.

    Also skip the methods of SimulatedDirectory and SimulatedFile that Directory and File document.
    """
    if any(attribute.startswith("hypothesis_stateful_") for attribute in dir(member)):
        return True
    owner = getattr(member, "__qualname__", "").partition(".")[0]
    if owner in ("SimulatedDirectory", "SimulatedFile") and not member.__doc__:
        return True
    return None


def _hide_signature(
    _: Sphinx, kind: str, name: str, value: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    if signature and kind in ("class", "exception") and value.__name__ not in CALLED:
        return "", ""
    return None


def _prepare_docstring(
    _: Sphinx, kind: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Turn the indented examples of a docstring into code blocks, and link its public names."""
    if not any(lines):
        log.warning("%s has no docstring", name)
    prepared: list[str] = []
    is_code = False
    for line in lines:
        begins = line.startswith(_INDENT) and not is_code and prepared[-1:] == [""]
        if begins:
            prepared += [".. code-block:: python", ""]
        is_code = begins or (is_code and (not line or line.startswith(_INDENT)))
        prepared.append(line if is_code else _REFERENCE.sub(_linked, line))
    lines[:] = prepared


def _linked(match: re.Match[str]) -> str:
    name, member, bare_name = match.groups(default="")
    if full_name := _FULL_NAMES.get(name or bare_name):
        return f":py:obj:`{name or bare_name}{member} <{full_name}{member}>`"
    return match[0]


def _unlink_builtins(_: Sphinx, page: nodes.document) -> None:
    """Let built-in types refer to themselves: otherwise, `bytes` would link to `Stats.bytes`."""
    for reference in page.findall(pending_xref):
        if hasattr(builtins, reference["reftarget"]):
            reference.attributes.pop("refspecific", None)


def _copy_front_page(app: Sphinx, error: Exception | None) -> None:
    """Copy the front page to `index.html`, so that the site's root address shows it."""
    if error is None and app.builder.name == "html":
        folder = Path(app.outdir)
        shutil.copyfile(folder / f"{FRONT_PAGE}.html", folder / "index.html")

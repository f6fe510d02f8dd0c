"""The pages that nobody writes: names from the code, command lines from their own help.

From the checkout, when a docstring, a signature or an option has changed:

    python -m tests.project.generated_pages

`griffe` reads the sources and runs none of them, so the pages are the same on every Python.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "python -m tests.project.generated_pages"
WIDTH = 80  # of a terminal, for the help
# Other classes are opened, returned, raised, or take the fields that are shown.
_CALLED = ("JournalCollector", "JournalInstruments", "Owner", "SimulatedDisk")
# They do what the seam says of these, and say it not again.
_OF_SEAM = {"SimulatedDirectory": "Directory", "SimulatedFile": "File"}
_RULES = re.compile(r"(rule|initialize)\b")  # Hypothesis calls them, nobody else does


# --- names ---


class Sources:
    """The packages as griffe sees them."""

    def __init__(self) -> None:
        import griffe

        loader = griffe.GriffeLoader(search_paths=[ROOT])
        self._packages = {name: loader.load(name) for name in ("journal", "manager")}
        loader.resolve_aliases(implicit=True)

    def public(self, module: str) -> list[str]:
        """What a module's `__all__` names."""
        return sorted(str(name) for name in self._module(module).exports or ())

    def find(self, module: str, name: str) -> Any:
        found = self._module(module)[name]
        if found.is_module:  # a function that is called like its module
            found = found[name]
        return found.final_target if found.is_alias else found

    def _module(self, path: str) -> Any:
        package, _, rest = path.partition(".")
        return self._packages[package][rest] if rest else self._packages[package]


def described(found: Any, name: str) -> Iterator[str]:
    """A class or a function: its signature, its docstring, its members."""
    yield f"### {name}\n"
    if found.is_class:
        yield _code(_class_line(found, name))
        yield _doc(found)
        if fields := [_field(member) for member in found.members.values() if _is_field(member)]:
            yield _code("\n".join(fields))
        for member in found.members.values():
            if _is_shown(member):
                yield _code(_member_line(name, member))
                yield _doc(member)
    elif found.is_attribute:
        yield _code(f"{name} = {found.value}")
        yield _doc(found)
    else:
        yield _code(_signature(found, name))
        yield _doc(found)


def _class_line(found: Any, name: str) -> str:
    """As it is derived, or, if a program makes one by its name, as it is called."""
    if name in _CALLED:
        return f"class {_signature(found['__init__'], name).removesuffix(' -> None')}"
    bases = ", ".join(str(base) for base in found.bases)
    return f"class {name}({bases})" if bases else f"class {name}"


def _is_field(member: Any) -> bool:
    if not member.is_attribute or member.name.startswith("_") or "property" in member.labels:
        return False
    return "ClassVar" not in str(member.annotation)


def _field(member: Any) -> str:
    if "Enum" in str(member.parent.bases):
        return f"{member.name} = {member.value}  # {_doc(member).strip()}"
    line = f"{member.name}: {member.annotation}" if member.annotation else str(member.name)
    is_default = member.value and "instance-attribute" in member.labels and member.annotation
    is_default = is_default and "class-attribute" in member.labels
    return f"{line} = {member.value}" if is_default else line


def _is_shown(member: Any) -> bool:
    if member.is_alias or member.name.startswith("_"):
        return False
    if not member.is_function:
        return "property" in member.labels
    if (seam := _OF_SEAM.get(member.parent.name)) and not member.docstring:
        return member.name not in member.package["_disk.disk"][seam].members
    return not any(_RULES.match(str(decorator.value)) for decorator in member.decorators)


def _member_line(owner: str, member: Any) -> str:
    if member.is_attribute:
        return f"{owner}.{member.name}: {member.annotation}"
    return _signature(member, f"{owner}.{member.name}")


def _signature(found: Any, name: str) -> str:
    made = str(found.signature(name=name))
    prefix = "async " if "async" in found.labels else ""
    return prefix + made


def _code(text: str) -> str:
    """Long signatures are broken at their arguments."""
    if len(text) > 96 and "\n" not in text and "(" in text:
        head, _, rest = text.partition("(")
        inner, close, tail = rest.rpartition(")")
        arguments = "".join(f"    {argument},\n" for argument in _arguments(inner))
        text = f"{head}(\n{arguments}{close}{tail}"
    return f"```py\n{text}\n```\n"


def _arguments(text: str) -> list[str]:
    """Parted at commas that are within no bracket."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _doc(found: Any) -> str:
    return f"{found.docstring.value.strip()}\n" if found.docstring else ""


# What is public: where, which of it (None: all that `__all__` names), and what stands above it.
Module = tuple[str, tuple[str, ...] | None, str]
ENGINE: tuple[Module, ...] = (
    ("journal", None, ""),
    ("journal.testing", None, "A disk that fails and loses power, and what crashes on it."),
    ("journal.testing.machine", ("CrashMachine",), "Needs `hypothesis`."),
    (
        "journal.testing.fixtures",
        ("crash_owner", "journal_dir", "simulated_disk"),
        'Fixtures for pytest: `pytest_plugins = ["journal.testing.fixtures"]`.',
    ),
    ("journal.prometheus", ("JournalCollector",), "Needs the extra `prometheus`."),
    ("journal.otel", ("JournalInstruments",), "Needs the extra `otel`."),
)
MANAGER: tuple[Module, ...] = (("manager", None, ""),)


def names_of(sources: Sources, modules: tuple[Module, ...]) -> str:
    return "\n".join(
        f"## {module}\n\n{what}\n\n"
        + "\n".join(
            line
            for name in names or sources.public(module)
            for line in described(sources.find(module, name), name)
        )
        for module, names, what in modules
    )


def unsaid(sources: Sources) -> Iterator[str]:
    """Public names and members without a docstring, and fields that their class's does not name."""
    for module, names, _ in (*ENGINE, *MANAGER):
        for name in names or sources.public(module):
            found = sources.find(module, name)
            if not found.docstring:
                yield f"{module}.{name}"
            for member in found.members.values() if found.is_class else ():
                is_named = _is_field(member) and re.search(rf"`{member.name}\b", _doc(found))
                if not (member.docstring or is_named) and (_is_field(member) or _is_shown(member)):
                    yield f"{module}.{name}.{member.name}"


# --- command lines ---


def help_of(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[str]:
    """The help of a command, and of each that it has."""
    width = {"terminal_width": WIDTH, "max_content_width": WIDTH}
    context = command.make_context(name, [], parent, resilient_parsing=True, **width)
    depth = "##" if parent is None else "###"
    yield f"{depth} {context.command_path}\n"
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield f"```text\n{text}\n```\n"
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from help_of(found, inner, context)


# --- pages ---


def head(title: str, text: str) -> str:
    made_by = f"<!-- Made by `{COMMAND}`: change the docstrings, not this page. -->"
    return f"# {title}\n\n{made_by}\n\n{text}\n"


def journal_page() -> str:
    text = head(
        "API of the engine",
        "Every public name, from the code. Errors, with cause and fix, are in\n"
        "[ERRORS.md](ERRORS.md); one task at a time is in [HOWTO.md](HOWTO.md). Times that end in\n"
        "`_s` are seconds, those in `_ms` and `_ns` Unix time, or how long, in that unit.",
    )
    return text + "\n" + names_of(Sources(), ENGINE)


def manager_page() -> str:
    from manager._cli.cli import app

    text = head(
        "Reference of the manager",
        "The `subagents` command, from its own help, and every public name, from the code.\n"
        "Errors, with cause and fix: "
        "[ERRORS.md](../../journal/docs/ERRORS.md#errors-of-the-manager).",
    )
    text += "\n" + "\n".join(help_of(app, "subagents"))
    return text + "\n" + names_of(Sources(), MANAGER)


def tools_page() -> str:
    from journal_inspect.commands.cli import cli

    text = head(
        "Reference of journal-inspect",
        "The command line, from its own help. What to do after damage, step by step, is in\n"
        "[HOWTO.md](../journal/docs/HOWTO.md#recover-from-corruption).",
    )
    return text + "\n" + "\n".join(help_of(cli, "journal-inspect"))


PAGES: dict[str, Callable[[], str]] = {
    "journal/docs/API.md": journal_page,
    "manager/docs/REFERENCE.md": manager_page,
    "tools/REFERENCE.md": tools_page,
}


def made(page: str) -> str:
    """One page as it should stand, with one blank line between its parts."""
    return re.sub(r"\n{3,}", "\n\n", PAGES[page]()).rstrip() + "\n"


def main() -> None:
    sys.path.insert(0, str(ROOT / "tools"))  # or an installed copy's help would be shown
    for page in PAGES:
        (ROOT / page).write_text(made(page))
        print(page)


if __name__ == "__main__":
    main()

"""The documentation site: a strict build is complete, and fails if something is missing."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

import click
import pytest
from contents import COMMANDS, PAGES, PROGRAMS, importable_modules

from tests.installed import import_package
from tests.project.page_support import ROOT, copy_of_checkout

for package in ("sphinx", "myst_parser", "furo"):
    import_package(package)

pytestmark = pytest.mark.slow
TIMEOUT_S = 300
# References that a browser fetches by itself, unlike links.
FETCHED = re.compile(r'<(?:script|img|source|iframe|link)\b[^>]*?(?:src|href)="(?:https?:)?//')


def build(checkout: Path, folder: Path) -> tuple[int, str]:
    """Build the site of a checkout. Return the exit code and the output."""
    done = subprocess.run(
        [sys.executable, str(checkout / "tools" / "site"), str(folder)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_site_has_each_page_name_field_and_verb(tmp_path: Path) -> None:
    """A strict build succeeds with every page, program, name, field and command, and its pages
    fetch nothing from a network."""
    code, output = build(ROOT, tmp_path)
    assert code == 0, output
    for page in ("index", *(page for pages in PAGES.values() for page in pages.values())):
        assert not FETCHED.findall((tmp_path / f"{page}.html").read_text()), page
    for page, programs in PROGRAMS.items():
        text = html.unescape(re.sub(r"<[^>]*>", "", (tmp_path / f"{page}.html").read_text()))
        for program in programs:
            assert ((ROOT / page).parent / program).read_text() in text, program
    for module in importable_modules():
        text = (tmp_path / f"{module.page}.html").read_text()
        for name in (name for names in module.headings.values() for name in names):
            value = getattr(import_module(module.name), name)
            places = [f"{module.name}.{name}"]
            if is_dataclass(value):
                places += [
                    f"{places[0]}.{field.name}" for field in fields(value) if field.name[0] != "_"
                ]
            assert not [place for place in places if f'id="{place}"' not in text]
    for command in COMMANDS:
        text = (tmp_path / f"{command.page}.html").read_text()
        group = getattr(import_module(command.module), command.name)
        assert isinstance(group, click.Group)
        usages = [f"Usage: {command.program} {verb}" for verb in ("[OPTIONS]", *group.commands)]
        assert not [usage for usage in usages if usage not in text]


def test_a_broken_link_or_a_missing_docstring_fails_the_build(tmp_path: Path) -> None:
    """A link without a target, an unknown name in a docstring, and a public name or field without a
    docstring are reported, and fail the build."""
    checkout = copy_of_checkout(tmp_path / "checkout")
    with (checkout / "README.md").open("a") as readme:
        readme.write("\n[no page](GONE.md) and [no heading](CHANGELOG.md#gone)\n")
    for name, text, broken in (
        ("journal/options.py", '    """The largest payload of a frame, in bytes."""\n', ""),
        ("journal/otel.py", "Export the figures", "See `Options.gone`. Export the figures"),
        ("journal/_offline/backup.py", '"""A finished copy of a journal."""', "pass"),
    ):
        source = (checkout / name).read_text()
        assert text in source
        (checkout / name).write_text(source.replace(text, broken))
    code, output = build(checkout, tmp_path / "site")
    assert code != 0
    for problem in (
        "GONE.md",
        "'gone'",
        "journal.Options.gone",
        "journal.Options.frame_bytes_max has no docstring",
        "journal.BackupReport has no docstring",
    ):
        assert problem in output

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


PROBLEM = re.compile("(WARNING|ERROR|CRITICAL|SEVERE): ")  # maybe in color
# What is broken in a copy of the checkout, and how the build names it.
BROKEN = (
    ("README.md", "\n## ", "\n[no page](GONE.md)\n\n## ", "GONE.md"),
    ("README.md", "\n## ", "\n[no heading](CHANGELOG.md#gone)\n\n## ", "'gone'"),
    (
        *("journal/otel.py", "Export the figures", "See `Options.gone`. Export the figures"),
        "journal.Options.gone",
    ),
    (
        *("journal/options.py", '    """The largest payload of a frame, in bytes."""\n', ""),
        "Options.frame_bytes_max has no docstring",  # also of a class that inherits it
    ),
    (
        *("journal/_offline/backup.py", '"""A finished copy of a journal."""', "pass"),
        "journal.BackupReport has no docstring",
    ),
)


def test_only_what_is_broken_fails_the_build(tmp_path: Path) -> None:
    """A link without a target, an unknown name in a docstring, and a public name or field without a
    docstring are reported, and fail the build. Nothing else is reported, and the site is whole: a
    second build for that would take as long again."""
    checkout, site = copy_of_checkout(tmp_path / "checkout"), tmp_path / "site"
    for name, text, broken, _ in BROKEN:
        source = (checkout / name).read_text()
        assert text in source
        (checkout / name).write_text(source.replace(text, broken, 1))
    code, output = build(checkout, site)
    assert code == 1, output  # 2: an exception ended it
    problems = [line for line in output.splitlines() if PROBLEM.search(line)]
    places = [place for *_, place in BROKEN]
    assert [place for place in places if not any(place in line for line in problems)] == []
    assert [line for line in problems if not any(place in line for place in places)] == []
    check_site(site)


def check_site(site: Path) -> None:
    """Check that a site has every page, program, name, field and command, and that its pages fetch
    nothing from a network."""
    undocumented = {"journal.BackupReport", "journal.Options.frame_bytes_max"}
    for page in ("index", *(page for pages in PAGES.values() for page in pages.values())):
        assert not FETCHED.findall((site / f"{page}.html").read_text()), page
    for page, programs in PROGRAMS.items():
        text = html.unescape(re.sub(r"<[^>]*>", "", (site / f"{page}.html").read_text()))
        for program in programs:
            assert ((ROOT / page).parent / program).read_text() in text, program
    for module in importable_modules():
        text = (site / f"{module.page}.html").read_text()
        for name in (name for names in module.headings.values() for name in names):
            value = getattr(import_module(module.name), name)
            places = [f"{module.name}.{name}"]
            if is_dataclass(value):
                places += [
                    f"{places[0]}.{field.name}" for field in fields(value) if field.name[0] != "_"
                ]
            missing = {place for place in places if f'id="{place}"' not in text}
            assert missing <= undocumented, missing
    for command in COMMANDS:
        text = (site / f"{command.page}.html").read_text()
        group = getattr(import_module(command.module), command.name)
        assert isinstance(group, click.Group)
        usages = [f"Usage: {command.program} {verb}" for verb in ("[OPTIONS]", *group.commands)]
        assert not [usage for usage in usages if usage not in text]

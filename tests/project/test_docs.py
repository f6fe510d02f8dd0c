"""The pages beside the code: every block that they show is run, and every link has a target."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from journal import __all__ as engine_names
from manager import __all__ as manager_names
from tests.project.page_support import (
    ROOT,
    RUN,
    SHOWN,
    Part,
    blocks_of,
    copy_of_checkout,
    import_needed_packages,
    matches,
    parts_of,
    run_part,
    shims,
)
from tests.project.test_layers import JOURNAL_LAYERS, MANAGER_LAYERS
from tests.tiers import slow_unless

PAGES = sorted(
    p for top in ("journal", "manager", "tools", ".github") for p in ROOT.glob(f"{top}/**/*.md")
)
ALL_PAGES = [*PAGES, *ROOT.glob("*.md")]
LINE_CHARS_MAX = 120
FIRST_PAGES = ("TUTORIAL.md", "EXAMPLES.md")  # they run in the quick part, too
WHOLE = {"TUTORIAL.md", "EXAMPLES.md"}  # pages whose blocks all run in one directory
IN_CHECKOUT = ".github/CONTRIBUTING.md"  # its commands are run in a copy of the checkout
PARTS = [part for page in PAGES for part in parts_of(page, whole=page.name in WHOLE)]
FOR_USERS = [part for part in PARTS if part.page != IN_CHECKOUT]
FOR_CONTRIBUTORS = [part for part in PARTS if part.page == IN_CHECKOUT]
CODE_SPAN = r"`([^`\n]+)`"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return PATH as it is where the project is installed."""
    folder = shims(tmp_path_factory.mktemp("scripts") / "bin")
    return os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])


@pytest.mark.parametrize(
    "part", slow_unless(lambda part: part.page.endswith(FIRST_PAGES), FOR_USERS), ids=str
)
def test_a_part_runs_as_written(part: Part, tmp_path: Path, path: str) -> None:
    """Each block of a page does what the page says, and prints what it shows."""
    import_needed_packages(part)
    run_part(part, tmp_path, path)


@pytest.mark.slow
@pytest.mark.parametrize("part", FOR_CONTRIBUTORS, ids=str)
def test_a_part_runs_in_the_checkout(part: Part, tmp_path: Path, path: str) -> None:
    """The blocks of the contributors' page run in a copy of the checkout."""
    import_needed_packages(part)
    run_part(part, copy_of_checkout(tmp_path / "checkout"), path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_fence_of_a_page_is_checked(page: Path) -> None:
    """Each fence of a page has a kind that is run, or one that is known not to be."""
    text = page.read_text()
    kinds = re.findall(r"^ *```(.*)$", text, re.MULTILINE)[::2]
    assert {*kinds} <= {*RUN, *SHOWN}
    assert sum(kind in RUN for kind in kinds) == len(list(blocks_of(text)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_has_one_title(page: Path) -> None:
    """Each page has one heading of the first level, so the site's sidebar shows it once."""
    prose = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^# ", prose, re.MULTILINE)) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_contents_list_the_sections_in_order(page: Path) -> None:
    """A page that begins with a list of its sections lists all of them, in their order."""
    head, *sections = re.split(r"^## ", page.read_text(), flags=re.MULTILINE)
    listed = re.findall(r"^- \[([^\]]+)\]\(#", head, re.MULTILINE)
    assert not listed or listed == [section.partition("\n")[0] for section in sections]


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_prose_of_a_page_is_narrow(page: Path) -> None:
    """A line of prose has at most 120 characters; a row of a table may be longer."""
    prose = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in prose.splitlines() if not line.startswith(("|", "    ", "!["))]
    assert [line for line in lines if len(line) > LINE_CHARS_MAX] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_targets(page: Path) -> None:
    """Each link leads to an existing file, and to an existing heading of it."""
    for target in re.findall(r"\]\(([^):]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), target
        if anchor:
            assert anchor in anchors(other), target


@pytest.mark.parametrize("package", ["journal", "manager"])
def test_links_have_targets_in_the_wheel(package: str) -> None:
    """The wheel contains only the pages of the packages, so their links lead to one another."""
    for page in (ROOT / package).glob("**/*.md"):
        for target in re.findall(r"\]\(([^)#:]+)", page.read_text()):
            place = (page.parent / target).resolve().relative_to(ROOT)
            assert place.parts[0] in ("journal", "manager"), (page, target)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_outputs_are_compared() -> None:
    """In an expected output, `...` matches anything, and every other character only itself."""
    assert matches("a ... c\n", "a b\nc  \n".replace("b\n", "b "))
    assert matches("a\n...\n", "a\nb\n")
    assert not matches("a\n", "a\nb\n")
    assert not matches("a.b\n", "axb\n")


def test_each_error_has_an_entry() -> None:
    """Each error has an entry with its cause or its fix, in alphabetical order."""
    text = (ROOT / "journal" / "docs" / "ERRORS.md").read_text()
    engine, _, manager = text.partition("\n## Errors of the manager\n")
    for names, part in ((engine_names, engine), (manager_names, manager)):
        entries = re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", part, re.MULTILINE | re.DOTALL)
        assert {name for name, _ in entries} == {n for n in names if n.endswith("Error")}
        assert [name for name, _ in entries[1:]] == sorted(name for name, _ in entries[1:])
        assert not [name for name, entry in entries if "- *Fix*: " not in entry]


def test_the_page_lists_the_layers() -> None:
    """The contributors' page lists the layers that `test_layers.py` checks, in their order."""
    text = (ROOT / IN_CHECKOUT).read_text()
    engine, manager = re.findall(r"^\| layer .*?\n\n", text, re.MULTILINE | re.DOTALL)
    for table, layers in ((engine, JOURNAL_LAYERS), (manager, MANAGER_LAYERS)):
        cells = re.findall(r"^\| (?!layer)([^|]+?) \|", table, re.MULTILINE)
        assert [tuple(re.findall(CODE_SPAN, cell)) or ("",) for cell in cells] == [*layers]


def test_named_paths_and_programs_exist() -> None:
    """Each file that a page names by its path exists, and so does each benchmark and proof. The
    contributors' page names all benchmarks and proofs."""
    import bench.__main__
    import proof.__main__

    names = {"bench": bench.__main__.NAMES, "proof": proof.__main__.NAMES}
    for page in PAGES:
        for word in re.findall(CODE_SPAN, page.read_text()):
            if re.fullmatch(r"(journal|manager|tools|tests)/[a-z0-9_/]+\.py", word):
                assert (ROOT / word).exists(), (page, word)
            if command := re.match(r"python tools/(bench|proof) (\w+)", word):
                assert command[2] in names[command[1]], (page, word)
    for folder, existing in names.items():
        named = re.findall(rf"python tools/{folder} (\w+)", (ROOT / IN_CHECKOUT).read_text())
        assert {*named} == {*existing}

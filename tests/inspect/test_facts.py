"""Facts are fields: no command depends on the engine's words.

In a copy of the engine every message is scrambled: each string literal with a space gets other
letters, punctuation and more words, differently in each module, and an f-string loses its values.
So no module can use another's words, nor the names in them. A `raise` with a message of one word
fails the test, so that none is missed. All commands that read or repair run with both engines, on
directories damaged in every way that the other tests use. Both have to decide the same: exit codes,
JSON without its sentences, the files that a repair touches, and the advice. Each sentence in JSON
has to differ.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Any

import pytest
from journal_inspect.commands.cli import cli

import journal
from journal import Options
from journal._format.crc32c import checksum
from manager import SubAgentManager
from tests.inspect.damage_support import (
    REFUSED,
    add_foreign,
    copy_as,
    history,
    segment,
    swap,
)
from tests.inspect.inspect_support import (
    TIMEOUT_S,
    checkpoints,
    damage_a_fleet,
    fleet,
    flip,
    golden,
    make,
    open_journal,
    segments,
    tables,
    tear,
)
from tests.tiers import is_thorough

ROOT = Path(journal.__file__).resolve().parents[1]
DRIVER = Path(__file__).with_name("decisions.py")
READ = [
    ["info", "{}", "-o", "json"],
    ["verify", "{}", "-o", "json"],
    ["verify", "{}"],
    ["verify", "{}", "--from-lsn", "30"],
    ["log", "{}", "-o", "json"],
    ["log", "{}", "--from-lsn", "1"],
    ["log", "{}", "-n", "3", "-o", "json"],
    ["log", "{}", "-r", "-n", "30"],
    ["log", "{}", "--frames", "-o", "json"],
    ["log", "{}", "-f", "--timeout-s", "0.01"],
    ["log", "{}", "-f", "--from-lsn", "20", "--timeout-s", "0.01"],
    ["stats", "{}", "-o", "json"],
    ["checkpoint", "{}"],
    ["tables", "{}", "-o", "json"],
    ["tables", "{}", "--at", "99999"],
    ["get", "{}", "users", "lead"],
    ["export", "{}", "--at", "3", "-o", "json"],
    ["agents", "{}", "-o", "json"],
    ["agents", "{}", "--at", "2"],
    ["agents", "{}", "--at", "99999"],
    ["show", "{}", "lead"],
    ["show", "{}", "n3", "--at", "30", "-o", "json"],
    ["history", "{}", "n3"],
    ["diff", "{}", "0", "5", "-o", "json"],
    ["diff", "{}", "20", "99999"],
    ["repair", "{}"],
    ["repair", "{}", "-o", "json"],
    ["repair", "{}", "--cut-at", "1"],
    ["repair", "{}", "--cut-at", "14"],
    ["repair", "{}", "--cut-at", "18"],
    ["subagents", "list", "--workspace", "/", "--state-dir", "{}"],
]
WRITE = [
    ["repair", "{}", "--apply", "-o", "json"],
    ["repair", "{}", "--apply", "--salvage"],
    ["repair", "{}", "--cut-at", "12", "--apply", "-o", "json"],
    ["repair", "{}", "--cut-at", "99999", "--apply"],
    ["backup", "{}", "{}-copy"],
    ["checkpoint", "{}", "--write", "{}.json"],
    ["report", "{}", "-o", "{}.html"],
]


# --- an engine with other words ---


_LETTERS = ascii_lowercase + ascii_uppercase
_PLACEHOLDER = re.compile(r"(%[-0-9]*[a-z])")  # of the logging module


def scramble_text(text: str, by: int) -> str:
    """Return `text` with its letters shifted by `by`, other punctuation, and more words."""
    other = str.maketrans(_LETTERS + ":;,=()'.", _LETTERS[by:] + _LETTERS[:by] + "!|/~<>^_")
    parts = _PLACEHOLDER.split(text)
    parts[::2] = [part.translate(other).replace(" ", " - ") for part in parts[::2]]
    return "".join(parts)


class Scrambler(ast.NodeTransformer):
    """A transformer that scrambles the messages of a module and counts them."""

    def __init__(self, by: int) -> None:
        self.count = 0
        self.by = by  # differs between modules, so that none can use another's words

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str) and " " in node.value:
            self.count += 1
            return ast.Constant(scramble_text(node.value, self.by))
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        parts = [part for part in node.values if isinstance(part, ast.Constant)]
        if any(" " in str(part.value) for part in parts):
            self.count += 1
            text = " ".join(str(part.value) for part in parts)
            return ast.Constant(scramble_text(text, self.by))  # without the formatted values
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if isinstance(node.value, ast.Constant):
            return node  # a docstring
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        for part in ast.walk(node):
            if (
                isinstance(part, ast.Constant)
                and isinstance(part.value, str)
                and " " not in part.value
            ):
                assert not part.value.isalpha(), f"{part.value!r} may be a message of one word"
        return self.generic_visit(node)


def scramble(target: Path) -> int:
    """Write a copy of the engine with scrambled words to `target`.

    Return its number of messages.
    """
    count = 0
    for by, source in enumerate(sorted((ROOT / "journal").rglob("*.py")), 1):
        copy = target / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        scrambler = Scrambler(by % 51 + 1)
        tree = scrambler.visit(ast.parse(source.read_text()))
        copy.write_text(ast.unparse(ast.fix_missing_locations(tree)))
        count += scrambler.count
    return count


# --- the damaged directories ---


def make_fleet(path: Path) -> None:
    with fleet(path.parent) as manager:
        fleet_path = manager.path
    shutil.copytree(fleet_path, path)


def make_damaged_fleet(path: Path) -> None:
    shutil.copytree(damage_a_fleet(path.parent).path, path)


def make_fleet_without_its_beginning(path: Path) -> None:
    workspace = path.parent
    with SubAgentManager.open(workspace, options=Options(segment_bytes=4096)) as manager:
        for number in range(60):
            manager.wait_durable(manager.spawn("x" * 200, name=f"n{number}", queued=True).lsn)
            if number in (20, 40):
                manager.compact()
        original = Path(manager.path)
    for file in checkpoints(original):
        file.unlink()
    shutil.copytree(original, path)


def make_newer(file: Path, old: bytes, new: bytes) -> None:
    """Make the file one of a newer version, with checksums to match."""

    data = file.read_bytes()
    if file.suffix == ".seg":
        fields = data[:8] + b"\x63\x00" + data[10:60]
        file.write_bytes(fields + checksum(fields).to_bytes(4, "little") + data[64:])
        return
    body, last = data.replace(old, new, 1).rstrip(b"\n").rsplit(b"\n", 1)
    body += b"\n"
    crc = f'"crc32c":"{checksum(body):08x}"}}\n'.encode()
    file.write_bytes(body + last.partition(b'"crc32c"')[0] + crc)


def rotate(path: Path, *lsns: int) -> Path:
    """Give each of these segments the name of the next one."""
    files = [segment(path, lsn) for lsn in lsns]
    data = [file.read_bytes() for file in files]
    for file, other in zip(files, [*data[1:], data[0]], strict=True):
        file.write_bytes(other)
    return path


def remove_checkpoints(path: Path) -> None:
    for file in checkpoints(path):
        file.unlink()


def add_unfinished_files(path: Path) -> None:
    (path / "checkpoint-00000000000000000030.json.tmp").write_bytes(b"{")
    (path / "notes.txt").write_bytes(b"of somebody")


def on_a_history(damage: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Return a function that makes a damaged copy of one history. Making a new history each time
    would take a sync for each commit."""

    def put(path: Path) -> None:
        original = path.parents[1] / "history"
        shutil.copytree(original if original.exists() else history(original), path)
        damage(path)

    return put


def make_other_directory(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_bytes(b"of somebody")


def make_workspace(path: Path) -> None:
    path.mkdir()
    make(path / ".subagents")


CASES: dict[str, Callable[[Path], Any]] = {
    "healthy": on_a_history(lambda p: p),
    "a fleet": make_fleet,
    "tables": tables,
    "damaged tables": lambda p: flip(segments(tables(p))[-1], 64 + 44 + 20),
    "a damaged fleet": make_damaged_fleet,
    "a fleet without its beginning": make_fleet_without_its_beginning,
    "four epochs with a torn tail": golden,
    "a torn tail": lambda p: tear(make(p)),
    "empty": lambda p: make(p, ()),
    "no journal": make_other_directory,
    "a directory above a journal": make_workspace,
    "missing": lambda p: None,
    **{name: on_a_history(damage) for name, (damage, _) in REFUSED.items()},
    "a ring of three": on_a_history(lambda p: rotate(p, 22, 31, 37)),
    "a wrong name": on_a_history(lambda p: segment(p, 31).rename(p / f"{99:020d}-{3:010d}.seg")),
    "a copy under another's name": on_a_history(
        lambda p: shutil.copy(segment(p, 22), segment(p, 31))),
    "another copy, with a bit changed": on_a_history(
        lambda p: flip(Path(shutil.copy(segment(p, 22), segment(p, 31))), 300)),
    "a stray copy, and two swapped": on_a_history(
        lambda p: [copy_as(segment(p, 7), 24, 3), rotate(p, 31, 37)]),
    "a foreign segment at the end": on_a_history(
        lambda p: add_foreign(p, lambda other: segment(other, 37))),
    "swapped checkpoints": on_a_history(lambda p: swap(*checkpoints(p))),
    "a truncated checkpoint": on_a_history(
        lambda p: os.truncate(checkpoints(p)[1], 100)),
    "no checkpoint": on_a_history(remove_checkpoints),
    "a newer segment": on_a_history(lambda p: make_newer(segment(p, 22), b"", b"")),
    "a newer last segment": on_a_history(lambda p: make_newer(segment(p, 37), b"", b"")),
    "a newer checkpoint": on_a_history(
        lambda p: make_newer(checkpoints(p)[1], b'"version":2', b'"version":9')),
    "strays": on_a_history(add_unfinished_files),
}  # fmt: skip


def make_cases(folder: Path, step: int) -> dict[str, dict[str, Any]]:
    """Make every `step`th of the directories."""
    cases = {}
    for number, (name, put) in list(enumerate(CASES.items()))[::step]:
        path = folder / str(number) / "j"
        path.parent.mkdir(parents=True)
        put(path)
        lines = {"reads": len(READ), "lines": READ + WRITE}
        cases[name] = {"path": str(path), "live": False, **lines}
    return cases


def run(cases: dict[str, Any], tmp_path: Path, engine: Path) -> dict[str, Any]:
    """Return the decisions made with the engine in that directory."""
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    paths = [str(place) for place in (engine, ROOT, ROOT / "tools")]
    names = [DRIVER, tmp_path / "cases.json", tmp_path / "work", tmp_path / "out.json"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-P", *map(str, names)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=10 * TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    out = json.loads((tmp_path / "out.json").read_text())
    assert out["engine"] == str(engine / "journal" / "__init__.py")
    return dict(out["decisions"])


def compare(cases: dict[str, Any], tmp_path: Path) -> None:
    assert scramble(tmp_path / "other") > 200
    plain, other = run(cases, tmp_path, ROOT), run(cases, tmp_path, tmp_path / "other")
    differ = [
        f"{name}: {' '.join(line)}: {key}:\n  {str(before[key])[:400]}\n  {str(after[key])[:400]}"
        for name, case in cases.items()
        for line, before, after in zip(case["lines"], plain[name][0], other[name][0], strict=True)
        for key in before
        if before[key] != after.get(key)
    ]
    assert not differ, "\n".join([f"{len(differ)} decisions changed", *differ[:20]])
    for name in cases:  # each sentence of the engine really differed
        words = zip(plain[name][1], other[name][1], strict=True)
        assert all(before != after for before, after in words if before), name


def test_every_command_that_takes_a_journal_is_compared() -> None:
    """A new command has to take part in the comparison."""
    commands = {
        name
        for name, command in cli.commands.items()
        if any(p.name == "path" for p in command.params)
    }
    assert commands == {verb for verb, *_ in [*READ, *WRITE]} - {"subagents"}


@pytest.mark.parametrize(
    "step", [16, pytest.param(1 if is_thorough() else 4, marks=pytest.mark.slow)]
)
def test_no_decision_depends_on_the_words_of_the_engine(tmp_path: Path, step: int) -> None:
    """Without a writer, scrambled words change no decision of any command."""
    compare(make_cases(tmp_path / "cases", step), tmp_path)


@pytest.mark.slow
def test_no_decision_beside_a_live_writer_depends_on_words(tmp_path: Path) -> None:
    """Beside a live writer, scrambled words change no decision of any command."""
    path = make(tmp_path / "j")
    with open_journal(path):
        lines = [*READ, *([*line] for line in WRITE if line[0] == "repair")]
        compare({"live": {"path": str(path), "lines": lines, "live": True}}, tmp_path)

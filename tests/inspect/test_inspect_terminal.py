"""journal-inspect on a terminal: width, progress bars, and completion by shells."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from _journal_console import text
from journal_inspect.commands.cli import cli
from journal_inspect.rendering import progress

import journal
from manager import SubAgentManager
from tests.inspect.inspect_support import (
    ARGS,
    COMMAND,
    TABLE_VERBS,
    TIMEOUT_S,
    VERBS,
    ask,
    environment,
    fleet,
    golden,
    make,
    tables,
)
from tests.installed import find_command


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("not a file")


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> Iterator[Terminal]:
    """Make stdout a terminal with this number of columns, within the block."""
    with monkeypatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("NO_COLOR", "1")
        stream = Terminal()
        patch.setattr(sys, "stdout", stream)
        yield stream


HEADER = ("ID", "STEPS", "WHAT")
ROWS = [("a" * 10, 7, "x" * 50), ("b" * 10, 123, "日" * 20)]


def widths(stream: Terminal) -> list[int]:
    from rich.cells import cell_len

    return [cell_len(line) for line in stream.getvalue().splitlines()]


def test_a_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, long cells are shortened first, then optional columns are left out."""
    lines = {}
    for columns in (200, 60, 40, 31, 25):
        with terminal(monkeypatch, columns) as stream:
            text.put_lines(text.table(HEADER, ROWS, flexible=("WHAT",), optional=("STEPS",)))
            lines[columns] = stream.getvalue().splitlines()
            assert max(widths(stream)) <= columns
    assert lines[200] == list(text.table(HEADER, ROWS))
    assert lines[40][1].endswith("x...")
    assert lines[31][0].split() == ["ID", "STEPS", "WHAT"]
    assert lines[25][0].split() == ["ID", "WHAT"]
    assert lines[25][1].startswith("a" * 10)


def on_columns(monkeypatch: pytest.MonkeyPatch, columns: int, *args: str) -> list[str]:
    """Return what a command prints on a terminal of this width."""
    with terminal(monkeypatch, columns) as stream, pytest.raises(SystemExit):
        cli.main(list(args))
    return stream.getvalue().splitlines()


def test_text_fits_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command's text fits any usual width, and that of a phone.

    Only a word without spaces continues on the terminal's next line.
    """
    with fleet(tmp_path) as manager:
        path = manager.path
    of_tables = str(tables(tmp_path / "tables"))
    commands = [[verb, path, *ARGS.get(verb, ())] for verb in VERBS]
    commands += [
        ["agents", path, "--tree"],
        ["log", path, "--frames"],
        ["log", path, "--payload", "none"],
        ["repair", path],
    ]
    commands += [[verb, of_tables, *ARGS.get(verb, ())] for verb in (*TABLE_VERBS, "log", "stats")]
    for columns in (40, 50, 60, 80, 100, 132):
        for verb, *options in commands:
            lines = on_columns(monkeypatch, columns, verb, *options)
            is_data = verb in ("get", "export")
            lines = [line for line in lines if not line.startswith("{")]  # an item or a row
            assert lines or is_data
            assert all(len(line) <= columns or " " not in line.strip() for line in lines), (
                verb,
                columns,
                lines,
            )


def test_a_row_too_wide_for_the_terminal_is_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block shows all values of the row, and no column is one letter wide."""
    rows = [(7, "abc " * 5, None, "failed"), ("name", "日本 " * 6, 3, "ok")]
    with terminal(monkeypatch, 16):
        lines = list(text.table(("LSN", "WHAT", "NONE", "STATUS"), rows, optional=("NONE",)))
    assert lines == [
        *("LSN 7", "  WHAT    abc", "          abc", "          abc", "          abc"),
        *("          abc", "  STATUS  failed"),
        *("LSN name", "  WHAT    日本", *["          日本"] * 5, "  NONE    3", "  STATUS  ok"),
    ]


def test_changed_values_are_never_truncated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`history` and `diff` continue long values below, in the last column or in a block."""
    with fleet(tmp_path) as manager:
        path = manager.path
    full_words = {verb: ask(verb, path, *ARGS[verb]).out.split() for verb in ("history", "diff")}
    for columns in (60, 80, 100, 132):
        for verb, words in full_words.items():
            lines = on_columns(monkeypatch, columns, verb, path, *ARGS[verb])
            assert sorted({*words} - {*" ".join(lines).split()}) in ([], ["-"])
    assert lines[0].split() == ["CHANGE", "AGENT", "NAME", "FIELDS"]
    assert len(lines) > 3
    assert lines[2].startswith(" " * lines[0].index("FIELDS"))


def test_a_value_too_wide_for_its_line_is_below_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A value that does not fit beside its name is whole below it, so that it can be copied."""
    facts = [("journal id", "0" * 32), ("a long name", None), ("text", "one two three")]
    with terminal(monkeypatch, 40):
        lines = list(text.fact_lines(facts))
    assert lines == [
        "journal id",
        f"    {'0' * 32}",
        "a long name  -",
        "text         one two three",
    ]
    with terminal(monkeypatch, 24):
        assert list(text.fact_lines(facts))[-2:] == ["text         one two", f"{'':13}three"]


def test_an_entry_is_two_lines_on_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry has a second line, so that some of its record is visible."""
    path = str(make(tmp_path / "j", [["kind", "x" * 100]]))
    head, body = on_columns(monkeypatch, 40, "log", path)
    assert head.startswith("1  1  20")
    assert body == '  ["kind", "' + "x" * 25 + "..."
    assert len(on_columns(monkeypatch, 80, "log", path)) == 2
    assert len(on_columns(monkeypatch, 120, "log", path)) == 1


def test_frames_lose_columns_on_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns that do not fit are left out whole, from the right, and the file's path is kept."""
    path = str(make(tmp_path / "j", [["a"]]))
    file, header, *frames = on_columns(monkeypatch, 50, "log", path, "--frames")
    assert file.endswith(".seg")
    assert header.split() == ["OFFSET", "BYTES", "STATE", "FIRST", "LSN", "COUNT"]
    assert [line.split()[2] for line in frames] == ["log", "mark"]


@pytest.mark.parametrize("columns", [40, 60])
def test_help_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The help of every command is complete at any width, with room for each option's text."""
    fixed_line = re.compile(  # commands, tables, options and their choices
        " *(journal-inspect|bash:|zsh:|fish:|corruption |torn_tail |bad_check|stray |-)"
    )
    for verb in ("", *cli.commands):
        lines = on_columns(monkeypatch, columns, *[verb] * bool(verb), "--help")
        assert lines
        lines = [line for line in lines if not fixed_line.match(line)]
        assert all(len(line) <= columns or " " not in line.strip() for line in lines), (verb, lines)
        indents = {len(line) - len(line.lstrip()) for line in lines if line}
        assert max(indents) <= columns - 20, (verb, lines)
        assert "..." not in "\n".join(lines).partition("Commands:")[2]


def test_the_width_comes_from_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """COLUMNS or the terminal sets the width; a stream without both has none."""
    ours, theirs = pty.openpty()
    try:
        with open(theirs, "w", closefd=False) as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            patch.delenv("COLUMNS", raising=False)
            assert text.terminal_width() in (None, *range(1, 1000))
            patch.setenv("COLUMNS", "77")
            assert text.terminal_width() == 77
    finally:
        os.close(ours)
        os.close(theirs)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.StringIO())
        assert text.terminal_width() is None


def on_terminal(
    *args: object, term: str = "xterm", stderr: int | None = None, columns: int = 80
) -> str:
    """Return what a command prints on a terminal: stdout, and stderr if not redirected."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    code = "from journal_inspect.rendering import progress; progress._BYTES_MIN = 1; "
    code += "from journal_inspect.__main__ import main; raise SystemExit(main())"
    try:
        subprocess.run(
            [sys.executable, "-P", "-c", code, *map(str, args)],
            stdout=theirs,
            stderr=theirs if stderr is None else stderr,
            env={k: v for k, v in environment(TERM=term).items() if k != "COLUMNS"},
            timeout=TIMEOUT_S,
            check=False,
        )
        os.write(theirs, b"\0")  # so that there is something to read
        return os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)


def test_progress_is_for_a_terminal(tmp_path: Path) -> None:
    """`verify` and `stats` show a bar on stderr, and their output after it is complete.

    There is none if stderr is no terminal, or a dumb one.
    """
    path = golden(tmp_path / "j")
    for verb in ("verify", "stats"):
        screen = on_terminal(verb, path)
        assert re.search(rf"{verb}  \[#*-*\] .*%", screen), screen
        assert "100%" in screen, screen
    assert "good            up to LSN 60" in on_terminal("verify", path)
    assert "[#" not in on_terminal("verify", path, stderr=subprocess.DEVNULL)
    assert "[#" not in on_terminal("verify", path, term="dumb")
    reader = journal.JournalReader.open(path)
    with reader, progress.bar("verify", reader) as callback:
        assert callback is None


def test_bar_and_tables_fit_a_narrow_terminal(tmp_path: Path) -> None:
    """The bar stays on one line of a narrow terminal, and the tables fit it."""
    path = golden(tmp_path / "j")
    bar = re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", on_terminal("verify", path, columns=40))
    drawn = [line for line in re.split(r"[\r\n]", bar) if line.startswith("verify ")]
    assert drawn
    assert max(map(len, drawn)) < 40
    screen = on_terminal("info", path, columns=40, stderr=subprocess.DEVNULL)
    assert all(len(line) <= 40 or " " not in line.strip() for line in screen.splitlines())


def test_version_prints_the_packages_version() -> None:
    """--version prints the package's version and nothing else."""
    answer = ask("--version")
    assert (answer.code, answer.out) == (0, f"journal-inspect {journal.__version__}\n")


# --- completion ---

# The words typed in a shell, and a completion that it has to offer.
WORDS = {
    "journal-inspect ver": "verify",
    "journal-inspect agents --st": "--status",
    "journal-inspect log -o jso": "jsonl",
}
BASH = """
source <({completion})
COMP_WORDS=({words}); COMP_CWORD={last}
_journal_inspect_completion journal-inspect
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH = "{completion} | source; complete -C {line}"
ZSH = "source <({completion}); (( $+functions[_journal_inspect_completion] )) && echo made"


def run_shell(shell: str, script: str, folder: Path) -> list[str]:
    """Run a script in a shell that finds `journal-inspect` as if it were installed."""
    command = folder / "journal-inspect"
    command.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    command.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [shell, "-c", script],
        env=environment(PATH=path, HOME=str(folder)),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_verbs_options_and_values(tmp_path: Path, shell: str) -> None:
    """`completion` prints a script for that shell, and the shell completes with it."""
    assert "_JOURNAL_INSPECT_COMPLETE" in ask("completion", shell).out
    find_command(shell)
    completion = f"journal-inspect completion {shell}"
    if shell == "zsh":
        script = f"autoload -Uz compinit; compinit -u; {ZSH.format(completion=completion)}"
        assert "made" in run_shell(shell, script, tmp_path)
        return
    for line, expected in WORDS.items():
        words = line.split()
        script = (
            BASH.format(completion=completion, words=shlex.join(words), last=len(words) - 1)
            if shell == "bash"
            else FISH.format(completion=completion, line=shlex.quote(line))
        )
        assert expected in {
            line_of.split("\t")[0] for line_of in run_shell(shell, script, tmp_path)
        }, line


def test_fish_shows_whole_help_texts(tmp_path: Path) -> None:
    """fish shows the help of each verb up to its end, also after a comma."""
    from journal_inspect.commands.cli import cli

    find_command("fish")
    line = FISH.format(completion="journal-inspect completion fish", line="'journal-inspect '")
    shown = {tuple(each.split("\t")) for each in run_shell("fish", line, tmp_path)}
    expected = {(name, command.short_help) for name, command in cli.commands.items()}
    assert any("," in str(text) for _, text in expected)
    assert expected <= shown


# --- help ---


def test_each_command_in_the_help_runs(tmp_path: Path) -> None:
    """The help lists the steps after a crash, and each of these commands runs."""
    path = make(tmp_path / "PATH")
    steps = re.findall(r"^ +journal-inspect (.+?)(?:  +.*)?$", ask("--help").out, re.MULTILINE)
    assert [step.split()[0] for step in steps] == [
        *("info", "verify", "log", "agents", "repair", "repair"),
    ]
    for step in steps:
        words = step.replace("PATH", str(path)).replace("LSN", "1").split()
        assert ask(*words).code == (4 if words[0] == "agents" else 0), step


def test_every_option_has_a_help_text() -> None:
    """Every command and every option has a help text."""
    from journal_inspect.commands.cli import cli

    for name, command in cli.commands.items():
        assert command.help, name
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert getattr(parameter, "help", None), (name, parameter.name)
    assert {*VERBS, *TABLE_VERBS} < set(cli.commands)


def test_a_path_with_spaces_is_quoted_in_advised_commands(tmp_path: Path) -> None:
    """A command in a message can be copied to a shell, even if its path has spaces."""
    with SubAgentManager.open(tmp_path, state_dir="a b") as manager:
        manager.spawn("x", name="lead")
        manager.wait_durable()
    path = tmp_path / "a b"
    quoted = f"'{path}'"
    tables(tmp_path / "c d")
    for verb in TABLE_VERBS:
        answer = ask(verb, tmp_path / "c d", *ARGS.get(verb, ()), "--at", "99")
        assert f"'{tmp_path}/c d'" in answer.err
    for verb in ("agents", "show", "history", "diff"):
        assert quoted in ask(verb, path, *ARGS.get(verb, ())[:1], *["2"] * (verb == "diff")).err

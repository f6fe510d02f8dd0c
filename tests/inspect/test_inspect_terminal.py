"""journal-inspect on a terminal: what fits, what moves, what a shell completes."""

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
from journal_inspect.commands.cli import cli
from journal_inspect.rendering import progress, text

import journal
from manager import SubAgentManager
from tests.inspect.inspect_support import (
    ARGS,
    COMMAND,
    TIMEOUT_S,
    VERBS,
    ask,
    ask_child,
    environment,
    fleet,
    golden,
    make,
)
from tests.installed import find_command


class Terminal(io.StringIO):
    """A stream of so many columns."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("it is no file")


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> Iterator[Terminal]:
    """stdout is a terminal for a while."""
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
    """Long cells are cut first, then whole columns are left out; elsewhere nothing is."""
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
    """What a terminal of so many columns gets."""
    with terminal(monkeypatch, columns) as stream, pytest.raises(SystemExit):
        cli.main(list(args))
    return stream.getvalue().splitlines()


def test_text_fits_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every verb's text, at any usual width and at those of a phone; only what has no space to be
    broken at goes on in the terminal's next line."""
    with fleet(tmp_path) as manager:
        path = manager.path
    asked = [[verb, *ARGS.get(verb, ())] for verb in VERBS]
    asked += [["agents", "--tree"], ["log", "--frames"], ["log", "--payload", "none"], ["repair"]]
    for columns in (40, 50, 60, 80, 100, 132):
        for verb, *options in asked:
            shown = on_columns(monkeypatch, columns, verb, path, *options)
            shown = [line for line in shown if not line.startswith("{")]  # an item is data
            assert shown
            assert all(len(one) <= columns or " " not in one.strip() for one in shown), (
                verb,
                columns,
                shown,
            )


def test_a_row_that_no_terminal_holds_is_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing of it is left out but what is not said, and no column is of a letter a line."""
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
    """`history` and `diff` go on below, in the last column or in a block."""
    with fleet(tmp_path) as manager:
        path = manager.path
    whole = {verb: ask(verb, path, *ARGS[verb]).out.split() for verb in ("history", "diff")}
    for columns in (60, 80, 100, 132):
        for verb, words in whole.items():
            lines = on_columns(monkeypatch, columns, verb, path, *ARGS[verb])
            assert sorted({*words} - {*" ".join(lines).split()}) in ([], ["-"])
    assert lines[0].split() == ["CHANGE", "AGENT", "NAME", "FIELDS"]
    assert len(lines) > 3
    assert lines[2].startswith(" " * lines[0].index("FIELDS"))


def test_a_value_that_has_no_room_beside_its_name_stands_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whole, so that it can be copied."""
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


def test_the_log_on_a_narrow_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry has two lines there, so that something of its record is seen."""
    path = str(make(tmp_path / "j", [["kind", "x" * 100]]))
    head, body = on_columns(monkeypatch, 40, "log", path)
    assert head.startswith("1  1  20")
    assert body == '  ["kind", "' + "x" * 25 + "..."
    assert len(on_columns(monkeypatch, 80, "log", path)) == 1


def test_frames_on_a_narrow_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole columns, from the left, and the file's path."""
    path = str(make(tmp_path / "j", [["a"]]))
    file, header, *frames = on_columns(monkeypatch, 50, "log", path, "--frames")
    assert file.endswith(".seg")
    assert header.split() == ["OFFSET", "BYTES", "STATE", "FIRST", "LSN", "COUNT"]
    assert [line.split()[2] for line in frames] == ["log", "mark"]


@pytest.mark.parametrize("columns", [40, 60])
def test_help_fits_the_terminal(columns: int) -> None:
    """Of every verb; nothing of it is left out, and what an option does has room."""
    as_it_is = re.compile(  # commands, tables, an option and the words that it takes
        " *(journal-inspect|bash:|zsh:|fish:|corruption |torn_tail |bad_check|stray |-)"
    )
    for verb in ("", *cli.commands):
        lines = ask_child(
            *[verb] * bool(verb), "--help", env=environment(COLUMNS=str(columns))
        ).lines
        assert lines
        lines = [line for line in lines if not as_it_is.match(line)]
        assert all(len(it) <= columns or " " not in it.strip() for it in lines), (verb, lines)
        indents = {len(line) - len(line.lstrip()) for line in lines if line}
        assert max(indents) <= columns - 20, (verb, lines)
        assert "..." not in "\n".join(lines).partition("Commands:")[2]


def test_the_width_is_the_terminals_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """COLUMNS says it, or the terminal does; who asks neither gets none."""
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
    """What a terminal gets of both streams, or of stdout."""
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
    """`verify` and `stats` show a bar on stderr, and their answer is whole behind it; none where
    stderr is no terminal, or one that can't."""
    path = golden(tmp_path / "j")
    for verb in ("verify", "stats"):
        shown = on_terminal(verb, path)
        assert re.search(rf"{verb}  \[#*-*\] .*%", shown), shown
        assert "100%" in shown, shown
    assert "last good LSN 60" in on_terminal("verify", path)
    assert "[#" not in on_terminal("verify", path, stderr=subprocess.DEVNULL)
    assert "[#" not in on_terminal("verify", path, term="dumb")
    reader = journal.JournalReader.open(path)
    with reader, progress.bar("verify", reader) as told:
        assert told is None


def test_a_real_terminal_that_is_narrow(tmp_path: Path) -> None:
    """The bar stays on one line of it, and the tables fit it."""
    path = golden(tmp_path / "j")
    bar = re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", on_terminal("verify", path, columns=40))
    drawn = [line for line in re.split(r"[\r\n]", bar) if line.startswith("verify ")]
    assert drawn
    assert max(map(len, drawn)) < 40
    shown = on_terminal("info", path, columns=40, stderr=subprocess.DEVNULL)
    assert all(len(line) <= 40 or " " not in line.strip() for line in shown.splitlines())


def test_the_version_is_the_packages() -> None:
    """--version says it, and nothing else."""
    answer = ask("--version")
    assert (answer.code, answer.out) == (0, f"journal-inspect {journal.__version__}\n")


# --- completion ---

# What a shell is asked to complete, at its end.
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
    """In a shell that finds `journal-inspect`, as one that was installed."""
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
    """What `completion` prints is a script of that shell; the shell itself reads it."""
    assert "_JOURNAL_INSPECT_COMPLETE" in ask("completion", shell).out
    find_command(shell)
    completion = f"journal-inspect completion {shell}"
    if shell == "zsh":
        script = f"autoload -Uz compinit; compinit -u; {ZSH.format(completion=completion)}"
        assert "made" in run_shell(shell, script, tmp_path)
        return
    for line, wanted in WORDS.items():
        words = line.split()
        script = (
            BASH.format(completion=completion, words=shlex.join(words), last=len(words) - 1)
            if shell == "bash"
            else FISH.format(completion=completion, line=shlex.quote(line))
        )
        assert wanted in {it.split("\t")[0] for it in run_shell(shell, script, tmp_path)}, line


# --- help ---


def test_help_alone_leads_from_damage_to_what_to_type(tmp_path: Path) -> None:
    """Each line of the way that `--help` gives after a crash is a command that runs."""
    path = make(tmp_path / "PATH")
    steps = re.findall(r"^ +journal-inspect (.+?)(?:  +.*)?$", ask("--help").out, re.MULTILINE)
    assert [step.split()[0] for step in steps] == [
        *("info", "verify", "log", "agents", "repair", "repair"),
    ]
    for step in steps:
        words = step.replace("PATH", str(path)).replace("LSN", "1").split()
        assert ask(*words).code == (4 if words[0] == "agents" else 0), step


def test_every_option_says_what_it_does() -> None:
    """No verb has an option without a help text; every verb has a help of its own."""
    from journal_inspect.commands.cli import cli

    for name, command in cli.commands.items():
        assert command.help, name
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert getattr(parameter, "help", None), (name, parameter.name)
    assert set(VERBS) < set(cli.commands)


def test_a_path_with_spaces_is_quoted_in_what_to_type(tmp_path: Path) -> None:
    """What a message says to type can be typed."""
    with SubAgentManager.open(tmp_path, state_dir="a b") as manager:
        manager.spawn("x", name="lead")
        manager.wait_durable()
    path = tmp_path / "a b"
    quoted = f"'{path}'"
    for verb in ("agents", "show", "history", "diff"):
        assert quoted in ask(verb, path, *ARGS.get(verb, ())[:1], *["2"] * (verb == "diff")).err

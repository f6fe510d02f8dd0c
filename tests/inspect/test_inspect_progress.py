"""Progress: a pass over a long log shows how far it is, on a terminal, from a second on."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from journal_inspect.commands import log
from journal_inspect.commands.cli import cli
from journal_inspect.rendering import progress

from journal import JournalReader
from manager import fleet_reader
from tests.inspect.inspect_support import fleet

SEARCH = ("-g", "broke")
VERBS: dict[str, tuple[str, ...]] = {
    "agents": (),
    "show": ("lead",),
    "history": ("lead",),
    "diff": ("1", "3"),
    "report": ("-o", "{}/r.html"),
    "log": SEARCH,
}


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return a terminal for stderr, and let every record and every pass be long."""
    monkeypatch.setattr(progress, "_DELAY_S", -1.0)
    monkeypatch.setattr(progress, "_EVERY_S", 0.0)
    monkeypatch.setattr(fleet_reader, "_COUNTED", 1)
    monkeypatch.setattr(log, "_COUNTED", 1)
    return Terminal()


def run(verb: str, path: Path, tmp_path: Path, screen: Terminal) -> None:
    words = [option.format(tmp_path) for option in VERBS[verb]]
    with contextlib.redirect_stderr(screen), contextlib.suppress(SystemExit):
        cli.main([verb, str(path), *words], standalone_mode=False)


@pytest.mark.parametrize("verb", VERBS)
def test_a_long_pass_shows_its_progress(verb: str, tmp_path: Path, terminal: Terminal) -> None:
    """Each verb that reads the whole log shows the share that it has read, and removes the line."""
    with fleet(tmp_path) as manager:
        path = Path(manager.path)
    run(verb, path, tmp_path, terminal)
    label = "searching" if verb == "log" else "reading"
    lines = terminal.getvalue().split("\r")
    shown = [line for line in lines if line.startswith(f"{label}  ")]
    assert shown
    assert all("% " in line and line.endswith(" records") for line in shown)
    after = lines[lines.index(shown[-1]) + 1 :]
    assert not after[0].strip()
    assert "journal-inspect: " in after[1] or verb == "log"


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_short_pass_or_a_dumb_terminal_shows_none(
    term: str, tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the first second, and on a dumb terminal, nothing is shown."""
    monkeypatch.setenv("TERM", term)
    if term != "dumb":
        monkeypatch.setattr(progress, "_DELAY_S", 3600.0)
    with fleet(tmp_path) as manager:
        path = Path(manager.path)
    for verb in VERBS:
        run(verb, path, tmp_path, terminal)
    assert "\r" not in terminal.getvalue()


def test_the_share_never_exceeds_the_whole(tmp_path: Path, terminal: Terminal) -> None:
    """A log that grows while it is read shows 100 % at most."""
    with fleet(tmp_path) as manager:
        path = manager.path
    with JournalReader.open(path) as reader, contextlib.redirect_stderr(terminal):
        shown = progress.Counted("reading", reader)
        shown(10**6)
        shown.clear()
    assert "reading  100 %" in terminal.getvalue()

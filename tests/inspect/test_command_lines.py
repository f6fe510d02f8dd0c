"""Both command lines before a command begins: their names, their imports, and the collector's
state."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from manager import SubAgentManager
from tests.inspect.inspect_support import ask, check_refused, child_main, environment

TIMEOUT_S = 60
NOT_NEEDED = {  # a listing has to appear soon
    *("logging", "asyncio", "rich"),
    *(
        "journal._engine.journal",
        "journal._offline.verify",
        "journal._offline.recovery_preview",
        "journal._offline.backup",
        "journal._offline.repair",
    ),
    *("manager.manager", "manager._run.runner"),
    *("journal.options", "manager.limits", "manager.result", "random"),
}


def stderr_words(code: str, *arguments: str | Path) -> set[str]:
    """Run `code` and return the words that it printed to stderr."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("verb", ["list", "show"])
def test_readers_import_no_writer(tmp_path: Path, verb: str) -> None:
    """A command that reads imports no writer, no check of whole journals, and no logging."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.wait_durable(manager.spawn("p", name="one").lsn)
    code = "import sys; from manager.__main__ import main\n"
    code += "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    name = ["one"] if verb == "show" else []
    imported = stderr_words(code, verb, *name, "--workspace", tmp_path)
    assert "journal._offline.reader" in imported
    assert imported & NOT_NEEDED == set()


@pytest.mark.parametrize(
    ("package", "patched"),
    [
        ("manager", "manager._cli.cli.run_cli"),
        ("journal_inspect", "journal_inspect.commands.cli.cli.main"),
    ],
)
def test_the_collector_runs_once_all_is_imported(package: str, patched: str) -> None:
    """Garbage collection is off during the imports and on for the command."""
    code = f"""
import gc, sys
from unittest.mock import patch
from {package}.__main__ import main
def note_state(*_, **__):
    print("on" if gc.isenabled() else "off", file=sys.stderr)
    return 0
with patch("{patched}", note_state):
    main()
"""
    assert stderr_words(code) == {"on"}


def test_the_package_runs_the_command() -> None:
    """`python -m journal` is `journal-inspect`."""
    command = [sys.executable, "-P", "-m", "journal", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout == ask("--version").out


@pytest.mark.parametrize("missing", ["click", "rich", "crc32c"])
def test_a_script_without_its_packages_exits_with_4(missing: str) -> None:
    """A script without a package that it needs says what to install."""
    check_refused(
        child_main(f"sys.modules[{missing!r}] = None"),
        4,
        f"journal-inspect: needs {missing}, which is not installed; install it with: "
        "python -m pip install 'journal-engine[cli]'",
    )

"""What both command lines do before a command begins: what they import, and what they leave set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from manager import SubAgentManager

TIMEOUT_S = 60
LOOKING = {  # a listing is to be there soon
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


def told(code: str, *arguments: str | Path) -> set[str]:
    """What `code` printed to stderr, word for word."""
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
    """Nor what looks at every file, nor what would log."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.wait_durable(manager.spawn("p", name="one").lsn)
    code = "import sys; from manager.__main__ import main\n"
    code += "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    name = ["one"] if verb == "show" else []
    imported = told(code, verb, *name, "--workspace", tmp_path)
    assert "journal._offline.reader" in imported
    assert imported & LOOKING == set()


@pytest.mark.parametrize(
    ("package", "patched"),
    [
        ("manager", "manager._cli.cli.run_cli"),
        ("journal_inspect", "journal_inspect.commands.cli.cli.main"),
    ],
)
def test_garbage_is_collected_once_all_is_imported(package: str, patched: str) -> None:
    """It is not meanwhile; a run that lasts for days must not do without."""
    code = f"""
import gc, sys
from unittest.mock import patch
from {package}.__main__ import main
def seen(*_, **__):
    print("on" if gc.isenabled() else "off", file=sys.stderr)
    return 0
with patch("{patched}", seen):
    main()
"""
    assert told(code) == {"on"}

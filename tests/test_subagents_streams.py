"""`subagents` where its streams are not what a shell gives."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT_S = 60


@pytest.mark.parametrize("verb", ["run tasks.txt", "run -", "list", "show one", "list -o json"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_were_closed_before(tmp_path: Path, verb: str, closed: str) -> None:
    """The answer is the exit code, whoever listens."""
    line = '{"name": "one", "command": "echo 1"}'
    (tmp_path / "tasks.txt").write_text(f"{line}\n")
    for arguments in ("run tasks.txt", f"{verb} {closed}"):
        done = subprocess.run(
            f"{shlex.quote(sys.executable)} -P -m manager {arguments}",
            shell=True,
            cwd=tmp_path,
            input=line,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert (done.returncode, "Traceback" in done.stderr) == (0, False)

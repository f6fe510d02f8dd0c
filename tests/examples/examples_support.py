"""Support for tests of the examples: runs one as a user would, and kills it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import bounded

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "journal" / "docs" / "examples"


@contextmanager
def started(name: str, folder: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run an example in `folder`. Kill it at the end of the `with`, and if it hangs."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)]
    with (
        subprocess.Popen(
            command,
            cwd=folder,
            env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        bounded(process),
    ):
        yield process

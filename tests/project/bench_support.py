"""Runs a benchmark as its user does, with settings so small that it takes a second or two."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support import TIMEOUT_S

ROOT = Path(__file__).resolve().parents[2]


def run_bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-P", str(ROOT / "tools" / "bench"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S * 4,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def found_by(*arguments: object) -> dict[str, Any]:
    """What it prints as JSON."""
    found: dict[str, Any] = json.loads(run_bench(*arguments, "--json").stdout)
    return found

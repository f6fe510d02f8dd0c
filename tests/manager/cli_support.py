"""Helpers for tests of the `subagents` command."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from manager import Agent

TIMEOUT_S = 60
KEYS = {field.name for field in fields(Agent)} | {"schema_version", "exit_code", "signal"}
KEYS |= {"worker", "machine", "worker_silent_s"}
NASTY = "a\x1b[31m\rb\x9b\u202e\x07"  # would colour, overwrite, reverse and ring on a terminal


def subagents(
    *args: str | Path, cwd: Path, stdin: str = "", env: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Run the command. Return its exit code, stdout and stderr."""
    child = subprocess.run(
        [sys.executable, "-P", "-m", "manager", *map(str, args)],
        cwd=cwd,
        input=stdin,
        env=os.environ | (env or {}),
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
    )
    assert "Traceback" not in child.stderr
    return child.returncode, child.stdout, child.stderr


def assert_harmless(text: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in text), ascii(text)

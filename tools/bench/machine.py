"""The description of the machine that every benchmark prints, and the slowed disk."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from journal import __version__

SHIM = Path(__file__).with_name("slow_sync.c")


def about(*packages: str) -> dict[str, str | int]:
    """Return the versions of Python, the journal and `packages`, and facts about the machine."""
    facts: dict[str, str | int] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)),
        "journal": __version__,
    }
    for package in packages:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def slow_disk(directory: Path, delay_ms: float) -> dict[str, str]:
    """Return an environment in which each sync takes `delay_ms` longer.

    The library that does this is compiled into `directory`, which needs a C compiler.
    """
    if not delay_ms:
        return dict(os.environ)
    library = directory / "slow_sync.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SHIM), "-ldl"]
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        raise SystemExit("bench: --delay-ms needs the C compiler `cc`; install one") from None
    slow = {"LD_PRELOAD": str(library), "SLOW_SYNC_US": str(int(delay_ms * 1000))}
    return os.environ | slow

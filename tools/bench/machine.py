"""What every benchmark says of where it ran, and how it slows the disk down."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from journal import __version__

SHIM = Path(__file__).with_name("slow_sync.c")


def about(*packages: str) -> dict[str, str | int]:
    """Versions and machine; `packages` as far as they are installed."""
    found: dict[str, str | int] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)),
        "journal": __version__,
    }
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def slow_disk(directory: Path, delay_ms: float) -> dict[str, str]:
    """An environment in which each sync takes that much longer. Needs a C compiler."""
    if not delay_ms:
        return dict(os.environ)
    library = directory / "slow_sync.so"
    compile_it = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SHIM), "-ldl"]
    try:
        subprocess.run(compile_it, check=True)
    except FileNotFoundError:
        raise SystemExit("bench: --delay-ms needs a C compiler, cc") from None
    slow = {"LD_PRELOAD": str(library), "SLOW_SYNC_US": str(int(delay_ms * 1000))}
    return os.environ | slow

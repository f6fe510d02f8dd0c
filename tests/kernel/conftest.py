"""Fixtures that several test files of the real disk use."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal._disk.posix import PosixDirectory, PosixDisk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path.resolve() / "journal"


@pytest.fixture
def directory(path: Path) -> PosixDirectory:
    return PosixDisk().open_directory(path, write=True)

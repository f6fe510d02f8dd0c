"""The directory that a file address names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from journal._mirror.directory_store import DirectoryStore
from journal._mirror.urls import open_store


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has only names in UTF-8")
def test_a_name_need_not_be_utf_8(tmp_path: Path) -> None:
    """The address that `Path.as_uri` makes names that directory, whatever bytes its name has."""
    for name in (b"\xff", b"\xfe", "\u00fc %".encode()):
        folder = tmp_path / os.fsdecode(name)
        open_store(folder.as_uri()).append(1, name)
        assert DirectoryStore(folder, is_reader=True).numbers(0) == [1]
    assert len(os.listdir(tmp_path)) == 3

"""Where a journal can't be kept: what open says, and that it leaves nothing behind."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from journal import FailedError, Journal
from tests.support import put


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path.resolve() / "j"


# --- the parent's sync ---


@pytest.mark.skipif(sys.platform != "linux", reason="a Mac syncs by fcntl")
def test_a_failed_sync_of_the_parent_is_a_failed_sync(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: the directory's own name may not survive: FailedError, and the cause is the OSError."""

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(FailedError, match=f"{path.parent}: can't be synced") as caught:
        Journal.open(path)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EIO
    monkeypatch.undo()
    with Journal.open(path) as journal:
        put(journal, 1)


def test_a_parent_that_may_not_be_opened_is_no_failed_sync(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that can't be opened stays a plain PermissionError."""
    opened = os.open

    def refusing(name: Any, *args: Any, **more: Any) -> int:
        if name == str(path.parent):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        return opened(name, *args, **more)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(PermissionError) as caught:
        Journal.open(path)
    assert type(caught.value) is PermissionError
    assert caught.value.filename == str(path.parent)

"""The files of `subagents worker` in its directory, which something else may have made."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from journal import DurableDict, JournalError, UnsafePathError
from manager import DispatchError
from manager._run.worker import STATE_DIR, WorkerOptions, run_worker


def link(path: Path) -> None:
    path.symlink_to("elsewhere")


def keep_something_else(path: Path) -> None:
    with DurableDict.open(path) as other:
        other["journal", "agent", 1, 2] = [1, "no body"]


@pytest.mark.parametrize(
    ("name", "make", "error", "message"),
    [
        *(
            (name, make, UnsafePathError, "is not a regular file; move it away")
            for name in ("WORKER", "LOCK")
            for make in (link, Path.mkdir, os.mkfifo)
        ),
        ("results", keep_something_else, DispatchError, "something else than the results of a"),
    ],
)
def test_a_file_of_something_else_is_named(
    tmp_path: Path,
    name: str,
    make: Callable[[Path], object],
    error: type[JournalError],
    message: str,
) -> None:
    """A worker refuses a file that it did not make, and runs nothing."""
    (tmp_path / STATE_DIR).mkdir(0o700)
    path = tmp_path / STATE_DIR / name
    make(path)
    options = WorkerOptions(url="nats://127.0.0.1", directory=str(tmp_path), queues=(), slots=1)
    with pytest.raises(error, match=f"{path}: .*{message}"):
        run_worker(options)

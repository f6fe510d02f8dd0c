"""journal-inspect and directories, locks and markers that an open refuses, whatever the log is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journal import Journal, JournalReader, UnsafePathError
from tests.inspect.damage_support import damage_frame, history
from tests.inspect.inspect_support import ask, check_refused, contents


def replaced(path: Path) -> Path:
    path.unlink(missing_ok=True)
    return path


UNSAFE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a directory as LOCK": (lambda p: replaced(p / "LOCK").mkdir(), "LOCK: is not a regular"),
    "a symlink as LOCK": (
        lambda p: replaced(p / "LOCK").symlink_to("nowhere"),
        "LOCK: is not a regular",
    ),
    "a dangling symlink as MIRROR": (
        lambda p: replaced(p / "MIRROR").symlink_to("nowhere"),
        "MIRROR: is not a regular",
    ),
    "a directory for everybody": (lambda p: p.chmod(0o777), "mode 0777 lets others write"),
}


@pytest.mark.parametrize("case", UNSAFE)
@pytest.mark.parametrize("is_damaged", [False, True])
def test_what_an_open_refuses_is_reported(case: str, is_damaged: bool, tmp_path: Path) -> None:
    """P9: verify, info and repair say what an open says, with exit code 4, and a repair changes
    nothing."""
    path = history(tmp_path / "j")
    if is_damaged:
        damage_frame(path, 34)
    make_unsafe, words = UNSAFE[case]
    make_unsafe(path)
    if not is_damaged:
        with pytest.raises(UnsafePathError, match=words):
            Journal.open(path)
    before = [*path.iterdir()]
    for args in (("verify",), ("info",), ("repair",), ("repair", "--apply")):
        check_refused(ask(args[0], path, *args[1:]), 4, words)
    assert [*path.iterdir()] == before
    with JournalReader.open(path) as reader:
        with pytest.raises(UnsafePathError, match=words):
            reader.preview_recovery()
        assert next(reader.entries(20)).lsn == 21  # it can be read


def test_a_directory_that_others_can_read_is_whole(tmp_path: Path) -> None:
    """An open narrows the mode of a directory that others can only read, so it is not reported."""
    path = history(tmp_path / "j")
    path.chmod(0o755)
    before = contents(path)
    assert [ask(verb, path).code for verb in ("verify", "info", "repair")] == [0, 0, 0]
    assert contents(path) == before

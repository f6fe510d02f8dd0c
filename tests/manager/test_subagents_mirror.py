"""`subagents run --mirror`: a run that another machine continues."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.manager.cli_support import subagents


def test_another_machine_continues_a_run(tmp_path: Path) -> None:
    """With the same mirror, a run in an empty workspace has the results of the first one, and runs
    only what is left."""
    url = f"file://{tmp_path}/mirror"
    one, two = tmp_path / "one", tmp_path / "two"
    first, second = (f"echo {name} >> {tmp_path}/log\n" for name in ("first", "second"))
    for place, text in ((one, first), (two, first + second)):
        place.mkdir()
        (place / "tasks.txt").write_text(text)
        code, _, messages = subagents("run", "tasks.txt", "--mirror", url, cwd=place)
        assert code == 0, messages
    assert (tmp_path / "log").read_text() == "first\nsecond\n"
    code, out, _ = subagents("list", "-o", "json", cwd=two)
    assert code == 0
    assert out.count('"completed"') == 2
    shutil.rmtree(one)
    code, _, messages = subagents("run", "--mirror", url, cwd=two)
    assert code == 0, messages


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--mirror", "ftp://host/x"), 2, "is not the address of a mirror"),
        (("--mirror", "file:///missing/parent/mirror"), 4, "can't be opened"),
        (("--takeover",), 2, "add --mirror URL"),
    ],
)
def test_a_bad_mirror_is_named(
    arguments: tuple[str, ...], code: int, text: str, tmp_path: Path
) -> None:
    """An address that names no mirror is wrong usage, and one that can't be used an error. Nothing
    runs."""
    (tmp_path / "tasks.txt").write_text("touch ran\n")
    result = subagents("run", "tasks.txt", *arguments, cwd=tmp_path)
    assert (result[0], result[1]) == (code, "")
    assert text in result[2]
    assert not (tmp_path / "ran").exists()

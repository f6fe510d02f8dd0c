"""JournalSaver.open: the journal that it opens, and where it works."""

from __future__ import annotations

import asyncio
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.installed import import_package

import_package("langgraph.checkpoint.base")

from journal.adapters.langgraph import JournalSaver, _saver  # noqa: E402
from tests.adapters.langgraph_support import place, put_steps, steps  # noqa: E402


@pytest.mark.parametrize("is_async", [False, True])
def test_a_saver_is_mirrored(tmp_path: Path, is_async: bool) -> None:
    """The arguments `mirror` and `takeover` of `open` reach the journal, in both forms: another
    machine continues the threads, and takes the claim of one that is still there."""
    url = f"file://{tmp_path}/mirror"

    async def aopened(*arguments: Any, **named: Any) -> list[Any]:
        async with JournalSaver.open(*arguments, **named) as saver:
            return steps(saver)

    with JournalSaver.open(tmp_path / "first", mirror=url) as saver:
        put_steps(saver, 3)
        saver.tables.wait_mirrored(timeout_s=30)
        second: dict[str, Any] = {"mirror": url, "takeover": True}
        if is_async:
            assert asyncio.run(aopened(tmp_path / "second", **second)) == [2, 1, 0]
        else:
            with JournalSaver.open(tmp_path / "second", **second) as other:
                assert steps(other) == [2, 1, 0]


@pytest.mark.parametrize("fails", [False, True])
def test_an_interrupted_removal_is_finished_off_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """In `async with`, a thread finishes the removals that a crash interrupted. If that fails, the
    journal is closed."""
    with JournalSaver.open(tmp_path / "journal") as saver:
        put_steps(saver, 2)
        saver.tables.table("langgraph.doomed")[("t",)] = None
    saver_module: Any = _saver
    threads, finish = list[Any](), saver_module.drop_all_doomed

    def watched(*arguments: Any) -> None:
        threads.append(threading.current_thread())
        if fails:
            raise KeyError("broken")
        finish(*arguments)

    async def main() -> None:
        async with JournalSaver.open(tmp_path / "journal") as saver:
            assert list(saver.list(place("t"))) == []

    monkeypatch.setattr(saver_module, "drop_all_doomed", watched)
    if fails:
        with pytest.raises(KeyError, match="broken"):
            asyncio.run(main())
    else:
        asyncio.run(main())
    assert threads[0] is not threading.main_thread()
    monkeypatch.undo()
    with JournalSaver.open(tmp_path / "journal") as saver:
        assert steps(saver) == []


@pytest.mark.parametrize(
    "wrong",
    [
        *({"keep": keep} for keep in (0, -1, True, 1.5, "1")),
        *({"ttl_s": ttl_s} for ttl_s in (0, -1, math.nan, math.inf, 1e300, True, "5")),
    ],
)
def test_a_wrong_retention_is_refused_at_once(tmp_path: Path, wrong: Any) -> None:
    """`open` names the wrong argument before it makes a directory."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        JournalSaver.open(tmp_path / "journal", **wrong)
    assert [*tmp_path.iterdir()] == []

"""Open handles own files, locks and threads of this process, so they can't be copied."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from journal import CowTable, DurableState, Journal, JournalReader
from manager import SubAgentManager
from tests.support import TIMEOUT_S, Table, frozen

COPIES: list[Callable[[Any], object]] = [copy.copy, copy.deepcopy, pickle.dumps]


@pytest.fixture(
    params=["Journal", "DurableState", "SubAgentManager", "JournalReader", "Checkpoint"]
)
def handle(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "j"
    if request.param == "Journal":
        opened: Any = Journal.open(path)
    elif request.param == "DurableState":
        opened = DurableState.open(path, Table())
    elif request.param == "SubAgentManager":
        path.mkdir()
        opened = SubAgentManager.open(path)
    else:
        with Journal.open(path) as journal:
            journal.append(1)
            opened = journal.compact(frozen(journal, "item"))
        if request.param == "JournalReader":
            opened.close()
            opened = JournalReader.open(path)
        else:
            (opened,) = JournalReader.open(path).checkpoints()
    yield opened
    opened.close()


@pytest.mark.parametrize("copied", COPIES, ids=lambda call: f"{call.__module__}.{call.__name__}")
def test_an_open_handle_is_not_copied(handle: Any, copied: Callable[[Any], object]) -> None:
    """A copy would share the file and the threads, and close them, so a copy raises TypeError."""
    with pytest.raises(TypeError, match=f"{type(handle).__name__}.*open it again"):
        copied(handle)


def test_a_refusal_names_a_public_class(tmp_path: Path) -> None:
    """The journal of a DurableState has a private class, and the message calls it a Journal."""
    with (
        DurableState.open(tmp_path / "j", Table()) as state,
        pytest.raises(TypeError, match=r"^an open Journal can't be copied"),
    ):
        copy.copy(state.journal)


def test_a_refused_copy_leaves_the_journal_open(tmp_path: Path) -> None:
    """A refused copy closes nothing of the original when it is collected."""
    with Journal.open(tmp_path / "j") as journal:
        with pytest.raises(TypeError):
            copy.copy(journal)
        gc.collect()
        journal.wait_durable(journal.append(1), timeout_s=TIMEOUT_S)


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda table: pickle.loads(pickle.dumps(table))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copied_table_is_independent(copied: Callable[[Any], Any]) -> None:
    """P6: A write to the copy changes neither the original nor a snapshot of it."""
    table: CowTable[str, int] = CowTable()
    table["a"], table["b"] = 1, 2
    snapshot = table.freeze()
    twin = copied(table)
    twin["a"], twin["c"] = 3, 4
    table["b"] = 5
    assert dict(twin) == {"a": 3, "b": 2, "c": 4}
    assert dict(table) == {"a": 1, "b": 5}
    assert list(snapshot) == [1, 2]
    assert list(twin.freeze()) == [3, 2, 4]

"""Returning: a directory comes back to its mirror after another writer, or an opening without it.

Source: tools/proof/fork_model.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from journal import FailedError, Tables
from journal._mirror.memory_store import MemoryStore
from tests.mirror.stores import SMALL, TIMEOUT_S, SilentStore, mirror_of


def opened(path: Path, store: MemoryStore) -> Tables:
    """Open tables that keep almost nothing for their mirror."""
    mirror = mirror_of(store, keep_s=0, lag_bytes_max=1)
    return Tables.open(path, options=SMALL, mirror=mirror, takeover=True)


def mirrored(path: Path, store: MemoryStore, key: str) -> None:
    """Write a row that the mirror acknowledges."""
    with opened(path, store) as writer:
        writer.table("t")[key] = 1
        writer.wait_mirrored(timeout_s=TIMEOUT_S)


def compacted(journal: Tables) -> None:
    """Write so much that nothing of the log is left from before."""
    for number in range(8):
        journal.table("t")["next"] = f"{number} " + "x" * 4096
        journal.sync()
        journal.compact()


def overtaken(path: Path, store: SilentStore) -> None:
    """Take the mirror over while a writer can't reach it, compacts, and is killed."""
    with suppress(FailedError), opened(path.with_name("running"), store) as first:
        first.table("t")["common"] = 1
        first.wait_mirrored(timeout_s=TIMEOUT_S)
        store.fall_silent()
        mirrored(path.with_name("other"), store.reached_by_others(), "acknowledged")
        compacted(first)
        shutil.copytree(path.with_name("running"), path)
        store.answer()


def opened_without(path: Path, store: SilentStore) -> None:
    """Take the mirror over before its first directory is opened without it."""
    mirrored(path, store, "common")
    mirrored(path.with_name("other"), store, "acknowledged")
    with Tables.open(path, options=SMALL, mirror=False) as alone:
        compacted(alone)


def rolled_back(path: Path, store: SilentStore) -> None:
    """Go back to an older copy of a directory, of the same claim."""
    with opened(path.with_name("lost"), store) as lost:
        lost.table("t")["common"] = 1
        lost.wait_mirrored(timeout_s=TIMEOUT_S)
        shutil.copytree(path.with_name("lost"), path)
        lost.table("t")["acknowledged"] = 1
        lost.wait_mirrored(timeout_s=TIMEOUT_S)


def rolled_back_and_opened_without(path: Path, store: SilentStore) -> None:
    """Open an older copy of a directory without its mirror."""
    rolled_back(path, store)
    with Tables.open(path, options=SMALL, mirror=False) as alone:
        compacted(alone)


def rolled_back_and_cut_off(path: Path, store: SilentStore) -> None:
    """Open an older copy of a directory while its mirror can't be reached, until it can be."""
    rolled_back(path, store)
    store.fall_silent()
    with suppress(FailedError), opened(path, store) as alone:
        compacted(alone)
        store.answer()
        with pytest.raises(FailedError):
            alone.wait_mirrored(timeout_s=TIMEOUT_S)


@pytest.mark.parametrize(
    "diverge", [overtaken, opened_without, rolled_back_and_opened_without, rolled_back_and_cut_off]
)
def test_a_fork_is_noticed_after_its_log_was_compacted(
    diverge: Callable[[Path, SilentStore], None], tmp_path: Path
) -> None:
    """A directory's own checkpoint does not cover what another writer has put into the mirror, or
    what the directory had before it was rolled back. It is put aside."""
    store, path = SilentStore(), tmp_path / "one"
    diverge(path, store)
    with opened(path, store) as again:
        assert set(again.table("t")) == {"common", "acknowledged"}
    assert len(list(tmp_path.glob("one.aside-*"))) == 1

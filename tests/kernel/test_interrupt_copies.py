"""Ctrl-C at every point of a backup and of a restore."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from journal import Journal, JournalReader, backup
from journal._mirror.memory_store import MemoryStore
from journal._mirror.restoring import restore_into
from journal.testing import SimulatedDisk
from tests.kernel.interrupt_support import (
    MANY,
    SPARSE,
    TWICE,
    in_other_thread,
    monitored,
    point_numbers,
    struck,
)
from tests.mirror.stores import mirror_of
from tests.support import PATH, frozen, options, put
from tests.tiers import is_quick_part

__all__ = ["monitored", "point_numbers"]  # fixtures
pytestmark = pytest.mark.usefixtures("monitored")

COPY = "/copy"
COPYING = "COPYING.tmp"


def source(disk: SimulatedDisk, store: MemoryStore) -> None:
    mirror = mirror_of(store, interval_s=0.01)
    with Journal.open(PATH, options=options(), mirror=mirror, disk=disk) as journal:
        put(journal, 1)
        journal.compact(frozen(journal, 1))
        put(journal, 2)
        journal.wait_mirrored(2)


def backed_up(disk: SimulatedDisk, store: MemoryStore) -> object:
    return backup(PATH, COPY, disk=disk)


def restored(disk: SimulatedDisk, store: MemoryStore) -> object:
    return restore_into(store, COPY, disk=disk)


def check(disk: SimulatedDisk, copying: Callable[[], object]) -> None:
    """Repeat the interrupted copy, unless it is complete. Then check that it is complete."""
    disk.kill()  # an interrupt of the close may keep the lock until the process ends
    files = disk.contents(COPY)
    if COPYING in files or not files:
        in_other_thread(copying)
    with JournalReader.open(COPY, disk=disk) as reader:
        assert list(reader.verify()) == []
        assert reader.last_lsn == 2


@SPARSE
@pytest.mark.parametrize("copying", [backed_up, restored])
def test_an_interrupted_copy_leaves_nothing_or_is_complete(
    copying: Callable[[SimulatedDisk, MemoryStore], object], point_numbers: range
) -> None:
    """An interrupt anywhere in a copy removes its files, unless it strikes when the copy is already
    complete. The same copy can be repeated."""
    disk, store = SimulatedDisk(), MemoryStore()
    in_other_thread(partial(source, disk, store))
    medium, left = disk.snapshot(), set[frozenset[str]]()
    for nth in point_numbers:
        disk = SimulatedDisk(medium)
        action = partial(copying, disk, store)
        has_struck = struck(action, nth)
        left.add(frozenset(disk.contents(COPY)))
        check(disk, action)
        if not has_struck:
            break
    assert nth > 500
    complete = frozenset(disk.contents(COPY))
    assert complete in left
    assert left <= {frozenset(), complete}


@TWICE
@pytest.mark.parametrize("copying", [backed_up, restored])
def test_an_interrupt_of_the_clean_up_leaves_an_incomplete_copy(
    copying: Callable[[SimulatedDisk, MemoryStore], object],
) -> None:
    """If another interrupt strikes while the files of an interrupted copy are removed, those that
    stay are an incomplete copy, which the same copy replaces."""
    disk, store = SimulatedDisk(), MemoryStore()
    in_other_thread(partial(source, disk, store))
    medium = disk.snapshot()
    for nth in range(0, MANY, 150):
        for gap in range(1, 60, 8 if is_quick_part() else 2):
            disk = SimulatedDisk(medium)
            action = partial(copying, disk, store)
            has_struck = struck(action, nth, gap)
            check(disk, action)
        if not has_struck:
            break
    assert nth > 500

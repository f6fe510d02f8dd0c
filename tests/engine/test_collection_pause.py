"""Collections of older objects are put off while a state is rebuilt, and only then."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from journal import DurableState, FormatVersionError
from journal._state.collection_pause import _NEVER, without_full_collections
from journal.testing import SimulatedDisk
from tests.support import TIMEOUT_S

NORMAL, PAUSED = (700, 10, 10), (700, _NEVER, _NEVER)


class Seen:
    """A state machine that notes the collector's thresholds in each of its calls."""

    application = "seen/1"

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.thresholds: set[tuple[int, int, int]] = set()

    def load(self, item: Any) -> None:
        self.apply(0, item)

    def apply(self, lsn: int, record: Any) -> None:
        self.thresholds.add(gc.get_threshold())
        self.items.append(record)

    def freeze(self) -> list[Any]:
        return [*self.items]


class Refusing(Seen):
    def load(self, item: Any) -> None:
        raise ValueError("refused")


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Give the collector the settings of a new process."""
    before, was_enabled = gc.get_threshold(), gc.isenabled()
    gc.set_threshold(*NORMAL)
    gc.enable()
    yield
    gc.set_threshold(*before)
    if not was_enabled:
        gc.disable()


def begun(disk: SimulatedDisk) -> None:
    with DurableState.open("j", Seen(), disk=disk) as state:
        state.update(lambda _: "a")
        state.compact()
        state.update(lambda _: "b")


def test_items_and_records_are_loaded_without_full_collections(disk: SimulatedDisk) -> None:
    """An open puts off collections of older objects for the items of the checkpoint and the records
    after it. The program's own updates run with its own thresholds."""
    begun(disk)
    seen = Seen()
    with DurableState.open("j", seen, disk=disk) as state:
        assert (seen.items, seen.thresholds) == (["a", "b"], {PAUSED})
        assert gc.get_threshold() == NORMAL
        state.update(lambda _: "c")
        assert seen.thresholds == {PAUSED, NORMAL}


@pytest.mark.parametrize("switch_off", [gc.disable, lambda: gc.set_threshold(0)])
def test_a_disabled_collector_stays_disabled(
    disk: SimulatedDisk, switch_off: Callable[[], None]
) -> None:
    """An open changes nothing if the program has disabled the collector, and collects nothing."""
    begun(disk)
    switch_off()
    settings = gc.isenabled(), gc.get_threshold()
    seen, collections = Seen(), gc.get_stats()
    DurableState.open("j", seen, disk=disk).close()
    assert seen.thresholds == {settings[1]}
    assert (gc.isenabled(), gc.get_threshold()) == settings
    assert gc.get_stats() == collections


def test_a_refused_item_ends_the_pause(disk: SimulatedDisk) -> None:
    """The thresholds are the program's again if the state machine refuses an item."""
    begun(disk)
    with pytest.raises(FormatVersionError, match="load raised"):
        DurableState.open("j", Refusing(), disk=disk)
    assert gc.get_threshold() == NORMAL


class Building:
    """A build that goes on until `may_end` is set."""

    def __init__(self) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=without_full_collections, args=(self,))

    def __call__(self) -> None:
        self.has_begun.set()
        assert self.may_end.wait(TIMEOUT_S)

    def begin(self) -> None:
        self.thread.start()
        assert self.has_begun.wait(TIMEOUT_S)

    def end(self) -> None:
        self.may_end.set()
        self.thread.join(TIMEOUT_S)


def test_opens_of_two_threads_end_their_pauses() -> None:
    """If another open begins during a pause, the thresholds are the program's after both."""
    second = Building()
    without_full_collections(second.begin)
    second.end()
    assert gc.get_threshold() == NORMAL


def test_new_containers_are_visited_once() -> None:
    """New containers are among the oldest objects at the end, so no later collection of newer ones
    finds all of them."""
    built: list[Any] = without_full_collections(lambda: [[] for _ in range(10_000)])
    oldest = {id(each) for each in gc.get_objects(generation=2)}
    assert all(id(each) in oldest for each in built)


@pytest.mark.skipif(sys.platform != "linux", reason="forks with threads")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # the test forks with threads
def test_a_child_forked_during_a_pause_collects() -> None:
    """A child that another thread forks during a pause has the program's thresholds."""
    building = Building()
    building.begin()
    assert gc.get_threshold() == PAUSED
    child = os.fork()
    if not child:
        os._exit(0 if gc.get_threshold() == NORMAL else 1)
    building.end()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert gc.get_threshold() == NORMAL

"""A DurableDict beside a dict, with kills and power cuts between its calls and during them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from journal import DurableDict, JournalError
from journal.testing import SimulatedDisk, drawn
from tests.support import PATH, TIMEOUT_S, options

KEYS = st.sampled_from([1, "a", "b", ("a", 1), b"\0"])
VALUES = st.none() | st.integers(0, 3) | st.just("x" * 400)  # the last is written in pieces
DICTS = st.dictionaries(KEYS, VALUES, max_size=4)
KEYS_MAX = 4  # of a transaction


class DictRun(RuleBasedStateMachine):
    """A DurableDict and a dict to which the same calls are made."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk()
        self.model: dict[Any, Any] = {}
        self.history: list[dict[Any, Any]] = [{}]
        self.synced = 0  # states of the history that no crash may take
        self.items = self.open()

    def open(self) -> DurableDict:
        chosen = options(segment_bytes=1 << 20, record_bytes_max=256)
        return DurableDict.open(PATH, options=chosen, transaction_keys_max=KEYS_MAX, disk=self.disk)

    def teardown(self) -> None:
        self.items.close(timeout_s=TIMEOUT_S)

    def note(self) -> None:
        self.history.append(dict(self.model))

    @rule(key=KEYS, value=VALUES)
    def set(self, key: Any, value: Any) -> None:
        self.items[key] = self.model[key] = value
        self.note()

    @rule(key=KEYS)
    def delete(self, key: Any) -> None:
        if key in self.model:
            del self.items[key], self.model[key]
            self.note()
        else:
            with pytest.raises(KeyError):
                del self.items[key]

    @rule(key=KEYS, value=VALUES)
    def setdefault(self, key: Any, value: Any) -> None:
        assert self.items.setdefault(key, value) == self.model.setdefault(key, value)
        self.note()

    @rule(key=KEYS)
    def pop(self, key: Any) -> None:
        assert self.items.pop(key, "default") == self.model.pop(key, "default")
        self.note()

    @rule()
    def popitem(self) -> None:
        if self.model:
            key, value = self.items.popitem()
            assert self.model.pop(key) == value
            self.note()
        else:
            with pytest.raises(KeyError):
                self.items.popitem()

    @rule(more=DICTS, is_merged=st.booleans())
    def update(self, more: dict[Any, Any], is_merged: bool) -> None:
        """Set several keys, of which a crash leaves all or none."""
        if is_merged:
            self.items |= more
        else:
            self.items.update(more)
        self.model |= more
        self.note()

    @rule(key=KEYS)
    def update_of_a_key(self, key: Any) -> None:
        self.model[key] = [self.model.get(key, 0)]
        assert self.items.update(key, lambda value: [value], default=0) == self.model[key]
        self.note()

    @rule()
    def clear(self) -> None:
        """Remove all keys, in slices of `KEYS_MAX`."""
        for at, key in enumerate(list(self.items)):
            if at and at % KEYS_MAX == 0:
                self.note()
            del self.model[key]
        self.items.clear()
        self.note()

    @rule()
    def sync(self) -> None:
        self.items.sync(timeout_s=TIMEOUT_S)
        self.synced = len(self.history) - 1

    @rule(
        data=st.data(),
        count=st.integers(0, 12),
        call=st.sampled_from(["sync", "compact", "close"]),
        crash=st.sampled_from(["kill", "power cut"]),
    )
    def crash(
        self,
        data: st.DataObject,
        count: int,
        call: Literal["sync", "compact", "close"],
        crash: str,
    ) -> None:
        """Crash during a call or after it, and reopen: a state that was noted is there, and none
        before the last sync."""
        self.disk.crash_after(count)
        with suppress(JournalError, OSError):
            getattr(self.items._tables, call)()
            if not self.disk.crashed:
                self.synced = len(self.history) - 1
        if crash == "kill":
            self.disk.kill()
        else:
            self.disk.power_cut(drawn(lambda most: data.draw(st.integers(0, most))))
        with suppress(JournalError):
            self.items.close(timeout_s=TIMEOUT_S)
        self.items = self.open()
        self.model = dict(self.items)
        indices = [
            index
            for index in range(self.synced, len(self.history))
            if self.history[index] == self.model
        ]
        assert indices
        del self.history[indices[-1] + 1 :]
        self.synced = len(self.history) - 1

    @invariant()
    def both_are_equal(self) -> None:
        assert self.items == self.model
        assert len(self.items) == len(self.model)
        assert self.items._tables._machine.uploads.ids() == []


TestDictRun = DictRun.TestCase
TestDictRun.settings = settings(max_examples=100, stateful_step_count=20)

"""A DurableDict beside a dict, with kills and power cuts between its calls and during them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from journal import DurableDict, Tables
from tests.crash.tables_crash_support import ModelRun
from tests.support import PATH, options
from tests.tiers import examples

KEYS = st.sampled_from([1, "a", "b", ("a", 1), b"\0"])
VALUES = st.none() | st.integers(0, 3) | st.just("x" * 400)  # the last is written in pieces
DICTS = st.dictionaries(KEYS, VALUES, max_size=4)
KEYS_MAX = 4  # of a transaction


class DictRun(ModelRun[DurableDict]):
    """A DurableDict and a dict to which the same calls are made."""

    def open(self) -> DurableDict:
        chosen = options(segment_bytes=1 << 20, record_bytes_max=256)
        return DurableDict.open(PATH, options=chosen, transaction_keys_max=KEYS_MAX, disk=self.disk)

    def app(self) -> Tables:
        return self.store._tables

    def actual(self) -> dict[Any, Any]:
        return dict(self.store)

    @rule(key=KEYS, value=VALUES)
    def set(self, key: Any, value: Any) -> None:
        self.store[key] = self.model[key] = value
        self.note()

    @rule(key=KEYS)
    def delete(self, key: Any) -> None:
        if key in self.model:
            del self.store[key], self.model[key]
            self.note()
        else:
            with pytest.raises(KeyError):
                del self.store[key]

    @rule(key=KEYS, value=VALUES)
    def setdefault(self, key: Any, value: Any) -> None:
        assert self.store.setdefault(key, value) == self.model.setdefault(key, value)
        self.note()

    @rule(key=KEYS)
    def pop(self, key: Any) -> None:
        assert self.store.pop(key, "default") == self.model.pop(key, "default")
        self.note()

    @rule()
    def popitem(self) -> None:
        if self.model:
            key, value = self.store.popitem()
            assert self.model.pop(key) == value
            self.note()
        else:
            with pytest.raises(KeyError):
                self.store.popitem()

    @rule(more=DICTS, is_merged=st.booleans())
    def update(self, more: dict[Any, Any], is_merged: bool) -> None:
        """Set several keys, of which a crash leaves all or none."""
        if is_merged:
            self.store |= more
        else:
            self.store.update(more)
        self.model |= more
        self.note()

    @rule(key=KEYS)
    def update_of_a_key(self, key: Any) -> None:
        self.model[key] = [self.model.get(key, 0)]
        assert self.store.update(key, lambda value: [value], default=0) == self.model[key]
        self.note()

    @rule()
    def clear(self) -> None:
        """Remove all keys, in slices of `KEYS_MAX`."""
        for at, key in enumerate(list(self.store)):
            if at and at % KEYS_MAX == 0:
                self.note()
            del self.model[key]
        self.store.clear()
        self.note()

    @invariant()
    def both_are_equal(self) -> None:
        assert self.store == self.model
        assert len(self.store) == len(self.model)
        assert self.store._tables._machine.uploads.ids() == []


TestDictRun = DictRun.TestCase
TestDictRun.settings = settings(max_examples=examples(100), stateful_step_count=20)

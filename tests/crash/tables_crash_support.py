"""Crashes of tables beside a model: during calls, and between the pieces of a value."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, Literal, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from journal import DurableDict, JournalError, Tables
from journal._tables.publisher import Publisher
from journal.testing import SimulatedDisk
from tests.crash.crash_support import drawn_by
from tests.support import TIMEOUT_S

Call = Literal["sync", "compact", "close"]
S = TypeVar("S", Tables, DurableDict)


class KilledError(BaseException):
    """A power cut, raised through the tables."""


@contextmanager
def killed_between_pieces(
    pieces: int, cut: Callable[[], None], written: Callable[[], None]
) -> Iterator[None]:
    """Let the body write a large value. Call `cut` after some of its pieces, or before the record
    that publishes them, and end the body. `written` is called after each piece."""
    left, write_piece = pieces, Publisher._write_piece

    def kill(*_: object) -> int | None:
        cut()
        raise KilledError

    def write_or_kill(publisher: Publisher, piece: Any) -> None:
        nonlocal left
        if not left:
            kill()
        left -= 1
        write_piece(publisher, piece)
        written()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Publisher, "_write_piece", write_or_kill)
        patch.setattr(Publisher, "_write_record", kill)
        with pytest.raises(KilledError):
            yield


class ModelRun(RuleBasedStateMachine, Generic[S]):
    """A store beside a model, whose states it notes. A crash leaves one of these, and none before
    the last sync."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk()
        self.disk.clock_ns = self.disk.tick_ns = 0
        self.model: dict[Any, Any] = {}
        self.history: list[dict[Any, Any]] = [{}]
        self.synced = 0  # states of the history that no crash may take
        self.store: S = self.open()

    @abstractmethod
    def open(self) -> S:
        """Open the store."""

    @abstractmethod
    def app(self) -> Tables:
        """Return the tables of the store."""

    @abstractmethod
    def actual(self) -> dict[Any, Any]:
        """Return what the store shows."""

    def shown(self, model: dict[Any, Any]) -> dict[Any, Any]:
        """Return what a store with the contents of `model` shows now."""
        return model

    def note(self) -> None:
        """Note the state after a change."""
        self.history.append(dict(self.model))

    def note_sync(self) -> None:
        """Note that no crash may take a state that was noted so far."""
        self.synced = len(self.history) - 1

    def cut_power(self, data: st.DataObject) -> None:
        self.disk.power_cut(drawn_by(data))

    def recover(self) -> None:
        """Open the store after a crash, and go on with the state that it left."""
        with suppress(JournalError):
            self.store.close(timeout_s=TIMEOUT_S)
        self.store = self.open()
        actual = self.actual()
        left = [
            index
            for index in range(self.synced, len(self.history))
            if self.shown(self.history[index]) == actual
        ]
        assert left
        del self.history[left[-1] + 1 :]
        self.model = dict(self.history[-1])
        self.note_sync()

    @rule()
    def sync(self) -> None:
        self.store.sync(timeout_s=TIMEOUT_S)
        self.note_sync()

    @rule(
        data=st.data(),
        count=st.integers(0, 12),
        call=st.sampled_from(["sync", "compact", "close"]),
        is_kill=st.booleans(),
    )
    def crash_during_a_call(
        self, data: st.DataObject, count: int, call: Call, is_kill: bool
    ) -> None:
        """Crash after some changes of the disk, or after the call if it makes fewer."""
        self.disk.crash_after(count)
        with suppress(JournalError, OSError):
            getattr(self.app(), call)()
            if not self.disk.crashed:
                self.note_sync()
        if is_kill:
            self.disk.kill()
        else:
            self.cut_power(data)
        self.recover()

    def teardown(self) -> None:
        with suppress(JournalError):  # a draw may have ended the example within a crash
            self.store.close(timeout_s=TIMEOUT_S)

"""Ways to persist a whole fleet without a journal, behind the same manager.

Each replaces DurableState: `update` decides and applies under one lock, and persists.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from journal import StateMachine
from journal._format.record import bare

State = dict[str, Any]
DEBOUNCE_S = 1.5


class WholeFleet:
    """The lock, its measurements, and the file. A subclass decides how the fleet is persisted."""

    def __init__(self, directory: Path, machine: StateMachine) -> None:
        self.machine = machine
        self.journal = self
        self.last_lsn = 0
        self.path = str(directory)
        self.persisting = False
        # The version of each file that was published, with the time in ns, and its size in bytes.
        self.kept: list[tuple[int, int]] = []
        self.sizes: list[int] = []
        self.stale = 0
        self.hold_ns: list[int] = []
        self.wait_ns: list[int] = []
        self._file = directory / "state" / "fleet.json"
        # Guards all of the above. It is held while the fleet is persisted, which is the flaw.
        self._lock = threading.Lock()

    def update(self, decide: Callable[[Any], Any], *, urgent: bool = False) -> int | None:
        def apply(lsn: int, record: Any) -> None:
            self.machine.apply(lsn, bare(record))

        return self._change(decide, apply, bare)

    def update_batch(self, decide: Callable[[Any], Any], *, urgent: bool = False) -> int | None:
        def apply(lsn: int, records: list[Any]) -> None:
            for record in records:
                self.machine.apply(lsn, record)

        return self._change(
            lambda machine: decide(machine) or None, apply, lambda records: bare(records[0])
        )

    def read(self, look: Callable[[Any], Any]) -> Any:
        return self._held(lambda: look(self.machine))

    def check(self) -> None: ...

    def wait_durable(self, lsn: int | None = None, *, timeout_s: float | None = None) -> None: ...

    def _change(
        self,
        decide: Callable[[Any], Any],
        apply: Callable[[int, Any], None],
        first_of: Callable[[Any], Any],
    ) -> int | None:
        def change() -> int | None:
            record = decide(self.machine)
            if record is None:
                return None
            self.last_lsn += 1
            apply(self.last_lsn, record)
            if self.persisting:
                self._persist(first_of(record))
            return self.last_lsn

        return self._held(change)  # type: ignore[no-any-return]

    def _held(self, action: Callable[[], Any]) -> Any:
        asked = time.perf_counter_ns()
        with self._lock:
            held = time.perf_counter_ns()
            try:
                return action()
            finally:
                self.hold_ns.append(time.perf_counter_ns() - held)
                self.wait_ns.append(held - asked)

    def settle(self) -> None:
        """Wait until no write is under way. No caller may change anything meanwhile."""

    def _persist(self, record: Any) -> None:
        raise NotImplementedError

    def _write(self, texts: Iterable[str], version: int, suffix: str = ".tmp") -> None:
        """Replace the file by one with these texts, without a sync."""
        os.makedirs(self._file.parent, exist_ok=True)
        temporary = self._file.with_suffix(suffix)
        with temporary.open("w") as file:
            size = sum(map(file.write, texts))
        os.replace(temporary, self._file)
        self.kept.append((version, time.perf_counter_ns()))
        self.sizes.append(size)


class RewriteUnderLock(WholeFleet):
    """A fleet that is serialized and rewritten as a whole while the lock is held."""

    def _persist(self, record: Any) -> None:
        self._write([_text_of(list(self.machine.freeze()))], self.last_lsn)


class ThreadAWrite(WholeFleet):
    """A fleet that is copied under the lock. A thread for each write serializes and rewrites it.

    `stale` counts how often an older snapshot has replaced a newer one.
    """

    def __init__(self, directory: Path, machine: StateMachine) -> None:
        super().__init__(directory, machine)
        self._on_disk_lock = threading.Lock()  # guards `stale` and `_on_disk`
        self._on_disk = 0
        self._writers: list[threading.Thread] = []

    def settle(self) -> None:
        while self._writers:
            self._writers.pop().join()

    def _persist(self, record: Any) -> None:
        agents, version = list(self.machine.freeze()), self.last_lsn
        writer = threading.Thread(target=self._replace, args=(agents, version))
        self._writers.append(writer)
        writer.start()

    def _replace(self, agents: list[State], version: int) -> None:
        self._write([_text_of(agents)], version, f".{version}.tmp")
        with self._on_disk_lock:
            self.stale += version < self._on_disk
            self._on_disk = version


class DebouncedSteps(ThreadAWrite):
    """The same, but steps are written at most once in DEBOUNCE_S; spawns and ends are at once."""

    def __init__(self, directory: Path, machine: StateMachine) -> None:
        super().__init__(directory, machine)
        self._next_s = 0.0  # from when on a step is written

    def _persist(self, record: Any) -> None:
        now_s = time.monotonic()
        if record[0] != "checkpoint" or now_s >= self._next_s:
            self._next_s = now_s + DEBOUNCE_S
            super()._persist(record)


class OneWriter(WholeFleet):
    """A fleet of which one thread writes the newest snapshot, again and again while it changes.

    The snapshot takes constant time under the lock. Its items are serialized one by one, because
    one call for all of them would keep the interpreter from the callers.
    """

    def __init__(self, directory: Path, machine: StateMachine) -> None:
        super().__init__(directory, machine)
        self._writer: threading.Thread | None = None
        self._changed = threading.Event()
        self._is_ending = False

    def settle(self) -> None:
        if self._writer is not None:
            self._is_ending = True
            self._changed.set()
            self._writer.join()
            self._writer, self._is_ending = None, False

    def _persist(self, record: Any) -> None:
        self._changed.set()
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_newest)
            self._writer.start()

    def _write_newest(self) -> None:
        is_last = False
        while not is_last:
            self._changed.wait()
            self._changed.clear()
            is_last = self._is_ending  # second: `settle` sets it first
            version, agents = self.read(lambda machine: (self.last_lsn, machine.freeze()))
            items = (f"{',' if number else ''}{json.dumps(it)}" for number, it in enumerate(agents))
            self._write(chain(('{"schema_version": 1, "agents": [',), items, ("]}",)), version)


def _text_of(agents: list[State]) -> str:
    return json.dumps({"schema_version": 1, "agents": agents})


KINDS: dict[str, type[WholeFleet]] = {
    "rewrite": RewriteUnderLock,
    "thread": ThreadAWrite,
    "debounced": DebouncedSteps,
    "writer": OneWriter,
}

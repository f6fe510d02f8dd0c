"""Two ways to persist a whole fleet, which the journal replaced, behind the same manager.

Each replaces DurableState: `update` decides and applies under one lock, and persists.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from journal import StateMachine
from journal._format.record import bare

State = dict[str, Any]


class WholeFleet:
    """The lock, its measurements, and the file. A subclass decides how the fleet is persisted."""

    def __init__(self, directory: Path, machine: StateMachine) -> None:
        self.machine = machine
        self.journal = self
        self.last_lsn = 0
        self.path = str(directory)
        self.persisting = False
        self.bytes_written = 0
        self.stale = 0
        self.hold_ns: list[int] = []
        self.wait_ns: list[int] = []
        self._file = directory / "state" / "fleet.json"
        # Guards all of the above. It is held while the fleet is persisted, which is the flaw.
        self._lock = threading.Lock()

    def update(self, decide: Callable[[Any], Any], *, urgent: bool = False) -> int | None:
        def apply(lsn: int, record: Any) -> None:
            self.machine.apply(lsn, bare(record))

        return self._change(decide, apply)

    def update_batch(self, decide: Callable[[Any], Any], *, urgent: bool = False) -> int | None:
        def apply(lsn: int, records: list[Any]) -> None:
            for record in records:
                self.machine.apply(lsn, record)

        return self._change(lambda machine: decide(machine) or None, apply)

    def read(self, look: Callable[[Any], Any]) -> Any:
        return self._held(lambda: look(self.machine))

    def check(self) -> None: ...

    def wait_durable(self, lsn: int | None = None, *, timeout_s: float | None = None) -> None: ...

    def _change(
        self, decide: Callable[[Any], Any], apply: Callable[[int, Any], None]
    ) -> int | None:
        def change() -> int | None:
            record = decide(self.machine)
            if record is None:
                return None
            self.last_lsn += 1
            apply(self.last_lsn, record)
            if self.persisting:
                self._persist()
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

    def _persist(self) -> None:
        raise NotImplementedError

    def _write(self, agents: list[State], suffix: str) -> None:
        os.makedirs(self._file.parent, exist_ok=True)
        text = json.dumps({"schema_version": 1, "agents": agents})
        temporary = self._file.with_suffix(suffix)
        temporary.write_text(text)
        os.replace(temporary, self._file)
        self.bytes_written += len(text)


class RewriteUnderLock(WholeFleet):
    """A fleet that is serialized and rewritten as a whole while the lock is held."""

    def _persist(self) -> None:
        self._write(list(self.machine.freeze()), ".tmp")


class ThreadAWrite(WholeFleet):
    """A fleet that is copied under the lock. A thread for each write serializes and rewrites it.

    `stale` counts how often an older snapshot has replaced a newer one.
    """

    def __init__(self, directory: Path, machine: StateMachine) -> None:
        super().__init__(directory, machine)
        self._on_disk_lock = threading.Lock()  # guards `stale` and `_on_disk`
        self._on_disk = 0
        self._writers: list[threading.Thread] = []

    def _persist(self) -> None:
        agents, version = list(self.machine.freeze()), self.last_lsn
        writer = threading.Thread(target=self._replace, args=(agents, version))
        self._writers.append(writer)
        writer.start()

    def _replace(self, agents: list[State], version: int) -> None:
        self._write(agents, f".{version}.tmp")
        with self._on_disk_lock:
            self.stale += version < self._on_disk
            self._on_disk = version

    def join(self) -> None:
        for writer in self._writers:
            writer.join()

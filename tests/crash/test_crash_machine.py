"""A crash state machine with the real engine and its threads, on a disk that Hypothesis crashes.

The machine is the one for users, `journal.testing.machine`, with backups and short writes added.
Its state machine notices every record that is lost, duplicated or misplaced.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test
from proof.ledger import Ledger

from journal.testing import ManualOptions
from journal.testing.machine import BESIDE, CrashMachine, Step
from journal.testing.owner import open_checked
from tests.crash.crash_support import files

# Three of the largest records fill a segment. With a fourth, a commit needs a second frame.
RECORDS = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from([0, 1, None]),
    st.sampled_from(["", "f" * 40, "f" * 1300]),
).map(list)


class CrashLedger(CrashMachine[Ledger]):
    """A crash machine with backups beside commits and compactions, and with short writes."""

    machine = Ledger
    records = RECORDS
    options = ManualOptions(frame_bytes_max=4096)

    def __init__(self) -> None:
        super().__init__()
        self.backups: dict[str, dict[str, bytes]] = {}

    @initialize(
        durability=st.sampled_from(["disk", "os"]), write_bytes_max=st.sampled_from([None, 900])
    )
    def begin(self, durability: Any, write_bytes_max: int | None) -> None:
        super().begin(durability)
        self.owner.disk.write_bytes_max = write_bytes_max

    @rule(data=st.data(), beside=BESIDE, compacting=st.booleans())
    def backup(self, data: st.DataObject, beside: set[int], compacting: bool) -> None:
        self._backup(data, beside, compacting)

    def steps(self, data: st.DataObject) -> dict[str, Step]:
        def backup() -> None:
            self._backup(data, data.draw(BESIDE), data.draw(st.booleans()))

        return {**super().steps(data), "backup": backup}

    def _backup(self, data: st.DataObject, beside: Collection[int], compacting: bool) -> None:
        """Make a backup. P1, P2 and P6 hold of it: it has all that was durable at its beginning."""
        owner, path = self.owner, f"/backup-{len(self.backups)}"
        durable_lsn = owner.state.journal.durable_lsn
        self.backups[path] = {}
        with self._commits(data, beside, owner.compact if compacting else lambda: None):
            report = owner.state.journal.backup(path)
        self.backups[path] = files(owner.disk, path)
        with open_checked(owner.history, path, owner.options, owner.disk) as copy:
            assert durable_lsn <= copy.journal.last_lsn == report.lsn

    def _crash(self, data: st.DataObject, power: bool) -> None:
        super()._crash(data, power)
        for path, content in self.backups.items():
            assert not content or files(self.owner.disk, path) == content, "a backup is durable"

    def _recover(self, data: st.DataObject) -> None:
        super()._recover(data)
        self.owner.read()


@pytest.mark.slow
def test_any_crash_is_recovered() -> None:
    """P1, P2, P3, P5, P6: Every crash and every fault is recovered, wherever it strikes."""
    examples = 4 * settings().max_examples
    run_state_machine_as_test(
        CrashLedger, settings=settings(max_examples=examples, stateful_step_count=30)
    )

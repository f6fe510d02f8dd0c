"""Crashes of a composite: every crash of a workload, and random ones, on the simulated disk."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from proof.ledger import Ledger

from journal import Composite, pack
from journal._tables.keys import encode_key
from journal._tables.machine import ROWS, TablesMachine
from journal._tables.values import pack_value
from journal.testing import BrokenPromiseError, Owner, explore
from journal.testing.machine import CrashMachine
from tests.support import Table
from tests.tiers import examples


def make() -> Composite:
    """Return a composite of three kinds of machines."""
    return Composite(ledger=Ledger(), rows=TablesMachine(), table=Table())


def row(key: Any, value: Any) -> list[Any]:
    """Return a record of the part `rows`; a value of `...` removes the key."""
    return [ROWS, ["t", encode_key(key), None if value is ... else pack_value(value)]]


KEYS = st.sampled_from(["a", "b", ("a", 1)])
VALUES = st.sampled_from([1, b"\xff", {1: 2}, ",\n", ...])
RECORDS = (
    st.tuples(st.just("ledger"), st.tuples(st.sampled_from("ab"), st.none() | st.integers(0, 9)))
    | st.tuples(st.just("rows"), st.builds(row, KEYS, VALUES))
    | st.tuples(st.just("table"), st.tuples(st.sampled_from("ab"), st.none() | st.binary()))
)


class CrashComposite(CrashMachine[Composite]):
    """Records of three parts, in batches that mix them."""

    def new_machine(self) -> Composite:
        return make()

    def draw_record(self, draw: Any, machine: Composite) -> Any:
        name, record = draw(RECORDS)
        if name == "ledger":
            record = (*record, "")
        whole = machine.part(name, record if name == "rows" else list(record))
        return pack(whole) if draw(st.booleans()) else whole


TestCrashComposite = CrashComposite.TestCase
TestCrashComposite.settings = settings(max_examples=examples(30), stateful_step_count=20)


def work(owner: Owner[Composite]) -> None:
    """Change all parts in batches, around two checkpoints."""
    part = make().part
    owner.append_batch([part("ledger", ["a", 1, ""]), part("rows", row("a", {1: 2}))])
    owner.wait()
    owner.append_batch([part("rows", row("b", b"\xff")), part("table", ["a", 1])])
    owner.compact()
    owner.append_batch([part("table", ["a", None]), part("rows", row("a", ...))])
    owner.append(part("ledger", ["a", None, ""]))
    owner.reopen()
    owner.append_batch([part("ledger", ["b", 1, ""]), part("rows", row("b", "changed"))])
    owner.compact()
    owner.reopen()


def test_every_crash_of_a_workload() -> None:
    """P1 to P6: Each crash leaves a prefix of the batches, of all parts or of none."""
    assert explore(make, work).states > 500


class Forgetful(Table):
    """A machine whose `load` omits the values of items."""

    def load(self, item: Any) -> None:
        super().load([item[0], 0])

    def freeze(self) -> Any:
        return iter([[key] for key in self.rows])


def test_data_that_a_part_leaves_out_is_noticed() -> None:
    """P6: The crash tests compare the parts, too, so data that `load` omits is noticed."""
    with Owner(lambda: Composite(table=Table(), forgetful=Forgetful())) as owner:
        owner.append(["forgetful", ["a", 1]])
        owner.compact()
        with pytest.raises(BrokenPromiseError, match=r"Forgetful\.rows"):
            owner.reopen()

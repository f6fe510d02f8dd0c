"""Calls that run a function again after a conflict, with others' writes at every point."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal import ConflictError, InterruptedCallError, Tables, Transaction
from journal._tables.publisher import Publisher
from tests.crash.crash_support import every_choice
from tests.support import TIMEOUT_S
from tests.tables.interleavings import LARGE, Body, Model, Run, Step, seen_by, small_tables
from tests.tables.test_table_interleavings import ACTIONS, KEYS, READS, ROWS, WRITES

STEPS = st.lists(READS | WRITES, min_size=1, max_size=3).map(tuple)
OTHERS = st.lists(ACTIONS, min_size=1, max_size=3)
Interfere = Callable[[], None]  # performs some of the others' actions


def runs_with(
    rows: Model, actions: list[Step], call: Callable[[Run, Interfere], object]
) -> list[Run]:
    """Make a call once for each way in which the others' actions fall between its parts."""
    with small_tables() as (app, disk):
        runs: list[Run] = []
        for choose in every_choice():
            run, left, outside = Run(app, disk, rows, len(runs)), list(actions), copy_context()

            def interfere(
                choose: Callable[[int], int] = choose,
                run: Run = run,
                left: list[Step] = left,
                outside: Any = outside,
            ) -> None:
                for _ in range(choose(len(left) + 1) if left else 0):
                    outside.run(run.act, left.pop(0))

            call(run, interfere)
            run.check_end()
            assert app._machine.uploads.ids() == []
            runs.append(run)
        return runs


def interrupted(run: Run, body: Body, interfere: Interfere, t: Any) -> list[Any]:
    """Perform a body, with others' actions around each of its steps."""
    seen = []
    interfere()
    for shown in seen_by(lambda name: t[run.table(name)], body):
        seen.append(shown)
        interfere()
    return seen


@given(ROWS, STEPS, OTHERS)
@settings(max_examples=25)
def test_transact_among_writes_of_others(
    rows: Model, steps: tuple[Step, ...], actions: list[Step]
) -> None:
    """`transact` ends with what its function sees and writes alone, after at most one attempt for
    each change of others."""
    body = Body(steps, goes_on=True)

    def call(run: Run, interfere: Interfere) -> None:
        seen = run.app.transact(
            lambda t: interrupted(run, body, interfere, t), attempts=len(actions) + 1
        )
        run.commit(body, seen, range(run.now_s + 1))

    runs_with(rows, actions, call)


@given(ROWS, STEPS, OTHERS)
@settings(max_examples=15)
def test_a_large_update_among_writes_of_others(
    rows: Model, steps: tuple[Step, ...], actions: list[Step]
) -> None:
    """`update` with a large value ends likewise, with others' changes before each piece."""
    body = Body((*steps, ("set", "u", "x", LARGE, None)), goes_on=True)
    write_piece = Publisher._write_piece

    def call(run: Run, interfere: Interfere) -> None:
        is_inside = False  # the others' own pieces are not interrupted

        def write_after_others(self: Publisher, piece: Any) -> None:
            nonlocal is_inside
            if not is_inside:
                is_inside = True
                interfere()
                is_inside = False
            write_piece(self, piece)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Publisher, "_write_piece", write_after_others)
            seen = run.app.update(
                lambda t: list(seen_by(lambda name: t[run.table(name)], body)),
            )
        run.commit(body, seen, range(run.now_s + 1))

    runs_with(rows, actions, call)


@given(ROWS, KEYS, OTHERS)
@settings(max_examples=25)
def test_an_update_of_a_key_among_writes_of_others(
    rows: Model, key: str, actions: list[Step]
) -> None:
    """`Table.update` applies its function to the value that it replaces."""
    body = Body((("update", "t", key),))

    def call(run: Run, interfere: Interfere) -> None:
        def add(value: Any) -> int:
            interfere()
            return (value if type(value) is int else 0) + 1

        run.commit(body, [run.table("t").update(key, add)], range(run.now_s + 1))

    runs_with(rows, actions, call)


def test_threads_never_see_half_of_a_transfer(app: Tables) -> None:
    """Each transaction that commits sees the sum that the transfers of other threads keep."""
    accounts = app.table("accounts")
    for number in range(8):
        accounts[number] = 100

    def transfer(seed: int) -> None:
        generator = random.Random(seed)

        def move(t: Transaction) -> None:
            source, target = generator.sample(range(8), 2)
            t[accounts][source] -= 1
            t[accounts][target] += 1

        for _ in range(100):
            app.transact(move, attempts=1000)

    def audit(_: int) -> set[int]:
        sums = set()
        for _ in range(100):
            with suppress(ConflictError):
                with app.transaction() as t:
                    total = sum(value for _, value in t[accounts].items())
                sums.add(total)
        return sums

    with ThreadPoolExecutor(5) as pool:
        audits = pool.map(audit, range(2))
        list(pool.map(transfer, range(3)))
        assert set().union(*audits) <= {800}
    assert sum(value for _, value in accounts.items()) == 800


def test_a_sync_inside_an_update_of_tables_is_refused(app: Tables) -> None:
    """`sync` in the function of `update` raises InterruptedCallError, and nothing is written."""

    def function(t: Any) -> None:
        t[app.table("users")][1] = 1
        app.sync(timeout_s=TIMEOUT_S)

    with pytest.raises(InterruptedCallError):
        app.update(function)
    assert app.names() == []

"""The bodies of transactions: how they begin and end."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

import pytest

from journal import JournalError, Table, Tables
from journal.testing import SimulatedDisk
from tests.tables.tables_support import open_tables


def test_a_transaction_runs_once(app: Tables, users: Table) -> None:
    """A second body would write the first one's writes again, over newer values."""
    context = app.transaction()
    with context as t:
        t[users]["x"] = 1
    users["x"] = 2
    with pytest.raises(JournalError, match="begin another one"), context:
        pass
    assert users["x"] == 2


def test_a_body_may_be_left_in_another_context(app: Tables, users: Table) -> None:
    """The end of a body may run in another context than its beginning.

    A web framework does that with a generator that it runs in a pool of threads.
    """
    context = app.transaction()
    here, there = copy_context(), copy_context()
    t = here.run(context.__enter__)
    t[users]["x"] = 1
    there.run(context.__exit__, None, None, None)
    assert users["x"] == 1
    here.run(users.__setitem__, "x", 2)
    assert users["x"] == 2


def test_a_write_after_the_body_is_refused_and_never_lost(
    app: Tables, users: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even while the body's writes are being published, as by another task."""
    errors: list[Exception] = []
    with app.transaction() as t:
        t[users]["x"] = "new"
        check = t._collected.check

        def write_and_check() -> None:
            try:
                t[users]["late"] = 1
            except JournalError as error:
                errors.append(error)
            check()

        monkeypatch.setattr(t._collected, "check", write_and_check)
    assert users["x"] == "new"
    assert len(errors) == 1
    assert "late" not in users


@pytest.mark.parametrize("limit", [0, -1, 1.5, "9", True, None])
def test_a_limit_that_is_none_is_refused(disk: SimulatedDisk, limit: Any) -> None:
    """A limit that is no positive int is refused before anything is created."""
    with pytest.raises(ValueError, match="transaction_keys_max is"):
        open_tables(disk, transaction_keys_max=limit)
    open_tables(disk, transaction_keys_max=1).close()

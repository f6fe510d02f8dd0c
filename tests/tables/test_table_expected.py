"""The expected value of a conditional write: the caller's object counts when the call is made."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from journal import ConflictError, Table, Tables
from tests.support import TIMEOUT_S


def set_elsewhere(users: Table, value: Any) -> None:
    """Set the row in another thread, as a new object."""
    thread = threading.Thread(target=users.set, args=("a", value))
    thread.start()
    thread.join(TIMEOUT_S)


@pytest.mark.parametrize(("others", "is_conflict"), [([1], False), ([1, 2], True)])
def test_a_later_change_of_the_expected_value_has_no_effect(
    app: Tables, users: Table, others: list[int], is_conflict: bool
) -> None:
    """P3: A list that the caller changes after `replace` does not change what is expected."""
    users["a"], expected = [1], [1]

    def run() -> None:
        with app.transaction() as t:
            t[users].replace("a", "new", expected=expected)
            expected.append(2)
            set_elsewhere(users, others)

    if is_conflict:
        with pytest.raises(ConflictError, match="was changed"):
            run()
    else:
        run()
    assert users["a"] == (others if is_conflict else "new")


def test_no_code_of_the_caller_compares_under_the_lock(app: Tables, users: Table) -> None:
    """The `__eq__` of an expected object runs in the body, and not at the end, under the lock."""
    calls: list[str] = []

    class Expected:
        def __eq__(self, other: object) -> bool:
            calls.append("in the body" if is_body else "at the end")
            return True

        __hash__ = None  # type: ignore[assignment]

    users["a"], is_body = 1, True
    with app.transaction() as t:
        t[users].replace("a", 2, expected=Expected())
        set_elsewhere(users, 1.0)  # equal to the value that was found
        is_body = False
    assert (set(calls), users["a"]) == ({"in the body"}, 2)

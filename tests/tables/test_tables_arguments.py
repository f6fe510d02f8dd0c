"""Arguments of tables that are refused: each error names the value and the rule."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from journal import Options, RecordError, Tables
from journal._tables.machine import KEY_BYTES_MAX
from journal.testing import SimulatedDisk
from tests.tables.tables_support import open_tables

Use = Callable[[Any, Any], object]  # of tables and a table "t"
NAME = "give a str of 1 to 255 bytes in UTF-8"
TIME = "give Unix seconds from 0 to 9007199254740"


def in_transaction(app: Tables, table: Any, limit: Any) -> list[Any]:
    with app.transaction() as t:
        return list(t[table].range(limit=limit))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda app, _: app.table("\ud800"), f"'\\ud800' can't name a table: {NAME}"),
        (lambda app, _: app.table(b"t"), f"b't' can't name a table: {NAME}"),
        (lambda app, t: t.set(1, 1, expires_at=1e300), f"expires_at is 1e+300; {TIME}"),
        (lambda app, t: t.set(1, 1, expires_at=10**5000), TIME),
        (lambda app, t: t.range(limit=-1), "limit is -1, a negative number; give 0 or more"),
        (lambda app, t: t.range(limit=1.5), "limit is 1.5, of type float; give an int"),
        (lambda app, t: t.prefix("a", limit="x"), "limit is 'x', of type str; give an int"),
        (lambda app, t: in_transaction(app, t, 1.5), "limit is 1.5, of type float"),
        (lambda app, t: in_transaction(app, t, -1), "limit is -1, a negative number"),
        (lambda app, _: app.transact(len, attempts="x"), "attempts is 'x', not 1 or more"),
        (lambda app, _: app.transact(len, attempts=0), "attempts is 0, not 1 or more"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_rule(
    disk: SimulatedDisk, use: Use, message: str
) -> None:
    """A wrong argument raises TypeError or ValueError with the value and the rule."""
    with (
        open_tables(disk) as app,
        pytest.raises((TypeError, ValueError), match=re.escape(message)) as refused,
    ):
        use(app, app.table("t"))
    assert len(str(refused.value)) < 300


def test_a_limit_may_be_over_the_number_of_rows(disk: SimulatedDisk) -> None:
    """A limit of any size is allowed."""
    with open_tables(disk) as app:
        app.table("t")[1] = 1
        assert list(app.table("t").range(limit=sys.maxsize + 1)) == [(1, 1)]
        assert in_transaction(app, app.table("t"), sys.maxsize + 1) == [(1, 1)]


@pytest.mark.parametrize(
    ("read", "message"),
    [
        ({"at": -1}, "at is -1; give an LSN, an int of 0 or more"),
        ({"at": "x"}, "at is 'x'; give an LSN"),
        ({"part": 1}, "part is 1; give the name of a part, a str"),
    ],
)
def test_a_wrong_argument_of_a_read_is_refused(
    disk: SimulatedDisk, read: dict[str, Any], message: str
) -> None:
    """`Tables.read` refuses a wrong LSN or part, and a view a wrong name."""
    with open_tables(disk) as app:
        app.table("t")[1] = 1
        path = app.journal.path
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        Tables.read(path, disk=disk, **read)
    assert Tables.read(path, disk=disk, at=1 << 60).lsn == 1
    with pytest.raises(ValueError, match=NAME):
        Tables.read(path, disk=disk).table("")


def test_a_key_that_no_checkpoint_could_hold_is_refused(disk: SimulatedDisk) -> None:
    """P8: A key is refused if its line could be too long for a checkpoint, however large a record
    may be. The longest key is in the next checkpoint."""
    options = Options(record_bytes_max=32 << 20, frame_bytes_max=32 << 20)
    longest = "\0" * (KEY_BYTES_MAX - 1)  # the worst in JSON, after a byte for its type
    with Tables.open("tables", options=options, disk=disk) as app:
        table = app.table("t")
        with pytest.raises(RecordError, match="a key of table 't' takes 8388609 bytes"):
            table[longest + "\0"] = 1
        with pytest.raises(RecordError):
            app.update(lambda t: t[table].set(longest + "\0", 1))
        with pytest.raises(RecordError), app.transaction() as t:
            t[table][longest + "\0"] = 1
        table[longest] = "\0" * ((1 << 20) - 5)
        app.compact()
    with Tables.open("tables", options=options, disk=disk) as app:
        assert list(app.table("t")) == [longest]

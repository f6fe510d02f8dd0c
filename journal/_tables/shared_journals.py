"""Shared journals: machines that read the tables in a journal with the data of others.

The tables may be a part of a Composite. Or they are further kinds of records and items in the
journal of a manager of sub-agents, whose own kinds are left out here.
"""

from __future__ import annotations

from typing import Any

from journal._format.lines import lines_of
from journal._state.composite import Composite
from journal._state.state_machine import LoadsLines
from journal._tables.machine import ROWS, TablesMachine
from journal._tables.pieces import DROP, PIECE

HOST_APPLICATION = "subagents/1"
"""The application in whose journals tables are further kinds of records and items."""
_KINDS = frozenset((ROWS, PIECE, DROP))
_TABLES_HEADS = b'{"table":', b'{"piece":', b'{"upload":'
_HOST_HEAD = b'{"agent_id":'


def is_hosts_first(record: Any) -> bool:
    """Return whether the first record of a log says that the host wrote it."""
    return type(record) is list and record[:2] == ["boot", HOST_APPLICATION]


class OnePart(Composite):
    """A composite of which only one part is read."""

    def _machine(self, name: Any) -> Any:
        return self._parts.get(name, _LEFT_OUT)


class _LeftOut(LoadsLines):
    """A machine that takes everything and keeps nothing."""

    def load_lines(self, block: bytes) -> None:
        pass

    def apply(self, lsn: int, record: Any) -> None:
        pass


_LEFT_OUT = _LeftOut()


class HostReader(LoadsLines):
    """The tables in a host's journal."""

    def __init__(self, tables: TablesMachine) -> None:
        self._tables = tables

    def load_lines(self, block: bytes) -> None:
        lines = lines_of(block)
        ours = [line for line in lines if line.startswith(_TABLES_HEADS)]
        if any(not line.startswith((*_TABLES_HEADS, _HOST_HEAD)) for line in lines):
            raise ValueError("an item is neither of the host nor of tables")
        self._tables.load_lines(b"".join(ours))

    def apply(self, lsn: int, record: Any) -> None:
        """Apply a record of tables. Leave out any other kind."""
        if type(record) is not list or not record or type(record[0]) is not str:
            raise ValueError("neither a record of the host nor of tables")
        if record[0] in _KINDS:
            self._tables.apply(lsn, record)

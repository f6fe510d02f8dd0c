"""The sessions of the Agents SDK's tests, in a journal. See tools/proof/clients.py."""

from __future__ import annotations

import inspect
import re
import tempfile
from pathlib import Path
from typing import Any

import agents
import agents.extensions.memory.encrypt_session  # it takes no other store for a SQLiteSession
import agents.memory
import agents.memory.sqlite_session

from journal import Options, Tables
from journal.adapters.openai_agents import JournalSession

# Tests of SQLite itself: its connections, locks and rows, subclasses that use them, and what the
# SDK's EncryptedSession does with no other store.
_OF_SQLITE = re.compile(
    r"sqlite3|_file_lock|_get_connection|_locked_connection|_write_connection|\._lock\b|_insert_items"
    r"|connections_of_live|SQLiteSession is closed|class \w+\(SQLiteSession\)|CustomSession\("
    r"|AsyncSQLiteSession\(|encrypted_pop_(wrong_key|rechecks|cancellation)"
)
_SESSION_FIXTURES = {"backend", "underlying_session"}
_opened: dict[Path, Tables] = {}


def _tables_at(path: Path) -> Tables:
    """Return the tables at a path, opened once."""
    if path not in _opened or _opened[path].closed:
        _opened[path] = Tables.open(path, options=Options(durability="os"))
    return _opened[path]


class TestedSession(JournalSession):
    """A JournalSession that is made as the SDK's SQLiteSession."""

    def __init__(
        self, session_id: str, db_path: Any = ":memory:", *_: Any, session_settings: Any = None
    ) -> None:
        folder = tempfile.mkdtemp() if db_path == ":memory:" else db_path
        self.db_path = db_path
        tables = _tables_at(Path(folder))
        super().__init__(session_id, tables, session_settings=session_settings)

    def close(self) -> None:
        """Do nothing: other sessions use the same tables."""


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Leave out the tests of SQLite itself, and those without a session."""

    def is_wanted(item: Any) -> bool:
        source = inspect.getsource(item.function)
        has_session = "SQLiteSession(" in source or _SESSION_FIXTURES & {*item.fixturenames}
        is_other = "async-sqlite" in item.name or _OF_SQLITE.search(source)
        return bool(has_session) and not is_other

    items[:] = filter(is_wanted, items)


# The tests import the name from these modules.
agents.SQLiteSession = TestedSession  # type: ignore[misc,unused-ignore]
agents.memory.SQLiteSession = TestedSession  # type: ignore[misc,unused-ignore]
agents.memory.sqlite_session.SQLiteSession = TestedSession  # type: ignore[misc,unused-ignore]

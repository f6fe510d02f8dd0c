"""Renderer: the options for output: format, time zone, redacted fields, decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from _journal_console.text import local_time

from journal import LargeRecord
from journal_inspect.rendering.kinds import field_names, tables_record_of, writes_of
from journal_inspect.rendering.objects import JSON, Format, is_json, plain

if TYPE_CHECKING:
    from journal import Key, TableWrite

REDACTED = "[redacted]"
_STRING_CHARS = 80  # the length to which `short` cuts a string


@dataclass(slots=True)
class Renderer:
    """The output options of all verbs.

    `failed`: the errors that `decode` raised. `hides_bytes`: bytes may contain redacted fields, as
    the packed values of tables do, so they are hidden, too.
    """

    form: Format = "text"
    utc: bool = False
    redacted: frozenset[str] = frozenset()
    decode: Callable[[Any], Any] | None = None
    failed: list[Exception] = field(default_factory=list)
    hides_bytes: bool = False
    # The last second whose time was asked for, and its text before and after the fraction.
    _second: tuple[int | None, str, str] = (None, "", "")

    def time(self, unix_ns: int) -> str:
        """Return the time as `local_time` does. Most times are of the same second as the one asked
        for before, whose text is kept: then this takes a sixth of the time."""
        second, begin, end = self._second
        if unix_ns // 1_000_000_000 != second:
            text, second = local_time(unix_ns, utc=self.utc), unix_ns // 1_000_000_000
            if "." not in text:  # a number outside the range of the calendar
                return text
            begin, _, fraction = text.partition(".")
            end = fraction[3:]
            self._second = second, begin, end
        return f"{begin}.{unix_ns // 1_000_000 % 1000:03}{end}"

    def time_ms(self, unix_ms: int | None) -> str | None:
        return None if unix_ms is None else self.time(unix_ms * 1_000_000)

    def plain(self, value: Any) -> JSON:
        """Return `value` as a JSON value, with redacted values hidden."""
        return plain(self._hidden(value) if self.redacted else value)

    def record(self, record: Any) -> JSON:
        """Return a record as `plain` does. The positions of a manager's record have field names,
        and those of a write of tables are "table", "key" and "value"."""
        if isinstance(record, LargeRecord):
            return repr(record)
        if not self.redacted:
            return plain(record)
        of_tables = tables_record_of(record)
        if of_tables is not None and of_tables is not record:  # of a part of a Composite
            return [record[0], self.record(of_tables)]
        if of_tables and of_tables[0] == "piece":
            return plain([*of_tables[:3], REDACTED])
        if writes := writes_of(record):
            return plain([record[0], *map(self._hidden_write, record[1:], writes)])
        hidden = self._hidden(record)
        if isinstance(record, list) and record and isinstance(record[0], str):
            for place, name in enumerate(field_names(record[0]), 1):
                if name in self.redacted and place < len(record):
                    hidden[place] = REDACTED
        return plain(hidden)

    def row(self, table: str, key: Key, value: Any) -> dict[str, JSON]:
        """Return a row of a table as a checkpoint has it, with redacted values hidden."""
        from journal import row_as_json

        if not self.redacted:
            return row_as_json(table, key, value)
        is_hidden = "value" in self.redacted
        row = row_as_json(table, key, REDACTED if is_hidden else self._hidden(value))
        return {name: REDACTED if name in self.redacted else part for name, part in row.items()}

    def value(self, row: dict[str, JSON], value: Any) -> JSON:
        """Return the `value` of `row` for text output, readable even if JSON can't hold it."""
        if row.get("packed", REDACTED) == REDACTED:
            return row.get("value", REDACTED)
        return self.plain(value)

    def write(self, write: TableWrite) -> dict[str, JSON]:
        """Return a write as an object: its change, table and key, and the value if one was set."""
        row = self.row(write.table, write.key, write.value)
        if write.change != "set":
            row = {"table": row["table"], "key": row["key"]}
        return {"change": write.change, **row}

    def decoded(self, record: Any) -> JSON:
        """Return the result of the user's decoder for a record; None if it raises."""
        assert self.decode is not None
        try:
            value = self.decode(record)
            plain_value = self.plain(value)
            return plain_value if is_json(plain_value) else str(value)
        except Exception as error:  # the user's code may raise anything
            self.failed.append(error)
            return None

    def _hidden(self, value: Any) -> Any:
        """Return `value` with redacted fields replaced, at any depth of its maps."""
        if isinstance(value, dict):
            return {
                key: REDACTED if key in self.redacted else self._hidden(item)
                for key, item in value.items()
            }
        if self.hides_bytes and isinstance(value, bytes):
            return REDACTED
        return [self._hidden(item) for item in value] if isinstance(value, list) else value

    def _hidden_write(self, packed: list[Any], write: TableWrite) -> list[Any]:
        """Return a write of a record with redacted fields replaced. A value is hidden as a whole,
        because it is packed."""
        is_shown = write.change == "removed" or (
            write.change == "set" and self._hidden(write.value) == write.value
        )
        named = zip(("table", "key", "value"), packed, strict=False)
        hidden = [REDACTED if name in self.redacted else part for name, part in named]
        return hidden if is_shown else [*hidden[:2], REDACTED]


def shortened(value: JSON) -> JSON:
    """Return `value` with its long strings cut."""
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shortened(item) for item in value]
    if isinstance(value, str) and len(value) > _STRING_CHARS:
        return f"{value[:_STRING_CHARS]}..."
    return value

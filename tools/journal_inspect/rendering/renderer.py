"""Renderer: the options for output: format, time zone, redacted fields, decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from journal_inspect.rendering.kinds import field_names
from journal_inspect.rendering.objects import JSON, Format, is_json, plain
from journal_inspect.rendering.text import local_time

REDACTED = "[redacted]"
_STRING_CHARS = 80  # the length to which `short` cuts a string


@dataclass(slots=True)
class Renderer:
    """The output options of all verbs. `failed`: the errors that `decode` raised."""

    form: Format = "text"
    utc: bool = False
    redacted: frozenset[str] = frozenset()
    decode: Callable[[Any], Any] | None = None
    failed: list[Exception] = field(default_factory=list)

    def time(self, unix_ns: int) -> str:
        return local_time(unix_ns, utc=self.utc)

    def time_ms(self, unix_ms: int | None) -> str | None:
        return None if unix_ms is None else self.time(unix_ms * 1_000_000)

    def plain(self, value: Any) -> JSON:
        """Return `value` as a JSON value, with redacted values hidden."""
        return plain(self._hidden(value) if self.redacted else value)

    def record(self, record: Any) -> JSON:
        """Return a record as `plain` does. The positions of a manager's record have field names."""
        if not self.redacted:
            return plain(record)
        hidden = self._hidden(record)
        if isinstance(record, list) and record and isinstance(record[0], str):
            for place, name in enumerate(field_names(record[0]), 1):
                if name in self.redacted and place < len(record):
                    hidden[place] = REDACTED
        return plain(hidden)

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
        return [self._hidden(item) for item in value] if isinstance(value, list) else value


def shortened(value: JSON) -> JSON:
    """Return `value` with its long strings cut."""
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shortened(item) for item in value]
    if isinstance(value, str) and len(value) > _STRING_CHARS:
        return f"{value[:_STRING_CHARS]}..."
    return value

"""Renderer: how it is all shown. The form, the zone of times, what is left out, who decodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from journal_inspect.rendering.kinds import field_names
from journal_inspect.rendering.objects import JSON, Format, is_json, plain
from journal_inspect.rendering.text import local_time

REDACTED = "[redacted]"
_STRING_CHARS = 80  # what `short` leaves of each string


@dataclass(slots=True)
class Renderer:
    """What all verbs are told of how to show things. `failed` counts what `decode` refused."""

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
        """`value` as JSON carries it, with nothing in it that is to be left out."""
        return plain(self._hidden(value) if self.redacted else value)

    def record(self, record: Any) -> JSON:
        """The same of a record; of a manager's the places of fields have names too."""
        if not self.redacted:
            return plain(record)
        hidden = self._hidden(record)
        if isinstance(record, list) and record and isinstance(record[0], str):
            for place, name in enumerate(field_names(record[0]), 1):
                if name in self.redacted and place < len(record):
                    hidden[place] = REDACTED
        return plain(hidden)

    def decoded(self, record: Any) -> JSON:
        """What the user's own decoder makes of a record; None where it raises."""
        assert self.decode is not None
        try:
            value = self.decode(record)
            shown = self.plain(value)
            return shown if is_json(shown) else str(value)
        except Exception as error:  # whatever somebody's program raises
            self.failed.append(error)
            return None

    def _hidden(self, value: Any) -> Any:
        """`value` without the fields that are to be left out, however deep they lie in maps."""
        if isinstance(value, dict):
            return {
                key: REDACTED if key in self.redacted else self._hidden(item)
                for key, item in value.items()
            }
        return [self._hidden(item) for item in value] if isinstance(value, list) else value


def shortened(value: JSON) -> JSON:
    """`value` with its long strings cut."""
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shortened(item) for item in value]
    if isinstance(value, str) and len(value) > _STRING_CHARS:
        return f"{value[:_STRING_CHARS]}..."
    return value

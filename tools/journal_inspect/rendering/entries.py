"""Entries: an entry of the log as a line of text, or as an object."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from _journal_console.text import cut, escaped, size, terminal_width

from journal import CorruptionError, Entry, JournalReader, LargeRecord
from journal_inspect.rendering.kinds import (
    FILLER_KIND,
    agent_of,
    fields_in_line,
    fields_of,
    is_agent_id,
    is_boot,
    is_managers_application,
    kind_of,
    may_have_tables,
    tables_record_of,
    writes_of,
)
from journal_inspect.rendering.messages import say
from journal_inspect.rendering.objects import JSON, dumps, encoder, plain, versioned
from journal_inspect.rendering.renderer import Renderer, shortened

if TYPE_CHECKING:
    from journal import TableWrite

_LSN_WIDTH = 8
_KIND_WIDTH = 10
_BODY_WIDTH_MIN = 72  # with less room, the body gets a line of its own
SHORT_CHARS = 120  # the length of a short line without a terminal
# The first records of tables may all be pieces of one large value.
_FIRST_RECORDS = 300


class Lines:
    """The renderer for the entries of one journal.

    `payload`: "none", "short" (cut to the terminal's width) or "full"; None: short on a terminal,
    full elsewhere.
    """

    shows_all: bool
    """True if `body` shows each record itself: nothing is redacted, and no decoder is asked."""

    def __init__(self, reader: JournalReader, renderer: Renderer, payload: str | None) -> None:
        self._reader = reader
        self._renderer = renderer
        width = terminal_width()
        self._payload = payload or ("short" if width and renderer.form == "text" else "full")
        if self._payload == "short":
            width = width or SHORT_CHARS
        self._width = None if self._payload == "full" else width
        renderer.hides_bytes = bool(renderer.redacted) and has_tables(reader)
        self.shows_all = not renderer.redacted and renderer.decode is None
        self._is_managers: bool | None = None
        self._time = (0, renderer.time(0))

    def text(self, entry: Entry) -> str:
        if entry.written_at_ns != self._time[0]:  # all entries of a frame have the same time
            self._time = (entry.written_at_ns, self._renderer.time(entry.written_at_ns))
        body = self._brief(entry) if self._payload == "none" else self.body(entry)
        head = f"{entry.lsn:>{_LSN_WIDTH}}  {entry.epoch}  {self._time[1]}"
        if self._width is None:
            return f"{head}  {body}"
        if self._width - len(head) >= _BODY_WIDTH_MIN:
            return cut(f"{head}  {body}", self._width)
        return f"{cut(head.lstrip(), self._width)}\n{cut(f'  {body}', self._width)}"

    def object(self, entry: Entry) -> JSON:
        values = versioned(lsn=entry.lsn, epoch=entry.epoch, written_at_ns=entry.written_at_ns)
        if self._payload != "none":
            record = self._renderer.record(entry.record)
            values["record"] = shortened(record) if self._payload == "short" else record
            if writes := writes_of(entry.record):
                objects = [self._renderer.write(write) for write in writes]
                values["writes"] = shortened(objects) if self._payload == "short" else objects
        values |= {"offset": entry.offset, "path": entry.path, "is_filler": entry.is_filler}
        if self._renderer.decode and self._payload != "none":
            values["decoded"] = self._renderer.decoded(entry.record)
        return values

    def body(self, entry: Entry) -> str:
        """Return the record as text, with redacted values hidden."""
        if entry.is_filler:
            return FILLER_KIND
        if self._renderer.decode:
            decoded = self._renderer.decoded(entry.record)
            if decoded is not None:
                return escaped(decoded) if isinstance(decoded, str) else dumps(decoded)
        record, is_redacted = entry.record, bool(self._renderer.redacted)
        if not is_redacted and (line := self._line(record)) is not None:
            return line  # first, because most large logs are a manager's
        if writes := writes_of(record):
            return f"{record[0]:<{_KIND_WIDTH}}  {self._writes(writes)}"
        shown = self._renderer.record(record)
        hidden_line = self._line(shown) if is_redacted else None
        return dumps(shown) if hidden_line is None else hidden_line

    def _line(self, record: Any) -> str | None:
        """Return a manager's record as text. Return None if the record or the journal is not a
        manager's."""
        fields = fields_in_line(record)
        if fields is None or not self._is_a_managers():
            return None
        encode, parts = encoder(), list[str]()
        for place, key in fields:
            value = record[place]
            if type(value) is int:
                parts.append(f"{key}{value}")
            elif type(value) is str:
                parts.append(key + encode(value))
            elif value is not None:
                parts.append(key + encode(plain(value)))
        agent_id = record[1] if record[0] != "boot" else ""
        text = escaped(f"{agent_id}  {{{', '.join(parts)}}}")
        return f"{record[0]:<{_KIND_WIDTH}}  {text}"

    def _brief(self, entry: Entry) -> str:
        if entry.is_filler:
            return FILLER_KIND
        if writes := writes_of(entry.record):
            names = dict.fromkeys(str(self._renderer.write(write)["table"]) for write in writes)
            return f"{entry.record[0]:<{_KIND_WIDTH}}  {escaped(', '.join(names))}"
        fields = self._fields(entry.record)
        agent_id = escaped(str(fields.get("agent_id", ""))) if fields else ""
        return f"{escaped(kind_of(entry.record)):<{_KIND_WIDTH}}  {agent_id}".rstrip()

    def _writes(self, writes: list[TableWrite]) -> str:
        """Return the writes of a transaction as text."""
        parts = []
        for write in writes:
            shown = self._renderer.write(write)
            place = f"{escaped(shown['table'])} {dumps(shown['key'])}"
            if write.change == "set":
                parts.append(f"{place} = {dumps(self._renderer.value(shown, write.value))}")
            else:
                is_removal = write.change == "removed"
                parts.append(f"{place} {'removed' if is_removal else '= (not in this record)'}")
        return "; ".join(parts)

    def _fields(self, record: Any) -> dict[str, Any] | None:
        """Return the fields by name, or None if the record or the journal is not a manager's."""
        fields = fields_of(record)
        return fields if fields is not None and self._is_a_managers() else None

    def _is_a_managers(self) -> bool:
        if self._is_managers is None:
            self._is_managers = is_managers(self._reader)
        return self._is_managers


def report_large(reader: JournalReader, entry: Entry) -> bool:
    """Return whether the record is a LargeRecord, which can't be shown. If so, say it on stderr."""
    if type(entry.record) is not LargeRecord:
        return False
    say(
        f"{reader.path}: LSN {entry.lsn} is left out: its record of "
        f"{size(entry.record.size_bytes)} would take {size(entry.record.memory_bytes)} of "
        "memory; to show it, give a larger --memory-max"
    )
    return True


def has_tables(reader: JournalReader) -> bool:
    """Return whether the journal may have tables, alone or beside other data.

    The checkpoints state it, or else one of the first records is of a kind that tables have.
    """
    application = reader.application
    if application is not None:
        return may_have_tables(application)
    with suppress(CorruptionError):  # the caller reports it when it reads on
        first = islice(reader.entries(), _FIRST_RECORDS)
        return any(tables_record_of(entry.record) for entry in first)
    return False


def is_managers(reader: JournalReader) -> bool:
    """Return whether a manager, of whatever version, wrote the journal.

    The checkpoints state it, or else the first record. In a journal of salvaged records, the first
    record may be of any kind.
    """
    application = reader.application
    if application is not None:
        return is_managers_application(application)
    first = None
    with suppress(CorruptionError):  # the caller reports it when it reads on
        first = next(reader.entries(), None)
    if first is None or fields_of(first.record) is None:
        return False
    agent_id = agent_of(first.record)
    return is_agent_id(agent_id) if agent_id else is_boot(first.record)

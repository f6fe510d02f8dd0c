"""log: the entries, as they are read."""

from __future__ import annotations

from collections.abc import Iterator

from journal import CompactedError, CorruptionError, Entry, JournalReader
from journal_inspect.exits import FINE, NEGATIVE
from journal_inspect.objects import Format, as_object, dumps, plain, put_objects
from journal_inspect.text import local_time, put_lines, say

_FOLLOWED = 10  # entries that `-f` begins with, as tail and journalctl do
_LSN_WIDTH = 8


def show_log(
    reader: JournalReader,
    form: Format,
    *,
    count: int | None,
    reverse: bool,
    follow: bool,
    from_lsn: int | None,
    to_lsn: int | None,
) -> int:
    """`from_lsn` and `to_lsn` are shown too. Raises CompactedError if `from_lsn` is gone."""
    if follow and count is None and from_lsn is None:
        count = _FOLLOWED
    after = None if from_lsn is None else from_lsn - 1
    if count is not None:
        # LSNs are dense, so the last entries are found without a look at those before.
        first_lsns, last_lsn = reader.first_lsns, reader.last_lsn
        after = max(after or 0, min(to_lsn or last_lsn, last_lsn) - count)
        after = max(after, first_lsns[0] - 1) if first_lsns and from_lsn is None else after
        to_lsn = to_lsn if follow else min(to_lsn or last_lsn, last_lsn)
    if reverse:
        entries = _backward(reader, after, to_lsn, is_asked=from_lsn is not None)
    else:
        entries = _forward(reader, after, to_lsn, follow)
    if form == "text":
        shown = put_lines(map(_line, entries), flush=follow)
    else:
        shown = put_objects(map(as_object, entries), form, flush=follow)
    if not shown:
        say(f"{reader.path}: no entry there")
        return NEGATIVE
    return FINE


def _line(entry: Entry) -> str:
    time, record = local_time(entry.written_at_ns), dumps(plain(entry.record))
    return f"{entry.lsn:>{_LSN_WIDTH}}  {entry.epoch}  {time}  {record}"


def _forward(
    reader: JournalReader, after: int | None, to_lsn: int | None, follow: bool
) -> Iterator[Entry]:
    if to_lsn is not None and to_lsn <= (after or 0):
        return
    for entry in reader.entries(after, follow=follow):
        if to_lsn is not None and entry.lsn > to_lsn:
            return
        yield entry
        if entry.lsn == to_lsn:
            return


def _backward(
    reader: JournalReader, after: int | None, to_lsn: int | None, is_asked: bool
) -> Iterator[Entry]:
    """The newest first. Holds the entries of one segment at a time. `is_asked`: where it is to
    end, so that it matters whether that is kept."""
    first_lsns = reader.first_lsns
    if is_asked and (after or 0) + 1 < min(first_lsns, default=1):
        next(reader.entries(after), None)  # raises what it has to say of what is gone
    for first_lsn in reversed(first_lsns):
        found: list[Entry] = []
        damage: CorruptionError | None = None
        try:
            found.extend(_forward(reader, max(first_lsn - 1, after or 0), to_lsn, follow=False))
        except CorruptionError as error:
            damage = error  # after what is good before it
        except CompactedError:
            if is_asked:
                raise
            return  # while it went back, the log's beginning came nearer
        yield from reversed(found)
        if damage:
            raise damage
        to_lsn = first_lsn - 1 if to_lsn is None else min(to_lsn, first_lsn - 1)

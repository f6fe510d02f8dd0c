"""log --frames: show the frames in the segments: headers, marks, damage, dead frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import accumulate

from _journal_console.exits import FINE, NEGATIVE
from _journal_console.text import cut, escaped, painted, put_lines, terminal_width

from journal import FrameInfo, JournalReader
from journal_inspect.commands.log import Wanted
from journal_inspect.diagnosis.retention import describe_kept
from journal_inspect.rendering.entries import SHORT_CHARS, has_tables
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.objects import JSON, dumps, put_objects, versioned
from journal_inspect.rendering.renderer import Renderer, shortened

_HEADER = (
    *(f"{'OFFSET':>10}", f"{'BYTES':>8}", f"{'STATE':<7}", f"{'FIRST LSN':>9}", f"{'COUNT':>6}"),
    *(f"{'DURABLE':>8}", f"{'HEADER CRC':<10}", f"{'PAYLOAD CRC':<11}", f"{'WRITTEN':<29}"),
)


def show_frames(reader: JournalReader, renderer: Renderer, wanted: Wanted) -> int:
    """Print the frames, with their CRCs in hexadecimal, and return the exit code."""
    states: set[str] = set()
    renderer.hides_bytes = bool(renderer.redacted) and has_tables(reader)

    def frames() -> Iterator[FrameInfo]:
        for info in _wanted(reader, renderer, wanted):
            states.add(info.state)
            yield info

    if renderer.form == "text":
        put_lines(_lines(frames(), renderer, wanted.payload))
    else:
        objects = (_object(info, renderer, wanted.payload) for info in frames())
        put_objects(objects, renderer.form)
    if not states:
        say(
            f"{reader.path}: no frame matches; {describe_kept(reader)}; see what is in it: "
            f"{command('info', reader.path)}"
        )
        return NEGATIVE
    if "damaged" in states or "garbage" in states:
        say(
            f"{reader.path}: some bytes are not a whole frame; to see whether that is damage or a "
            f"torn tail: {command('verify', reader.path)}"
        )
        return NEGATIVE
    return FINE


def _wanted(reader: JournalReader, renderer: Renderer, wanted: Wanted) -> Iterator[FrameInfo]:
    if wanted.count is None:
        return _between(reader, renderer, wanted, (wanted.from_lsn or 1) - 1)
    for first_lsn in reversed(reader.first_lsns):  # read as few segments as possible
        after = max(first_lsn, wanted.from_lsn or 1) - 1
        last_frames = deque(_between(reader, renderer, wanted, after), wanted.count)
        if len(last_frames) == wanted.count or after >= first_lsn:
            return iter(last_frames)
    return iter(deque(_between(reader, renderer, wanted, (wanted.from_lsn or 1) - 1), wanted.count))


def _between(
    reader: JournalReader, renderer: Renderer, wanted: Wanted, after: int
) -> Iterator[FrameInfo]:
    since_ns = wanted.since.unix_ns(utc=renderer.utc) if wanted.since else 0
    until_ns = wanted.until.unix_ns(utc=renderer.utc) if wanted.until else None
    for info in reader.frames(after):
        if wanted.to_lsn and info.first_lsn > wanted.to_lsn:
            continue
        if info.state == "garbage" or (
            info.written_at_ns >= since_ns and (until_ns is None or info.written_at_ns <= until_ns)
        ):
            yield info


def _lines(frames: Iterator[FrameInfo], renderer: Renderer, payload: str | None) -> Iterator[str]:
    path, columns = "", _columns()
    for info in frames:
        if info.path != path:
            path = info.path
            yield escaped(path)
            yield "  ".join(_HEADER[:columns]).rstrip()
        cells = [f"{info.offset:>10}", f"{info.size_bytes:>8}"]
        cells.append(painted(info.state, f"{info.state:<7}"))
        if info.state != "garbage":
            cells += [f"{info.first_lsn:>9}", f"{info.count:>6}", f"{info.durable_lsn:>8}"]
            cells += [f"{info.header_crc:08x}  ", f"{info.payload_crc:08x}   "]
            cells.append(renderer.time(info.written_at_ns))
        yield "  ".join(cells[:columns]).rstrip()
        if payload in ("short", "full"):
            width = None if payload == "full" else terminal_width() or SHORT_CHARS
            for lsn, record in enumerate(info.records or (), info.first_lsn):
                yield cut(f"{lsn:>12}  {dumps(renderer.record(record))}", width)


def _columns() -> int:
    """Return how many columns, from the left, fit the terminal."""
    width, ends = terminal_width(), accumulate(len(name) + 2 for name in _HEADER)
    return sum(width is None or end - 2 <= width for end in ends)


def _object(info: FrameInfo, renderer: Renderer, payload: str | None) -> JSON:
    fields = versioned(
        path=info.path,
        epoch=info.epoch,
        offset=info.offset,
        size_bytes=info.size_bytes,
        state=info.state,
    )
    if info.state != "garbage":
        fields |= {
            "first_lsn": info.first_lsn,
            "last_lsn": info.last_lsn,
            "count": info.count,
            "durable_lsn": info.durable_lsn,
            "written_at_ns": info.written_at_ns,
            "header_crc32c": f"{info.header_crc:08x}",
            "payload_crc32c": f"{info.payload_crc:08x}",
        }
    if payload in ("short", "full") and info.records is not None:
        records = [renderer.record(record) for record in info.records]
        fields["records"] = shortened(records) if payload == "short" else records
    return fields

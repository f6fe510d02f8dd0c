"""Text: lines for people, with nothing in them that a terminal would obey.

What a journal holds was written by anybody. Every character that does not print, the controls
C0 and C1 and those that turn a line's direction among them, leaves here as a JSON escape.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_COLOURS = {
    **dict.fromkeys(("damaged", "corruption", "failed"), "red"),
    **dict.fromkeys(("torn", "torn_tail", "bad_checkpoint", "stray", "interrupted"), "yellow"),
    **dict.fromkeys(("active", "running"), "green"),
}


def say(message: str) -> None:
    """A message, on stderr, behind the data that came before it."""
    with suppress(OSError):  # if nobody listens, that is told where it matters
        sys.stdout.flush()
    with suppress(OSError):
        print(f"journal-inspect: {escaped(message)}", file=sys.stderr)


def escaped(text: str) -> str:
    """`text` with what does not print written as a JSON string may have it."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    # Two for what lies beyond 16 bits, as JSON has it.
    return "\\u" + character.encode("utf-16-be", "surrogatepass").hex(":", 2).replace(":", "\\u")


def put_lines(lines: Iterable[str], *, flush: bool = False) -> int:
    """Each as it comes; how many they were."""
    count = 0
    for line in lines:
        print(line, flush=flush)
        count += 1
    return count


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Lines of aligned columns: numbers to the right, all else to the left."""
    from rich.cells import cell_len

    cells = [[escaped("-" if cell is None else str(cell)) for cell in row] for row in rows]
    columns = list(zip(header, *cells, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    to_right = [all(cell == "-" or cell.isdecimal() for cell in column[1:]) for column in columns]
    for line in (header, *cells):
        padded = []
        for cell, width, right in zip(line, widths, to_right, strict=True):
            space = " " * (width - cell_len(cell))
            padded.append(space + painted(cell) if right else painted(cell) + space)
        yield "  ".join(padded).rstrip()


def painted(word: str, shown: str | None = None) -> str:
    """`shown`, or the word itself, in the word's colour, if it has one and there is any."""
    shown = shown or word
    if word not in _COLOURS or not is_coloured():
        return shown
    from click import style

    return style(shown, fg=_COLOURS[word])


def is_coloured() -> bool:
    """Colour is for people: on a terminal that has it, and not if NO_COLOR is set."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def local_time(unix_ns: int) -> str:
    """ISO 8601 in the local zone, to the millisecond; a number that is no time as it is."""
    try:
        time = datetime.fromtimestamp(unix_ns // 1_000_000 / 1000).astimezone()
    except (ValueError, OverflowError, OSError):
        return str(unix_ns)
    return time.isoformat(timespec="milliseconds")


def size(size_bytes: int) -> str:
    """In the largest unit of which it has one: `1.5 MiB`."""
    unit = min(max(0, size_bytes.bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{size_bytes / 1024**unit:.1f} {_UNITS[unit]}" if unit else f"{size_bytes} B"


def age(seconds: float) -> str:
    """In the largest unit of which it has one; 0 for a time that a clock has put ahead."""
    for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)} {unit}"
    return f"{max(0, int(seconds))} s"

"""Text: lines for people, with nothing in them that a terminal would obey.

What a journal holds was written by anybody. Every character that does not print, the controls
C0 and C1 and those that turn a line's direction among them, leaves here as a JSON escape.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TextIO

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_CELL_MIN = 12
_FOLDED_MIN = 32  # as long as the longest word that is usual there, a time
_COLOURS = {
    **dict.fromkeys(("damaged", "corruption", "failed", "garbage", "lost", "removed"), "red"),
    **dict.fromkeys(("torn", "torn_tail", "bad_checkpoint", "stray", "interrupted"), "yellow"),
    **dict.fromkeys(("dead", "cut", "budget_exhausted", "changed"), "yellow"),
    **dict.fromkeys(("active", "running", "added"), "green"),
}


def say(message: str) -> None:
    """A message, on stderr, behind the data that came before it."""
    with suppress(OSError):  # if nobody listens, that is told where it matters
        sys.stdout.flush()
    with suppress(OSError):
        print(f"journal-inspect: {escaped(message)}", file=sys.stderr)


@contextmanager
def showing_log_messages() -> Iterator[None]:
    """Say what the engine warns of. For verbs that write: `logging` takes a while to import."""
    import logging

    class Messages(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    messages, log = Messages(logging.WARNING), logging.getLogger("journal")
    log.addHandler(messages)
    try:
        yield
    finally:
        log.removeHandler(messages)


def escaped(text: str) -> str:
    """`text` with what does not print written as a JSON string may have it."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    # Two for what lies beyond 16 bits, as JSON has it.
    return "\\u" + character.encode("utf-16-be", "surrogatepass").hex(":", 2).replace(":", "\\u")


def put_lines(lines: Iterable[str]) -> int:
    """Each as it comes; how many they were."""
    count = 0
    for line in lines:
        print(line)
        count += 1
    return count


def put_facts(facts: Iterable[tuple[str, object]]) -> None:
    put_lines(fact_lines(facts))


def fact_lines(
    facts: Iterable[tuple[str, object]], *, indent: str = "", name_width: int = 0
) -> Iterator[str]:
    """Names and values, in two columns; None is a dash. On a terminal long values go on below."""
    shown = [(name, escaped("-" if value is None else str(value))) for name, value in facts]
    width = max(name_width, *(len(name) for name, _ in shown), 0)
    for name, value in shown:
        head = f"{indent}{name:<{width}}  "
        if _is_below(value, len(head)):
            yield f"{indent}{name}"
            yield from (f"{indent}    {line}" for line in wrapped(value, indent=len(indent) + 4))
            continue
        first, *more = wrapped(value, indent=len(head))
        yield f"{head}{painted(value, first)}".rstrip()
        yield from (f"{'':<{len(head)}}{line}".rstrip() for line in more)


def _is_below(value: str, indent: int) -> bool:
    """Whether a word of it has no room on a line with its name."""
    columns = terminal_width()
    return columns is not None and max(map(len, value.split(" "))) > columns - indent


def wrapped(text: str, *, indent: int) -> list[str]:
    """`text` in lines that fit the terminal behind `indent`, broken at spaces. A word is never
    broken: what does not fit is left to the terminal, from which it can be copied whole."""
    columns = terminal_width()
    if columns is None or len(text) * 2 <= columns - indent:  # no character takes more than two
        return [text]
    from rich.cells import cell_len

    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        if line and cell_len(line) + 1 + cell_len(word) > columns - indent:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def terminal_width(stream: TextIO | None = None) -> int | None:
    """In columns; None where `stream` (None: stdout) is no terminal, so that nothing need fit."""
    stream = stream or sys.stdout
    if not stream.isatty():
        return None
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def cut(text: str, width: int | None) -> str:
    """`text`, or as much of it as `width` columns hold with dots at its end."""
    if width is None or (text.isascii() and len(text) <= width):
        return text
    if text.isascii():
        return text[: max(0, width - 3)] + "..."
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 3)) + "..."


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    flexible: Collection[str] = (),
    optional: Sequence[str] = (),
    folded: str | None = None,
) -> Iterator[str]:
    """Lines of aligned columns: numbers to the right, all else to the left.

    On a terminal they fit its width: first `flexible` columns are cut, then `optional` ones left
    out, the first of them first. Where that is not enough each row is a block of lines. Of the
    column `folded`, the last, nothing is cut: it goes on below.
    """
    from rich.cells import cell_len

    cells = [[escaped("-" if cell is None else str(cell)) for cell in row] for row in rows]
    columns = dict(zip(header, zip(*cells, strict=True), strict=False)) if cells else {}
    widths = {
        name: max(map(cell_len, (name, *columns.get(name, ()))), default=0) for name in header
    }
    least = dict.fromkeys(flexible, _CELL_MIN) | ({folded: _FOLDED_MIN} if folded else {})
    if not _fit(widths, least, optional):
        for row in cells:
            yield from _block(header, row)
        return
    to_right = {name for name in widths if all(map(_is_number, columns.get(name, ())))}
    indent = sum(widths[name] + 2 for name in widths if name != folded)
    for line in (header, *cells):
        padded, below = [], list[str]()
        for name, cell in zip(header, line, strict=True):
            if name not in widths:
                continue
            if name == folded:
                cell, *below = wrapped(cell, indent=indent)
            elif name in flexible:
                cell = cut(cell, widths[name])
            space = " " * (widths[name] - cell_len(cell))
            shown = painted(cell)
            padded.append(space + shown if name in to_right else shown + space)
        yield "  ".join(padded).rstrip()
        yield from (f"{'':<{indent}}{part}" for part in below)


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.isdecimal()


def _block(header: Sequence[str], row: Sequence[str]) -> Iterator[str]:
    """A row whose first cell is a heading, with those that say something below it."""
    heading = f"{header[0]} {row[0]}".strip()
    yield heading if len(heading) <= (terminal_width() or 0) else row[0]
    facts = [(name, cell) for name, cell in zip(header[1:], row[1:], strict=True) if cell != "-"]
    yield from fact_lines(facts, indent="  ")


def _fit(widths: dict[str, int], least: Mapping[str, int], optional: Sequence[str]) -> bool:
    """Make `widths` narrower, or fewer, until the terminal holds them; False if it never will."""
    wanted = terminal_width()
    droppable = [name for name in optional if name in widths]
    while wanted is not None:
        excess = sum(widths.values()) + 2 * (len(widths) - 1) - wanted
        cuttable = {name: widths[name] for name in least if widths.get(name, 0) > least[name]}
        slack = sum(width - least[name] for name, width in cuttable.items())
        if excess <= 0:
            return True
        if droppable and slack < excess:
            del widths[droppable.pop(0)]
        elif cuttable:
            widest = max(cuttable, key=cuttable.__getitem__)
            widths[widest] -= 1
        else:
            return False
    return True


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


def local_time(unix_ns: int, *, utc: bool = False) -> str:
    """ISO 8601 in the local zone, or UTC, to the millisecond; a number that is no time as it is."""
    try:
        time = datetime.fromtimestamp(unix_ns // 1_000_000 / 1000, UTC)
        if not utc:
            time = time.astimezone()
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


def count_of(number: int, what: str) -> str:
    """`1 record`, `2 records`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def command(*words: object) -> str:
    """What to type next, as a shell takes it."""
    from shlex import join

    return join(["journal-inspect", *map(str, words)])

"""Text: lines for people, without characters that control a terminal.

The data is untrusted. Every character that does not print, such as the C0 and C1 control
characters, those that change the text direction, and invisible ones, is written as a JSON escape.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain
from typing import TextIO
from unicodedata import category, east_asian_width

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# What `str.isprintable` lets pass, although it takes no place or looks like a space.
_INVISIBLE = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    r"\U000e0100-\U000e01ef]"
)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
# A command in a message ends at a semicolon that is in no quoted word.
_COMMAND = re.compile(
    r"""(?<=: )((?:journal-inspect|subagents) (?:'[^']*'|"[^"]*"|(?!; )[^'"])+)"""
)
_failed: list[tuple[TextIO, OSError]] = []  # the last stream that `say` could not flush
_CELL_MIN = 12
_FOLDED_MIN = 32  # room for the longest usual word, a time
_COLORS = {
    **dict.fromkeys(("damaged", "corruption", "failed", "garbage", "lost", "removed"), "red"),
    **dict.fromkeys(("torn", "torn_tail", "bad_checkpoint", "stray", "interrupted"), "yellow"),
    **dict.fromkeys(("dead", "cut", "budget_exhausted", "changed"), "yellow"),
    **dict.fromkeys(("active", "running", "added"), "green"),
}


def say(program: str, message: str) -> None:
    """Print a message of a program to stderr, after the data that was printed before it."""
    try:
        sys.stdout.flush()
    except OSError as error:  # reported at the end, by `flush_stdout`
        # A copy, because the error refers to the one that is handled now, and to its frames.
        _failed[:] = [(sys.stdout, OSError(error.errno, error.strerror, error.filename))]
    with suppress(OSError):  # the reader or the terminal has gone
        for line in _message_lines(f"{program}: {escaped(message)}", terminal_width(sys.stderr)):
            print(line, file=sys.stderr)


def flush_stdout() -> None:
    """Flush stdout. Raise the error that a flush before a message had, because stdout has discarded
    a part of the data since then."""
    sys.stdout.flush()
    while _failed:
        stream, error = _failed.pop()
        if stream is sys.stdout:
            raise error


def _message_lines(text: str, columns: int | None) -> list[str]:
    """Return a message in lines that fit `columns` (None: one line), with words and commands
    whole, so that a command can be copied."""
    if columns is None or width(text) <= columns:
        return [text]
    units: list[str] = []
    for number, part in enumerate(_COMMAND.split(text)):
        if number % 2:
            units.append(part)
            continue
        if number and part.startswith(";"):
            units[-1] += ";"
            part = part[1:]
        if part := part.strip(" "):
            units += part.split(" ")
    lines, line = list[str](), " ".join(units[:2])  # the program and a path, however long
    for unit in units[2:]:
        if width(line) + 1 + width(unit) > columns:
            lines.append(line)
            line = f"  {unit}"
        else:
            line = f"{line} {unit}"
    return [*lines, line]


@contextmanager
def showing_log_messages(program: str, *loggers: str) -> Iterator[None]:
    """Print the warnings of these loggers. Importing `logging` is slow, so only commands that write
    use this. The messages go to the `sys.stderr` of that moment, which a live progress bar may have
    replaced."""
    import logging

    class Messages(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(program, record.getMessage())

    messages, logs = Messages(logging.WARNING), [logging.getLogger(name) for name in loggers]
    for log in logs:
        log.addHandler(messages)
    try:
        yield
    finally:
        for log in logs:
            log.removeHandler(messages)


def escaped(text: str) -> str:
    """Return `text` with the characters that don't print as JSON escapes."""
    if text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    return "".join(map(_escaped, text))


def one_line(text: str) -> str:
    """Return a text of any number of lines as one, without the newline at its end."""
    return escaped(text.removesuffix("\n"))


def _escaped(character: str) -> str:
    if character.isprintable() and not _INVISIBLE.match(character):
        return character
    if short := _SHORT.get(character):
        return short
    # Two escapes for a character beyond 16 bits, as in JSON.
    return "\\u" + character.encode("utf-16-be", "surrogatepass").hex(":", 2).replace(":", "\\u")


def width(text: str) -> int:
    """Return the number of columns that `text`, which is printable, takes on a terminal."""
    return len(text) if text.isascii() else sum(map(_width_of, text))


def _width_of(character: str) -> int:
    if category(character) in ("Mn", "Me"):
        return 0  # an accent on the character before it
    return 2 if east_asian_width(character) in "WF" else 1


def put_lines(lines: Iterable[str]) -> int:
    """Print the lines as they arrive, and return their number."""
    count = 0
    write = sys.stdout.write  # `print` would write the newline in a call of its own
    for line in lines:
        write(f"{line}\n")
        count += 1
    return count


def put_facts(facts: Iterable[tuple[str, object]]) -> None:
    put_lines(fact_lines(facts))


def fact_lines(
    facts: Iterable[tuple[str, object]], *, indent: str = "", name_width: int = 0
) -> Iterator[str]:
    """Yield names and values in two columns. A dash stands for None.

    On a terminal, long values are wrapped.
    """
    cells = [(name, escaped("-" if value is None else str(value))) for name, value in facts]
    width = max(name_width, *(len(name) for name, _ in cells), 0)
    for name, value in cells:
        head = f"{indent}{name:<{width}}  "
        if _is_too_wide(value, len(head)):
            yield f"{indent}{name}"
            yield from (f"{indent}    {line}" for line in wrapped(value, indent=len(indent) + 4))
            continue
        first, *more = wrapped(value, indent=len(head))
        yield f"{head}{painted(value, first)}".rstrip()
        yield from (f"{'':<{len(head)}}{line}".rstrip() for line in more)


def _is_too_wide(value: str, indent: int) -> bool:
    """Return whether a word of `value` does not fit on the line after its name."""
    columns = terminal_width()
    return columns is not None and max(map(len, value.split(" "))) > columns - indent


def wrapped(text: str, *, indent: int) -> list[str]:
    """Return `text` in lines that fit the terminal after `indent`, broken at spaces.

    A word is never broken. If it is too long, the terminal wraps it, and it can be copied whole.
    """
    columns = terminal_width()
    if columns is None or len(text) * 2 <= columns - indent:  # a character has two at most
        return [text]
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        if line and width(line) + 1 + width(word) > columns - indent:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def terminal_width(stream: TextIO | None = None) -> int | None:
    """Return the columns of `stream` (None: stdout), or None if it is not a terminal."""
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


def cut(text: str, columns: int | None) -> str:
    """Return `text`, cut to `columns` and ended with dots if it is longer."""
    if columns is None or (text.isascii() and len(text) <= columns):
        return text
    if text.isascii():
        return f"{text[: max(0, columns - 3)]}..."[: max(0, columns)]
    if width(text) <= columns:
        return text
    end, taken = 0, 0
    while (taken := taken + _width_of(text[end])) <= columns - 3:
        end += 1
    return f"{text[:end]}..."[: max(0, columns)]


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    flexible: Collection[str] = (),
    optional: Sequence[str] = (),
    folded: str | None = None,
) -> Iterator[str]:
    """Yield the lines of a table: columns of numbers right-aligned, others left-aligned.

    On a terminal the table fits the width. First `flexible` columns are cut, then `optional` ones
    are left out, in their order. If that is not enough, each row becomes a block of lines. The last
    column, `folded`, is wrapped and never cut.
    """
    cells = [[escaped("-" if cell is None else str(cell)) for cell in row] for row in rows]
    columns = dict(zip(header, zip(*cells, strict=True), strict=False)) if cells else {}
    widths = {name: _widest((name, *columns.get(name, ()))) for name in header}
    widest = dict(widths)
    minimums = dict.fromkeys(flexible, _CELL_MIN) | ({folded: _FOLDED_MIN} if folded else {})
    if not _fit(widths, minimums, optional):
        for row in cells:
            yield from _block(header, row)
        return
    right_aligned = {name for name in widths if all(map(_is_number, columns.get(name, ())))}
    indent = sum(widths[name] + 2 for name in widths if name != folded)
    lines = (header, *cells)
    is_plain = widths == widest and folded not in widths and not is_colored()
    if is_plain and all(map(str.isascii, chain(*lines))):
        yield from _plain_lines(lines, widths, right_aligned)
        return
    paint = painted if is_colored() else str
    for line in lines:
        padded, more_lines = [], list[str]()
        for name, cell in zip(header, line, strict=True):
            if name not in widths:
                continue
            if name == folded:
                cell, *more_lines = wrapped(cell, indent=indent)
            elif name in flexible:
                cell = cut(cell, widths[name])
            space = " " * (widths[name] - (len(cell) if cell.isascii() else width(cell)))
            colored = paint(cell)
            padded.append(space + colored if name in right_aligned else colored + space)
        yield "  ".join(padded).rstrip()
        yield from (f"{'':<{indent}}{part}" for part in more_lines)


def _plain_lines(
    lines: Iterable[Sequence[str]], widths: Mapping[str, int], right_aligned: Collection[str]
) -> Iterator[str]:
    """Yield the lines of a table of whole ASCII cells without colors, as most large ones are. This
    takes two thirds of the time."""
    formats = [
        f"{{:{'>' if name in right_aligned else '<'}{width}}}" for name, width in widths.items()
    ]
    joined = "  ".join(formats).format
    for line in lines:
        yield joined(*line).rstrip()


def _widest(cells: Sequence[str]) -> int:
    """Return the width of the widest cell. Most tables are ASCII, whose width takes one call."""
    lengths = map(len if all(map(str.isascii, cells)) else width, cells)
    return max(lengths)


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.isdecimal()


def _block(header: Sequence[str], row: Sequence[str]) -> Iterator[str]:
    """Yield a row as a block: its first cell as the heading, and its other cells if not empty."""
    heading = f"{header[0]} {row[0]}".strip()
    yield heading if len(heading) <= (terminal_width() or 0) else row[0]
    facts = [(name, cell) for name, cell in zip(header[1:], row[1:], strict=True) if cell != "-"]
    yield from fact_lines(facts, indent="  ")


def _fit(widths: dict[str, int], minimums: Mapping[str, int], optional: Sequence[str]) -> bool:
    """Reduce or remove `widths` until they fit the terminal. Return False if they can't."""
    available = terminal_width()
    droppable = [name for name in optional if name in widths]
    while available is not None:
        excess = sum(widths.values()) + 2 * (len(widths) - 1) - available
        cuttable = {name: widths[name] for name in minimums if widths.get(name, 0) > minimums[name]}
        slack = sum(width - minimums[name] for name, width in cuttable.items())
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
    """Return `shown`, or the word itself, in the word's color if colors are on."""
    shown = shown or word
    if word not in _COLORS or not is_colored():
        return shown
    from click import style

    return style(shown, fg=_COLORS[word])


def is_colored() -> bool:
    """Return whether stdout is a terminal with colors and NO_COLOR is not set."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def local_time(unix_ns: int, *, utc: bool = False) -> str:
    """Return the time in ISO 8601 to the millisecond, in the local zone or in UTC.

    A number outside the range of the calendar is returned unchanged.
    """
    unix_s, ms = divmod(unix_ns // 1_000_000, 1000)
    try:
        time = datetime.fromtimestamp(unix_s, UTC).replace(microsecond=ms * 1000)
        if not utc:
            time = time.astimezone()
    except (ValueError, OverflowError, OSError):
        return str(unix_ns)
    return time.isoformat(timespec="milliseconds")


def size(size_bytes: int) -> str:
    """Return a size in the largest unit that makes it at least 1: `1.5 MiB`."""
    unit = min(max(0, size_bytes.bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{size_bytes / 1024**unit:.1f} {_UNITS[unit]}" if unit else f"{size_bytes} B"


def age(seconds: float) -> str:
    """Return a duration in the largest unit that makes it at least 1; 0 s for a negative one."""
    for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)} {unit}"
    return f"{max(0, int(seconds))} s"


def count_of(number: int, noun: str) -> str:
    """Return `1 record`, `2 records`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

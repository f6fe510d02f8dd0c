"""Progress: a bar on stderr if that is a terminal, and nothing elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from _journal_console.text import size, terminal_width

from journal import JournalReader

Progress = Callable[[int], object]
_STEPS = 200
_WIDTH = 36
_TEXT_WIDTH = 28  # of the text beside the bar: label, percentage, remaining time
_COUNT_BYTES = 1 << 22  # between two changes of a counter
_BYTES_MIN = 1 << 26  # a smaller log takes too little time for a bar


@contextmanager
def bar(label: str, reader: JournalReader) -> Iterator[Progress | None]:
    """Yield a function to call with the number of bytes read since its last call.

    Yield None if stderr is not a terminal or the log is small.
    """
    is_dumb = os.environ.get("TERM") == "dumb"
    if is_dumb or not sys.stderr.isatty() or (total := _log_bytes(reader)) < _BYTES_MIN:
        yield None
        return
    from click import progressbar

    with progressbar(
        length=total,
        label=label,
        width=max(1, min(_WIDTH, (terminal_width(sys.stderr) or 80) - _TEXT_WIDTH)),
        file=sys.stderr,
        update_min_steps=total // _STEPS,
    ) as progress_bar:
        yield progress_bar.update
        progress_bar.update(total - progress_bar.pos)  # preallocated space is not read


@contextmanager
def counter(label: str) -> Iterator[Progress]:
    """Yield a function to call with the number of bytes handled since its last call.

    It shows their sum on stderr, if that is a terminal.
    """
    if os.environ.get("TERM") == "dumb" or not sys.stderr.isatty():
        yield lambda size_bytes: None
        return
    total, shown = 0, 0

    def count(size_bytes: int) -> None:
        nonlocal total, shown
        total += size_bytes
        if total >= shown + _COUNT_BYTES:
            shown = total
            sys.stderr.write(f"\r{label}  {size(total)}  ")
            sys.stderr.flush()

    try:
        yield count
    finally:
        if shown:
            sys.stderr.write("\r" + " " * (len(label) + _TEXT_WIDTH) + "\r")
            sys.stderr.flush()


def _log_bytes(reader: JournalReader) -> int:
    """Return the total size of the segments and checkpoints of a journal."""
    kinds = ("segment", "checkpoint")
    return sum(Path(file.path).lstat().st_size for file in reader.files() if file.kind in kinds)

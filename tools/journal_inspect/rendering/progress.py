"""Progress: a bar on stderr if that is a terminal, and nothing elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from _journal_console.text import cut, size, terminal_width

from journal import JournalReader

Progress = Callable[[int], object]
_STEPS = 200
_WIDTH = 36
_TEXT_WIDTH = 28  # of the text beside the bar: label, percentage, remaining time
_COUNT_BYTES = 1 << 22  # between two changes of a counter
_DELAY_S = 1.0  # a shorter pass needs no progress
_EVERY_S = 0.1  # between two changes of the line
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


class Counted:
    """The progress of a pass over records: a line on stderr, from a second after the start.

    It is not shown while a line of output stands on the same terminal: `clear` comes before that.
    """

    def __init__(self, label: str, reader: JournalReader) -> None:
        self._label = label
        self._reader = reader
        self._total = 0
        self._done = 0
        self._due_s = time.monotonic() + _DELAY_S
        self._is_shown = False

    def __call__(self, records: int) -> None:
        """Count records that were read."""
        self._done += records
        now_s = time.monotonic()
        if now_s < self._due_s:
            return
        self._due_s = now_s + _EVERY_S
        self._is_shown = True
        if not self._total:
            first_lsn = min(self._reader.first_lsns, default=1)
            self._total = max(1, self._reader.last_lsn - first_lsn + 1)
        share = f"{min(100, 100 * self._done // self._total)} %"
        line = f"{self._label}  {share}  {self._done} of {self._total} records"
        with suppress(OSError):
            sys.stderr.write(f"\r{cut(line, terminal_width(sys.stderr))}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line."""
        if self._is_shown:
            self._is_shown = False
            with suppress(OSError):
                sys.stderr.write(f"\r{' ' * ((terminal_width(sys.stderr) or 1) - 1)}\r")
                sys.stderr.flush()


@contextmanager
def counted(label: str, path: str) -> Iterator[Counted | None]:
    """Yield a function to call with the number of records read since its last call.

    Yield None if stderr is not a terminal.
    """
    if os.environ.get("TERM") == "dumb" or not sys.stderr.isatty():
        yield None
        return
    with JournalReader.open(path) as reader:
        shown = Counted(label, reader)
        try:
            yield shown
        finally:
            shown.clear()


def _log_bytes(reader: JournalReader) -> int:
    """Return the total size of the segments and checkpoints of a journal."""
    kinds = ("segment", "checkpoint")
    return sum(Path(file.path).lstat().st_size for file in reader.files() if file.kind in kinds)

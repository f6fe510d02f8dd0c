"""Progress: a bar on stderr where that is a terminal, and nothing elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from journal import JournalReader
from journal_inspect.rendering.text import terminal_width

Progress = Callable[[int], object]
_STEPS = 200
_WIDTH = 36
_TOLD_WIDTH = 28  # of what stands beside the bar: what is done, how much of it, how long still
_BYTES_MIN = 1 << 26  # less is done before anybody wonders


@contextmanager
def bar(label: str, reader: JournalReader) -> Iterator[Progress | None]:
    """Called with the bytes of a journal that were read since it was last; None where nobody
    would see it."""
    is_dumb = os.environ.get("TERM") == "dumb"
    if is_dumb or not sys.stderr.isatty() or (total := _log_bytes(reader)) < _BYTES_MIN:
        yield None
        return
    from click import progressbar

    with progressbar(
        length=total,
        label=label,
        width=max(1, min(_WIDTH, (terminal_width(sys.stderr) or 80) - _TOLD_WIDTH)),
        file=sys.stderr,
        update_min_steps=total // _STEPS,
    ) as shown:
        yield shown.update
        shown.update(total - shown.pos)  # what was allocated ahead is not read


def _log_bytes(reader: JournalReader) -> int:
    """Return the size of all segments and checkpoints of a journal."""
    kinds = ("segment", "checkpoint")
    return sum(Path(it.path).lstat().st_size for it in reader.files() if it.kind in kinds)

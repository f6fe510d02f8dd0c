"""checkpoint: one checkpoint and its items, as they are read."""

from __future__ import annotations

from journal import Checkpoint, JournalReader
from journal_inspect.exits import FINE, NEGATIVE
from journal_inspect.objects import Format, as_object, dumps, plain, put_objects
from journal_inspect.text import escaped, local_time, say, size


def show_checkpoint(reader: JournalReader, form: Format, *, lsn: int | None) -> int:
    """The newest that verifies, or the one at `lsn`."""
    checkpoints = reader.checkpoints()
    chosen = next((it for it in checkpoints if lsn in (None, it.lsn)), None)
    if chosen:
        _put(chosen, form)
    else:
        there = ", ".join(str(it.lsn) for it in checkpoints) or "none"
        at = "" if lsn is None else f" at LSN {lsn}"
        say(
            f"{reader.path}: no checkpoint{at} verifies; at these LSNs one does: {there}; "
            f"what is wrong with others: journal-inspect verify {reader.path}"
        )
    for checkpoint in checkpoints:
        checkpoint.close()
    return FINE if chosen else NEGATIVE


def _put(checkpoint: Checkpoint, form: Format) -> None:
    items = map(plain, checkpoint.items())
    if form == "json":
        # One object, whose last value is written as it is read.
        print(dumps(as_object(checkpoint)).removesuffix("}"), end=', "items": ')
        try:
            put_objects(items, form)
        finally:
            print("}")
        return
    if form == "jsonl":
        print(dumps(as_object(checkpoint)))
    else:
        _put_header(checkpoint)
    put_objects(items, "jsonl")


def _put_header(checkpoint: Checkpoint) -> None:
    for name, value in (
        ("path", escaped(checkpoint.path)),
        ("LSN", checkpoint.lsn),
        ("epoch", checkpoint.epoch),
        ("created", local_time(checkpoint.created_at_ms * 1_000_000)),
        ("application", escaped(repr(checkpoint.application))),
        ("size", size(checkpoint.size_bytes)),
        ("items", checkpoint.count),
    ):
        print(f"{name:<11} {value}")
    print()

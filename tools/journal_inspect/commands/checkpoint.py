"""checkpoint: show a checkpoint and its items, as soon as they are read."""

from __future__ import annotations

from _journal_console.exits import FINE, NEGATIVE
from _journal_console.text import put_facts, size

from journal import Checkpoint, JournalReader
from journal_inspect.rendering.kinds import may_have_tables
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.objects import as_object, dumps, put_objects
from journal_inspect.rendering.renderer import Renderer


def show_checkpoint(reader: JournalReader, renderer: Renderer, *, lsn: int | None) -> int:
    """Show the newest checkpoint that verifies, or the one at `lsn`, and return the exit code."""
    checkpoints = reader.checkpoints()
    chosen = next((each for each in checkpoints if lsn in (None, each.lsn)), None)
    if chosen:
        _put(chosen, renderer)
    elif not any(each.kind == "checkpoint" for each in reader.files()):
        log_command = command("log", reader.path)
        say(f"{reader.path}: the journal has no checkpoint yet; see its entries: {log_command}")
    else:
        whole_lsns = ", ".join(str(each.lsn) for each in checkpoints) or "none"
        at = "" if lsn is None else f" at LSN {lsn}"
        say(
            f"{reader.path}: no checkpoint{at} verifies; LSNs of checkpoints that verify: "
            f"{whole_lsns}; see what is wrong with others: {command('verify', reader.path)}"
        )
    for checkpoint in checkpoints:
        checkpoint.close()
    return FINE if chosen else NEGATIVE


def _put(checkpoint: Checkpoint, renderer: Renderer) -> None:
    renderer.hides_bytes = bool(renderer.redacted) and may_have_tables(checkpoint.application)
    items = map(renderer.plain, checkpoint.items())
    if renderer.form == "json":
        # One object. Its last value, the items, is written as it is read.
        print(dumps(as_object(checkpoint)).removesuffix("}"), end=', "items": ')
        try:
            put_objects(items, renderer.form)
        finally:
            print("}")
        return
    if renderer.form == "jsonl":
        print(dumps(as_object(checkpoint)))
    else:
        put_facts(
            [
                ("path", checkpoint.path),
                ("LSN", checkpoint.lsn),
                ("epoch", checkpoint.epoch),
                ("created", renderer.time_ms(checkpoint.created_at_ms)),
                ("application", repr(checkpoint.application)),
                ("size", size(checkpoint.size_bytes)),
                ("items", checkpoint.count),
            ]
        )
        print()
    put_objects(items, "jsonl")

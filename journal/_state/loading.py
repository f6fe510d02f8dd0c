"""Loading: fills a new state machine with the items of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from journal._format.checkpoint import Checkpoint
from journal._format.lines import count_lines, lines_of
from journal._public import public
from journal._state.state_machine import (
    LoadsLines,
    LoadsTogether,
    StateMachine,
    why_refused,
)
from journal.errors import FormatReason, FormatVersionError


@public
def load_checkpoint(machine: StateMachine, checkpoint: Checkpoint) -> None:
    """Load the items of a checkpoint into a new state machine, as an open does.

    Raises FormatVersionError for a checkpoint of another application, or if `load` raises, and
    CorruptionError for an item that can't be decoded. The machine is of no use after that.
    """
    if problem := why_refused(machine, checkpoint.application):
        raise FormatVersionError(
            f"{problem}; open it with the program that wrote it",
            path=checkpoint.path,
            reason=FormatReason.OTHER_APPLICATION,
        )

    def refusal(error: Exception) -> FormatVersionError:
        from journal._log import shown  # imports logging, which a reader does not need

        return refusal_of(machine, checkpoint.path, f"load raised {shown(error)} for an item")

    def take(block: bytes) -> bytes:
        try:
            if block.startswith(loader.heads_of_part, block.rfind(b"\n", 0, -1) + 1):
                block = b"".join(loader.load_lines_of_part(lines_of(block)))
            text = checkpoint._plain_text(block)
            is_loaded = text is not None and loader.load_text(text, count_lines(block))
        except Exception as error:
            raise refusal(error) from error
        return b"" if is_loaded else block

    loader: Any = machine
    load: Callable[[Any], object] = loader.load
    parts: Iterator[Any] = checkpoint.items()
    if isinstance(loader, LoadsLines):  # half the time of an open is decoding
        load, parts = loader.load_lines, checkpoint._blocks()
    elif isinstance(loader, LoadsTogether):
        load, parts = loader.load_items, checkpoint._item_lists(take)
    for part in parts:
        try:
            load(part)
        except Exception as error:
            raise refusal(error) from error


def refusal_of(machine: StateMachine, path: str, problem: str) -> FormatVersionError:
    """Return the error for an item or a record that a machine refuses."""
    return FormatVersionError(
        f"{problem} of application {machine.application!r}; nothing was changed. Open the journal "
        "with the program version that wrote it. If that is this one, find out what has changed in "
        "`apply` or `load` since",
        path=path,
    )

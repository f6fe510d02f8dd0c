"""Loading: fills a new state machine with the items of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from journal._format.checkpoint import Checkpoint
from journal._format.lines import count_lines, lines_of
from journal._log import shown
from journal._state.state_machine import (
    JudgesApplication,
    LoadsLines,
    LoadsTogether,
    StateMachine,
)
from journal.errors import FormatReason, FormatVersionError


def load_checkpoint(machine: StateMachine, checkpoint: Checkpoint) -> None:
    """Load all items of a checkpoint. Raises FormatVersionError if the machine refuses one."""
    _check_application(machine, checkpoint)
    _load(machine, checkpoint)


def _check_application(machine: StateMachine, checkpoint: Checkpoint) -> None:
    """Raise FormatVersionError if the machine judges applications, and refuses this one."""
    judge: object = machine
    problem = isinstance(judge, JudgesApplication) and judge.why_refused(checkpoint.application)
    if problem:
        raise FormatVersionError(
            f"{problem}; open it with the program that wrote it",
            path=checkpoint.path,
            reason=FormatReason.OTHER_APPLICATION,
        )


def _load(machine: StateMachine, checkpoint: Checkpoint) -> None:
    def refusal(error: Exception) -> FormatVersionError:
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

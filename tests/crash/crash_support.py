"""What the crash tests share: the journal's files, and every outcome of a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

from journal.testing import Change, Outcome, SimulatedDisk

PATH = "/journal"
Record = list[Any]  # key, value (None: the key goes), filler
Durability = Literal["disk", "os"]


def files(disk: SimulatedDisk, path: str = PATH) -> dict[str, bytes]:
    """The journal's files, but for LOCK, which is for people."""
    return {name: data for name, data in disk.contents(path).items() if name != "LOCK"}


def image(contents: dict[str, bytes], path: str = PATH) -> SimulatedDisk:
    """A disk on which a directory holds just these files, all of it durable."""
    return SimulatedDisk.holding(path, contents)


# --- every outcome of a crash ---


def outcome_of(choose: Callable[[int], int], *, whole: bool = False) -> Outcome:
    """`choose(n)` is an int below n. 0 keeps, 1 loses; a write may also be torn, zeros or garbage,
    unless `whole`. What stands in LOCK is for people, but its name counts."""

    def outcome(change: Change) -> bytes | None:
        size, is_write = len(change.data), change.operation == "write"
        if change.path.endswith("/LOCK") and change.operation != "create":
            return change.data
        match choose(5 if is_write and not whole else 2):
            case 0:
                return change.data
            case 1:
                return None
            case 2:
                return change.data[: size // 2]
            case 3:
                return bytes(size)
            case _:
                return bytes(byte ^ 0x5A for byte in change.data)

    return outcome


def every_choice() -> Iterator[Callable[[int], int]]:
    """A function for each way in which a deterministic run can choose. Use each to the end before
    the next is taken."""
    path: list[int] = []
    while True:
        widths: list[int] = []
        yield partial(_choose, path, widths)
        del path[len(widths) :]
        while path and path[-1] + 1 == widths[len(path) - 1]:
            path.pop()
        if not path:
            return
        path[-1] += 1


def _choose(path: list[int], widths: list[int], width: int) -> int:
    widths.append(width)
    if len(widths) > len(path):
        path.append(0)
    return path[len(widths) - 1]

"""Helpers of the crash tests: the journal's files, and every outcome of a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any, Literal

from hypothesis import strategies as st

from journal.testing import Bounds, Change, Medium, Outcome, SimulatedDisk, drawn
from journal.testing.disk import Operation
from journal.testing.outcomes import Image, outcomes

PATH = "/journal"
Record = list[Any]  # key, value (None deletes the key), filler
Durability = Literal["disk", "os"]


def files(disk: SimulatedDisk, path: str = PATH) -> dict[str, bytes]:
    """Return the journal's files except LOCK, which is only for people."""
    return {name: data for name, data in disk.contents(path).items() if name != "LOCK"}


def error_of(call: Callable[[], object]) -> int | None:
    """Return the errno of the OSError that a call raises, or None."""
    try:
        call()
    except OSError as error:
        return error.errno
    return None


def image(contents: dict[str, bytes], path: str = PATH) -> SimulatedDisk:
    """Return a disk whose directory holds exactly these files, all of them durable."""
    return SimulatedDisk.holding(path, contents)


def drawn_by(data: st.DataObject, *, damage: bool = False) -> Outcome:
    """Return an outcome of a power cut that Hypothesis draws."""
    return drawn(lambda most: data.draw(st.integers(0, most)), damage=damage)


def fail_at(disk: SimulatedDisk, number: int, code: int) -> count[int]:
    """Let the call of the disk with that number fail, counted from 0. Return the counter of
    calls."""
    calls = count()

    def fail(operation: Operation, path: str) -> None:
        if next(calls) == number:
            raise OSError(code, f"fault at call {number}", path)

    disk.before = fail
    return calls


# --- every outcome of a crash ---


def images_of(medium: Medium, bounds: Bounds) -> Iterator[Image]:
    """Yield each image of the journal that a power cut may leave, within `bounds`."""
    return outcomes(medium._folders[PATH], PATH, bounds)


def outcome_of(choose: Callable[[int], int], *, whole: bool = False) -> Outcome:
    """Return an outcome of a crash in which `choose` decides the fate of each unsynced change.

    `choose(n)` returns an int below n: 0 keeps the change, 1 loses it. Unless `whole` is set, a
    write may also be torn (2), replaced by zeros (3) or by garbage (4). The contents of LOCK are
    always kept, because they are only for people; its name may be lost.
    """

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
    """Yield a `choose` function for each way in which a deterministic run can choose.

    Finish a run with one function before taking the next.
    """
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
    """Return the choice that `path` prescribes for this step, and note that it had `width`
    options."""
    widths.append(width)
    if len(widths) > len(path):
        path.append(0)
    return path[len(widths) - 1]

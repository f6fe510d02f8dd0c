"""Arguments of the testing kit: a mistake raises, so that no test passes without a crash."""

from __future__ import annotations

import errno
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import pytest

from journal.testing import (
    Bounds,
    ExplorationReport,
    Outcome,
    Owner,
    SimulatedDisk,
    drawn,
    explore,
    lose,
    seeded,
)
from tests.support import Table


def work(owner: Owner[Table]) -> None:
    owner.append(["a", 1])
    owner.wait()


async def work_async(owner: Owner[Table]) -> None:
    work(owner)


def generate(owner: Owner[Table]) -> Iterator[None]:
    work(owner)
    yield


async def generate_async(owner: Owner[Table]) -> AsyncIterator[None]:
    work(owner)
    yield


@pytest.mark.parametrize(
    ("workload", "kind"),
    [
        (work_async, "coroutine"),
        (partial(work_async), "coroutine"),
        (lambda owner: work_async(owner), "coroutine"),
        (generate, "generator"),
        (lambda owner: (owner.append(n) for n in range(3)), "generator"),
        (generate_async, "async_generator"),
    ],
)
def test_a_workload_that_would_run_later_is_refused(workload: Any, kind: str) -> None:
    """`explore` refuses a workload whose body has not run when it returns."""
    rule = "^workload must be an ordinary function, which has done its work when it returns; it "
    with pytest.raises(TypeError, match=f"{rule}returned an object of type {kind}$"):
        explore(Table, workload)
    gc.collect()  # a coroutine that was not closed would warn now


@pytest.mark.parametrize("workload", [None, "work", 5])
def test_a_workload_is_called(workload: Any) -> None:
    """`explore` refuses a workload that can't be called."""
    with pytest.raises(TypeError, match=r"^workload must be a function of an Owner, not "):
        explore(Table, workload)


@pytest.mark.parametrize("only", [-1, 10**5, "0", True, 1.0], ids=repr)
def test_the_number_of_a_crash_point_is_one_of_the_workload_s(only: Any) -> None:
    """`only` is a number that the workload has, so that it never judges nothing."""
    kind = ValueError if type(only) is int else TypeError
    rule = "a crash point's number, " if only == 10**5 else "a whole number, at least 0"
    with pytest.raises(kind, match=f"^only must be {rule}.*, not {only!r}") as refused:
        explore(Table, work, only=only)
    if only == 10**5:
        moments = 0
        while explored(moments):
            moments += 1
        assert f"from 0 to {moments - 1}: this workload has {moments}," in str(refused.value)


def explored(only: int) -> ExplorationReport | None:
    """Return the report of one crash point, or None if there is none with that number."""
    try:
        report = explore(Table, work, only=only, bounds=Bounds(outcomes_max=1))
    except ValueError:
        return None
    assert report.moments == 1
    return report


@pytest.mark.parametrize(
    ("path", "kind"), [("", ValueError), (None, TypeError), (5, TypeError), (b"/j", TypeError)]
)
def test_the_path_of_a_journal_is_a_path(path: Any, kind: type[Exception]) -> None:
    """A path that is none is refused, and is not reported as a broken promise."""
    rule = "^path must be the path of a directory, such as '/journal', not "
    calls: list[Callable[[], object]] = [
        lambda: explore(Table, work, path=path),
        lambda: Owner(Table, path=path),
    ]
    for call in calls:
        with pytest.raises(kind, match=rule):
            call()


@pytest.mark.parametrize("path", ["/a/journal", "journal", "/journal/", PurePosixPath("/journal")])
def test_any_path_of_the_disk_is_explored(path: Any) -> None:
    """A path may be written in each way in which a SimulatedDisk takes it."""
    assert explore(Table, work, path=path) == explore(Table, work)
    with Owner(Table, path=path) as owner:
        owner.append(["a", 1])
        owner.wait()
        owner.idle()
        assert owner.read() == 1


@pytest.mark.parametrize("wrong", [None, {}, Bounds], ids=["None", "dict", "class"])
def test_options_and_bounds_are_of_their_types(wrong: Any) -> None:
    """Options or bounds of another type are refused, and are not reported as a broken promise."""
    with pytest.raises(TypeError, match=r"^bounds must be Bounds\(\.\.\.\), not "):
        explore(Table, work, bounds=wrong)
    with pytest.raises(TypeError, match=r"^options must be Options\(\.\.\.\), not "):
        explore(Table, work, options=wrong)


@pytest.mark.parametrize(
    "name", ["outcomes_max", "recovery_outcomes_max", "deviations", "sequels", "rot"]
)
@pytest.mark.parametrize("value", [-1, "a", 1.5, None, True], ids=repr)
def test_bounds_are_whole_numbers(name: str, value: Any) -> None:
    """Each bound is a whole number from 0."""
    kind = ValueError if value == -1 else TypeError
    with pytest.raises(kind, match=f"^{name} must be a whole number, at least 0, not {value!r}$"):
        Bounds(**{name: value})
    assert getattr(Bounds(**{name: 0}), name) == 0  # type: ignore[arg-type]


TEARS: list[Any] = ["13", 5, None, iter((1,)), (1, "a"), (-1,), (True,)]


@pytest.mark.parametrize("tears", TEARS, ids=range(len(TEARS)))
def test_tears_are_numbers_of_bytes(tears: Any) -> None:
    """The tears of writes are a collection of whole numbers, which can be read again and again."""
    kind = ValueError if tears == (-1,) else TypeError
    with pytest.raises(kind, match=r"^tears(\[\d\])? must be "):
        Bounds(tears=tears)
    assert [*Bounds(tears=range(3)).tears] == [0, 1, 2]


FAULTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"operation": "wirte"}, ValueError, "operation must be one of make_directory, .*drop_cache, "),
    ({"operation": 5}, TypeError, "operation must be one of "),
    ({"code": "ENOSPC"}, TypeError, r"code must be an errno, such as errno\.EIO, not 'ENOSPC'$"),
    ({"code": None}, TypeError, "code must be an errno"),
    ({"code": True}, TypeError, "code must be an errno"),
    ({"code": -5}, ValueError, "code must be an errno"),
    ({"path": None}, TypeError, "path must be a part of a path, a string, not None"),
    ({"after": -1}, ValueError, "after must be a whole number, at least 0, not -1"),
    ({"after": None}, TypeError, "after must be a whole number"),
    ({"times": -1}, ValueError, "times must be a whole number, at least 0, not -1"),
    ({"times": "1"}, TypeError, "times must be a whole number"),
]


@pytest.mark.parametrize(("wrong", "kind", "message"), FAULTS, ids=[repr(row[0]) for row in FAULTS])
def test_a_fault_can_occur(wrong: dict[str, Any], kind: type[Exception], message: str) -> None:
    """`fail` refuses a fault that no operation could have, and sets nothing."""
    disk = SimulatedDisk()
    with pytest.raises(kind, match=f"^{message}"):
        disk.fail(**{"operation": "write", "code": errno.ENOSPC, **wrong})
    assert disk.before is None


@pytest.mark.parametrize("outcome", [None, "lose", 5])
def test_an_outcome_is_called(outcome: Any) -> None:
    """A power cut needs a function that decides, whether there is anything to decide or not."""
    rule = "^outcome must be a function of a Change, such as lose or keep, not "
    with pytest.raises(TypeError, match=rule):
        SimulatedDisk().power_cut(outcome)
    with Owner(Table) as owner:
        with pytest.raises(TypeError, match=rule):
            owner.power_cut(outcome)
        assert owner.is_open
        kept: Outcome = lose
        owner.power_cut(kept)


def owned(call: Callable[[Owner[Table], Any], object], argument: Any) -> None:
    with Owner(Table) as owner:
        call(owner, argument)


CALLS: list[tuple[Callable[[Any], object], Any, type[Exception], str]] = [
    (lambda wrong: SimulatedDisk().crash_after(wrong), -1, ValueError, "count must be a whole "),
    (lambda wrong: SimulatedDisk().crash_after(wrong), "1", TypeError, "count must be a whole "),
    (SimulatedDisk, "x", TypeError, "medium must be a Medium or None, not 'x'"),
    (partial(SimulatedDisk.holding, "/a"), {"x": "y"}, TypeError, r"files\['x'\] must be bytes, "),
    (partial(SimulatedDisk.holding, "/a"), {5: b""}, TypeError, "the name of a file must be a str"),
    (partial(SimulatedDisk.holding, "/a"), [b""], TypeError, "files must be a mapping of names "),
    (lambda wrong: SimulatedDisk.holding(wrong, {}), 5, TypeError, "path must be the path of a "),
    (seeded, "x", TypeError, "seed must be a whole number, not 'x'"),
    (seeded, None, TypeError, "seed must be a whole number, not None"),
    (drawn, 3, TypeError, "draw must be callable, not 3"),
    (lambda wrong: Owner(Table, disk=wrong), "x", TypeError, "disk must be a SimulatedDisk or No"),
    (lambda wrong: Owner(Table, history=wrong), [], TypeError, "history must be a History or Non"),
    (lambda wrong: owned(Owner.append, wrong), None, TypeError, "record must be a record, not "),
    (
        lambda wrong: owned(Owner.append_batch, wrong),
        [],
        ValueError,
        "records must be a list with ",
    ),
]


@pytest.mark.parametrize(
    ("call", "wrong", "kind", "message"), CALLS, ids=[f"{row[3]}{row[1]!r}" for row in CALLS]
)
def test_a_wrong_argument_is_refused(
    call: Callable[[Any], object], wrong: Any, kind: type[Exception], message: str
) -> None:
    """A call with which a test could pass without its crash, or fail oddly, says what to give."""
    with pytest.raises(kind, match=f"^{message}"):
        call(wrong)


def test_a_disk_holds_files_at_any_form_of_a_path() -> None:
    """The files of `holding` are found at their directory, however its path is written."""
    disk = SimulatedDisk.holding("a/", {"x": b"y"})
    assert disk.contents("/a") == {"x": b"y"}
    assert disk.open_directory("a", write=False).names() == ["x"]

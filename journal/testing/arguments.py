"""Arguments: checks of a test's arguments, so that a mistake raises and no test passes because of
it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from posixpath import normpath
from typing import Any, get_args

from journal._callbacks import RUN_LATER, close_coroutine
from journal._disk.disk import StrPath
from journal._format.wrong_place import short_repr


def check_whole(
    name: str, value: object, *, low: float = 0, rule: str = "a whole number, at least 0"
) -> None:
    """Raise TypeError or ValueError unless `value` is an int from `low`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be {rule}, not {short_repr(value)}")
    if value < low:
        raise ValueError(f"{name} must be {rule}, not {short_repr(value)}")


def check_tears(tears: object) -> None:
    """Raise TypeError or ValueError unless these are numbers of bytes."""
    if isinstance(tears, str) or not isinstance(tears, Collection):
        raise TypeError(f"tears must be a collection of whole numbers, not {short_repr(tears)}")
    for index, size in enumerate(tears):
        check_whole(f"tears[{index}]", size)


def check_fault(
    operations: Any, operation: object, code: object, path: object, after: object, times: object
) -> None:
    """Raise TypeError or ValueError unless a call of one of the `operations`, a union of Literals,
    may fail so."""
    names = [name for literal in get_args(operations) for name in get_args(literal)]
    if operation not in names:
        kind = ValueError if isinstance(operation, str) else TypeError
        raise kind(f"operation must be one of {', '.join(names)}, not {short_repr(operation)}")
    check_whole("code", code, low=1, rule="an errno, such as errno.EIO")
    if not isinstance(path, str):
        raise TypeError(f"path must be a part of a path, a string, not {short_repr(path)}")
    check_whole("after", after)
    if times is not None:
        check_whole("times", times)


def check_files(files: object) -> None:
    """Raise TypeError unless these are contents of files by name."""
    if not isinstance(files, Mapping):
        raise TypeError(f"files must be a mapping of names to bytes, not {short_repr(files)}")
    for name, data in files.items():
        if not isinstance(name, str):
            raise TypeError(f"the name of a file must be a string, not {short_repr(name)}")
        if not isinstance(data, bytes):
            raise TypeError(f"files[{name!r}] must be bytes, not {short_repr(data)}")


def check_kind(name: str, value: object, kind: type) -> None:
    """Raise TypeError unless `value` is None or of this kind."""
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__} or None, not {short_repr(value)}")


def check_outcome(outcome: object) -> None:
    """Raise TypeError unless `outcome` can decide."""
    if not callable(outcome):
        raise TypeError(
            "outcome must be a function of a Change, such as lose or keep, not "
            f"{short_repr(outcome)}"
        )


def check_workload(workload: object) -> None:
    """Raise TypeError unless `workload` can be called."""
    if not callable(workload):
        raise TypeError(f"workload must be a function of an Owner, not {short_repr(workload)}")


def check_has_run(result: object) -> None:
    """Raise TypeError if a workload has returned what would run later."""
    if type(result) in RUN_LATER:
        close_coroutine(result)
        raise TypeError(
            "workload must be an ordinary function, which has done its work when it returns; it "
            f"returned an object of type {type(result).__name__}"
        )


def absolute_path(path: StrPath) -> str:
    """Return a path of a simulated disk in the form in which it names a directory, or ""."""
    text = path if isinstance(path, str) else path.__fspath__()
    return normpath("/" + text.lstrip("/")) if text else ""


def journal_path(path: Any) -> str:
    """Return the path of a journal's directory as its disk names it. Raises TypeError or ValueError
    if it is none."""
    rule = f"path must be the path of a directory, such as '/journal', not {short_repr(path)}"
    if not isinstance(path, str) and not hasattr(path, "__fspath__"):
        raise TypeError(rule)
    if not (absolute := absolute_path(path)):
        raise ValueError(rule)
    return absolute

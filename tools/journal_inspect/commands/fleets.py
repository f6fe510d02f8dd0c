"""Fleets: a manager's agents, now or at a moment of the log, and refusing what is no manager's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from journal import CompactedError, FormatVersionError, JournalError, JournalReader
from journal_inspect.commands.moments import Time, lsn_at
from journal_inspect.diagnosis.log_end import find_end, is_large
from journal_inspect.exits import NothingFoundError, RefusedError
from journal_inspect.rendering.entries import is_managers
from journal_inspect.rendering.renderer import Renderer
from journal_inspect.rendering.text import command
from manager import Agent, FleetView, ManagerError, UnknownAgentError, read_fleet

T = TypeVar("T")
Moment = int | Time


def open_fleet(path: str, renderer: Renderer, at: Moment | None) -> FleetView:
    """The fleet as it was `at` (None: as the next open would find it).

    Raises NothingFoundError for a moment that is not in the log, RefusedError for a journal that
    is no manager's.
    """
    lsn = None if at is None else find_lsn(path, renderer, at)
    with _of_a_manager(path):
        fleet = read_fleet(path, at=lsn)
    if lsn is not None:
        check_end(path, lsn, fleet.lsn)
    return fleet


def check_end(path: str, at_lsn: int, last_lsn: int) -> None:
    """Raise NothingFoundError for a moment that has not come yet."""
    if last_lsn < at_lsn:
        raise NothingFoundError(
            f"{path}: the log ends at LSN {last_lsn}, before {at_lsn}; {describe_states(path)}; "
            f"the last: {command('agents', path)}"
        )


def find_lsn(path: str, renderer: Renderer, at: Moment) -> int:
    """Of the last record that was written by then."""
    if isinstance(at, int):
        return at
    with JournalReader.open(path) as reader:
        lsn, first_lsn = (
            lsn_at(reader, at.unix_ns(utc=renderer.utc)),
            min(reader.first_lsns, default=1),
        )
        if lsn >= first_lsn:
            return lsn
        first = next(reader.entries(), None)
    begins = "it holds no record"
    if first:
        begins = f"the first, of LSN {first.lsn}, was at {renderer.time(first.written_at_ns)}"
        begins += f"; {describe_states(path)}"
    raise NothingFoundError(f"{path}: nothing is kept that was written by {at.text}; {begins}")


def ask_fleet(path: str, ask: Callable[[], T]) -> T:
    """What `ask` reads of a manager's journal. Raises as `open_fleet` does."""
    with _of_a_manager(path):
        return ask()


def get_agent(path: str, fleet: FleetView, ref: str, at: Moment | None) -> Agent:
    try:
        return fleet.get(ref)
    except UnknownAgentError as error:
        raise unknown(path, error, at) from error


def unknown(path: str, error: UnknownAgentError, at: Moment | None) -> NothingFoundError:
    then = [] if at is None else ["--at", at if isinstance(at, int) else at.text]
    return NothingFoundError(
        f"{path}: {error}; all of them: {command('agents', path, *then)}; "
        f"one that was removed: {command('history', path, 'REF')}"
    )


def describe_states(path: str) -> str:
    """As of which LSNs there is a fleet, and what to type for the first of them."""
    with JournalReader.open(path) as reader:
        first_lsn, last_lsn = reader.first_state_lsn, reader.last_lsn
        if not last_lsn:
            return "it holds no entry"
        if not is_managers(reader):
            raise _refused(path, "its records are of another program")
        end = None if is_large(reader) else find_end(reader)
    first = command("agents", path, "--at", first_lsn)
    return f"what can be told is LSN {first_lsn} to {end.lsn if end else last_lsn}: {first}"


@contextmanager
def _of_a_manager(path: str) -> Iterator[None]:
    try:
        yield
    except FormatVersionError as error:
        raise _refused(path, str(error)) from error
    except CompactedError as error:
        what = f"the fleet as of LSN {error.lsn} is no longer kept"
        raise NothingFoundError(f"{path}: {what}; {describe_states(path)}") from error
    except (JournalError, ManagerError):
        raise
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        # Records of another program that happen to look like a manager's.
        raise _refused(path, "its records make no fleet") from error


def _refused(path: str, why: str) -> RefusedError:
    return RefusedError(
        f"{path}: no journal of a manager that this version knows: {why}; "
        f"what is in it: {command('log', path)}"
    )

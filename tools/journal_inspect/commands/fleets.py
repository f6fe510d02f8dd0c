"""Fleets: a manager's agents as of now or of a moment, and the refusal of other journals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from _journal_console.refs import AmbiguousPrefixError, by_prefix

from journal import CompactedError, FormatVersionError, JournalError
from journal_inspect.commands import moments
from journal_inspect.commands.moments import Time
from journal_inspect.commands.reading import open_reader
from journal_inspect.exits import NothingFoundError, RefusedError
from journal_inspect.rendering.entries import is_managers
from journal_inspect.rendering.messages import command
from journal_inspect.rendering.progress import counted
from journal_inspect.rendering.renderer import Renderer
from manager import (
    Agent,
    FleetView,
    ManagerError,
    UnknownAgentError,
    read_fleet,
    read_fleets,
)

T = TypeVar("T")
Moment = int | Time


def open_fleet(path: str, renderer: Renderer, at: Moment | None) -> FleetView:
    """Return the fleet as of `at` (None: as the next open would find it).

    Raises NothingFoundError for a moment outside the log, RefusedError for a journal that is not a
    manager's.
    """
    if at is not None:
        return open_fleets(path, renderer, [at])[0]
    with _refusing_other_journals(path), counted("reading", path) as progress:
        return read_fleet(path, progress=progress)


def open_fleets(path: str, renderer: Renderer, ats: Sequence[Moment]) -> list[FleetView]:
    """Return the fleet as of each of the moments, in one pass. Raise the errors of `open_fleet`."""
    lsns = [find_lsn(path, renderer, at) for at in ats]
    with _refusing_other_journals(path), counted("reading", path) as progress:
        fleets = read_fleets(path, lsns, progress=progress)
    for lsn, fleet in zip(lsns, fleets, strict=True):
        check_end(path, lsn, fleet.lsn)
    return fleets


def check_end(path: str, at_lsn: int, last_lsn: int) -> None:
    """Raise NothingFoundError if the log ends before the LSN that the user asked for."""
    if last_lsn < at_lsn:
        raise NothingFoundError(
            f"{path}: the log ends at LSN {last_lsn}, before LSN {at_lsn}; "
            f"{describe_states(path)}; the newest: {command('agents', path)}"
        )


def find_lsn(path: str, renderer: Renderer, at: Moment) -> int:
    """Return the LSN of the last record that was written by the moment `at`."""
    return moments.find_lsn(path, renderer, at, describe_states)


def ask_fleet(path: str, ask: Callable[[], T]) -> T:
    """Return what `ask` reads from a manager's journal. Raise the errors of `open_fleet`."""
    with _refusing_other_journals(path):
        return ask()


def get_agent(
    path: str, fleet: FleetView, ref: str, at: Moment | None, *, of_history: bool = False
) -> Agent:
    """Return the agent of this id or name, or the only one whose id begins with `ref`.

    `of_history`: the command was `history`, so an error does not advise it.
    """
    try:
        return fleet.get(ref)
    except UnknownAgentError as error:
        ids = (agent.agent_id for agent in fleet.agents(include_archived=True))
        if agent_id := find_by_prefix(path, ids, ref):
            return fleet.get(agent_id)
        raise _unknown(path, error, at, of_history=of_history) from error


def find_by_prefix(path: str, ids: Iterable[str], ref: str) -> str | None:
    """Return the only id that begins with `ref`, or None. Raises NothingFoundError for several."""
    try:
        return by_prefix(ids, ref)
    except AmbiguousPrefixError as error:
        raise NothingFoundError(f"{path}: {error}") from error


def _unknown(
    path: str, error: UnknownAgentError, at: Moment | None, *, of_history: bool
) -> NothingFoundError:
    then = [] if at is None else ["--at", at if isinstance(at, int) else at.text]
    removed = "" if of_history else f"; for a removed agent: {command('history', path, 'REF')}"
    return NothingFoundError(
        f"{path}: {error}; see all of them: {command('agents', path, *then)}{removed}"
    )


def describe_states(path: str) -> str:
    """Describe as of which LSNs the fleet can be shown, with a command to show it."""
    # Only a refusal needs what decides where a log ends, and its import takes 10 ms.
    from journal_inspect.diagnosis.log_end import find_end, is_large

    with open_reader(path) as reader:
        first_lsn, last_lsn = reader.first_state_lsn, reader.last_lsn
        if not last_lsn:
            return "the journal holds no entry"
        if not is_managers(reader):
            raise _refused(path, "another program wrote its records")
        end = None if is_large(reader) else find_end(reader)
    first = command("agents", path, "--at", first_lsn)
    return f"the fleet is known from LSN {first_lsn} to {end.lsn if end else last_lsn}: {first}"


@contextmanager
def _refusing_other_journals(path: str) -> Iterator[None]:
    try:
        yield
    except FormatVersionError as error:
        raise _refused(path, str(error)) from error
    except CompactedError as error:
        gone = f"the fleet as of LSN {error.lsn} is no longer kept"
        raise NothingFoundError(f"{path}: {gone}; {describe_states(path)}") from error
    except (JournalError, ManagerError):
        raise
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        # Another program's records look like a manager's by chance.
        raise _refused(path, "its records do not form a fleet") from error


def _refused(path: str, why: str) -> RefusedError:
    return RefusedError(
        f"{path}: not a journal of a manager that this version knows: {why}; "
        f"see what is in it: {command('log', path)}"
    )

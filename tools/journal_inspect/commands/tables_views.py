"""Tables as of now or of an earlier moment, and the refusal of other journals."""

from __future__ import annotations

from journal import (
    CompactedError,
    FormatVersionError,
    JournalError,
    JournalReader,
    Tables,
    TablesView,
)
from journal_inspect.commands.moments import Time, find_lsn
from journal_inspect.diagnosis.log_end import find_end, is_large
from journal_inspect.exits import NothingFoundError, RefusedError
from journal_inspect.rendering.messages import command
from journal_inspect.rendering.renderer import Renderer


def open_tables(
    path: str, renderer: Renderer, at: int | Time | None, part: str | None
) -> TablesView:
    """Return the tables as of `at` (None: as the next open would find them).

    `part` is the part of a Composite that has them; None: they are not in one.

    Raises NothingFoundError for a moment outside the log, RefusedError for a journal that is not
    one of tables.
    """

    def describe_states(path: str) -> str:
        return _describe_states(path, part)

    lsn = None if at is None else find_lsn(path, renderer, at, describe_states)
    try:
        view = Tables.read(path, at=lsn, part=part)
    except FormatVersionError as error:
        raise _refused(path, str(error)) from error
    except CompactedError as error:
        gone = f"the tables as of LSN {error.lsn} are no longer kept"
        raise NothingFoundError(f"{path}: {gone}; {describe_states(path)}") from error
    except JournalError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        # Another program has given its journal the application of Tables.
        raise _refused(path, "the items of its checkpoint are not rows") from error
    if lsn is not None and view.lsn < lsn:
        raise NothingFoundError(
            f"{path}: the log ends at LSN {view.lsn}, before LSN {lsn}; "
            f"{describe_states(path)}; the newest: {tables_command(path, None, part)}"
        )
    return view


def of_part(part: str | None) -> list[str]:
    """Return the words of a command line that name the part."""
    return [] if part is None else ["--part", part]


def tables_command(path: str, at: int | Time | None, part: str | None) -> str:
    """Return the command that lists the tables as of the same moment."""
    then = [] if at is None else ["--at", at if isinstance(at, int) else at.text]
    return command("tables", path, *of_part(part), *then)


def no_table(
    path: str, view: TablesView, name: str, at: int | Time | None, part: str | None
) -> NothingFoundError:
    """Return the error for a table that has no rows."""
    return NothingFoundError(
        f"{path}: no table {name!r} has rows as of LSN {view.lsn}; "
        f"see the tables: {tables_command(path, at, part)}"
    )


def _refused(path: str, why: str) -> RefusedError:
    return RefusedError(
        f"{path}: not a journal of tables that this version knows: {why}; "
        f"see what is in it: {command('log', path)}"
    )


def _describe_states(path: str, part: str | None) -> str:
    """Describe the LSNs as of which the tables can be shown, with a command to show them."""
    with JournalReader.open(path) as reader:
        first_lsn, last_lsn = reader.first_state_lsn, reader.last_lsn
        if not last_lsn:
            return "the journal holds no entry"
        end = None if is_large(reader) else find_end(reader)
    first = command("tables", path, *of_part(part), "--at", first_lsn)
    return f"the tables are known from LSN {first_lsn} to {end.lsn if end else last_lsn}: {first}"

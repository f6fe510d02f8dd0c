"""repair --restore: append the salvaged records to the journal again."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from _journal_console.text import count_of

from journal import (
    TABLES_APPLICATION_PREFIX,
    Journal,
    JournalError,
    Options,
    PutBackReport,
    StateMachine,
    Tables,
    put_back,
)
from journal_inspect.commands.reading import open_reader
from journal_inspect.diagnosis import damage
from journal_inspect.diagnosis.mirrored import MARKER, marked_url
from journal_inspect.exits import RefusedError
from journal_inspect.rendering.entries import is_managers
from journal_inspect.rendering.messages import command
from journal_inspect.rendering.objects import JSON, as_object

_BYTES_MAX = 1 << 26  # the largest payload of a frame


class Owner(NamedTuple):
    """The program whose state a journal holds.

    machine: makes its state machine, on which the records are tried; None if it is unknown.
    """

    application: str
    machine: Callable[[], StateMachine] | None


def has_mirror(path: str) -> bool:
    """Return whether the journal has a file MIRROR, of whatever kind."""
    return os.path.lexists(os.path.join(path, MARKER))


def owner_of(path: str, save_to: str | None = None, *, as_is: bool) -> Owner:
    """Return the owner of a journal. Raises RefusedError if records can't be appended for it."""
    if has_mirror(path):
        raise RefusedError(
            f"{path}: the journal has a mirror, which has the records that were durable; restore "
            f"it: {command('restore', 'URL', 'DIRECTORY')}"
        )
    with open_reader(path) as reader:
        application = reader.application or ""
        if is_managers(reader):
            from manager import APPLICATION_PREFIX, fleet_machine

            return Owner(application or f"{APPLICATION_PREFIX}1", fleet_machine)
    if application.startswith(TABLES_APPLICATION_PREFIX):
        return Owner(application, Tables.machine)
    if not as_is:
        raise RefusedError(
            f"{path}: the program of this journal would see the marks that --restore adds, "
            '["restored", ...]; append the records without them: '
            f"{_restore_command(path, save_to, '--as-is')}"
        )
    return Owner(application, None)


def restore_command(path: str, save_to: str | None = None) -> str:
    """Return the command that appends the salvaged records again, with the options it needs."""
    try:
        owner_of(path, as_is=False)
    except RefusedError:
        return _restore_command(path, save_to, "--as-is")
    return _restore_command(path, save_to)


def _restore_command(path: str, save_to: str | None, *options: str) -> str:
    place = ["--save-to", save_to] if save_to is not None else []
    return command("repair", path, "--apply", "--restore", *options, *place)


def advise_restore(path: str, save_to: str | None) -> str:
    """Return the advice on salvaged records that are not in the journal."""
    if has_mirror(path):
        return (
            "they are not in the journal; its mirror has the records that were durable; restore "
            f"it: {command('restore', marked_url(path) or 'URL', 'DIRECTORY')}"
        )
    return f"they are not in the journal; to append them again: {restore_command(path, save_to)}"


def pending(path: str, save_to: str | None) -> list[PutBackReport]:
    """Return the salvages of the journal that were not appended to it again, oldest first."""
    with open_reader(path) as reader:
        journal_id = reader.journal_id
    journal = Path(os.path.realpath(path))
    place = Path(save_to) if save_to is not None else journal.parent
    pattern = re.compile(re.escape(journal.name) + r"\.salvaged-([1-9][0-9]{0,8})")
    names = [match for name in os.listdir(place) if (match := pattern.fullmatch(name))]
    found: list[PutBackReport] = []
    for match in sorted(names, key=lambda match: int(match[1])):
        with suppress(JournalError, OSError):  # an incomplete salvage, or somebody else's
            report = put_back(place / match[0])
            if report.journal_id == journal_id and report.appended_last_lsn is None:
                found.append(report)
    return found


def restore_all(
    path: str, salvages: list[PutBackReport], owner: Owner, *, as_is: bool
) -> list[PutBackReport]:
    """Append the records of the salvages to the journal. Return a report of each."""
    options = Options(
        application=owner.application,
        frame_bytes_max=_BYTES_MAX,
        record_bytes_max=_BYTES_MAX,
    )
    if not salvages:
        return []
    with Journal.open(path, options=options) as journal:
        machine = None if as_is else owner.machine
        return [put_back(report.path, journal, machine=machine) for report in salvages]


def describe(report: PutBackReport) -> str:
    """Describe the outcome for the records of a salvage."""
    was = f"LSN {report.first_lsn} to {report.last_lsn}"
    if report.appended_last_lsn is None:
        return f"{count_of(report.records, 'record')} of {report.path}, which were {was}"
    again = f"{count_of(report.appended, 'record')} of {report.path} appended"
    if report.refused:
        refused = damage.describe_ranges(list(report.refused))
        again += f"; left out, because the state can't apply them any more: {refused}"
    return again


def as_json(reports: list[PutBackReport]) -> JSON:
    return [{**_fields(report), "refused": damage.as_json(report.refused)} for report in reports]


def _fields(report: PutBackReport) -> dict[str, JSON]:
    fields = as_object(report)
    return {name: value for name, value in fields.items() if name != "schema_version"}

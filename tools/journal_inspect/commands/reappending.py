"""mirror reappend: show the records that are only in a directory that was put aside, or append them
to the journal again."""

from __future__ import annotations

import click
from _journal_console.exits import FINE, NEGATIVE
from _journal_console.text import put_facts

from journal import (
    TABLES_APPLICATION_PREFIX,
    CorruptionError,
    Journal,
    JournalReader,
    Options,
    ReappendReport,
    reappend,
)
from journal_inspect.commands import putting_back
from journal_inspect.diagnosis.mirrored import marked_url
from journal_inspect.exits import DamagedError, RefusedError
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.objects import as_object, put_one
from journal_inspect.rendering.renderer import Renderer


def show_reappend(
    path: str,
    renderer: Renderer,
    *,
    apply: bool,
    url: str | None,
    takeover: bool,
    application: str | None,
) -> int:
    """Show or append the records. Return 1 if there are none."""
    try:
        report = reappend(path)
    except CorruptionError as error:
        raise DamagedError(
            f"{error.path}: offset {error.offset}, LSN {error.lsn}: {error.what}; nothing was "
            "appended; to keep the records that can be read, copy the directory, then: "
            f"{putting_back.restore_command(path)}, and repeat this command"
        ) from error
    if apply and report.records and report.appended_last_lsn is None:
        report = _append(report, url, takeover=takeover, application=application)
    if renderer.form == "text":
        _put(report)
    else:
        put_one(as_object(report))
    _advise(report)
    return FINE if report.records else NEGATIVE


def _append(
    report: ReappendReport, url: str | None, *, takeover: bool, application: str | None
) -> ReappendReport:
    with JournalReader.open(report.origin) as now, JournalReader.open(report.path) as then:
        owner = now.application or then.application or ""
    if owner and not owner.startswith(TABLES_APPLICATION_PREFIX) and owner != application:
        raise RefusedError(
            f"{report.origin}: the journal is of application {owner!r}, which may refuse the "
            f"records; let its program repeat the changes, or add --application {owner}; to see "
            f"the records: {command('log', report.path)}"
        )
    url = url or marked_url(report.origin)
    try:
        journal = Journal.open(
            report.origin,
            options=Options(application=owner),
            mirror=url,
            takeover=takeover and url is not None,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with journal:
        return reappend(report.path, journal)


def _put(report: ReappendReport) -> None:
    lsns = f"LSN {report.first_lsn} to {report.last_lsn}" if report.records else "none"
    again = "no"
    if report.appended_after_lsn is not None:
        again = f"yes, as LSN {report.appended_after_lsn + 1} to {report.appended_last_lsn}"
    put_facts(
        [
            ("path", report.path),
            ("journal", report.origin),
            ("records", report.records),
            ("in no mirror", lsns),
            ("appended again", again),
        ]
    )


def _advise(report: ReappendReport) -> None:
    path = report.path
    if not report.records:
        say(f"{path}: the mirror has every record; you may remove the directory")
    elif report.appended_last_lsn is not None:
        say(f"{path}: the journal has the records again; you may remove the directory")
    else:
        say(
            f"{path}: nothing was changed; see the records with: "
            f"{command('log', path, '--from-lsn', report.first_lsn)}; to append them to the "
            f"journal, stop its program, then: {command('mirror', 'reappend', path, '--apply')}"
        )

"""history: each change of one agent, with when it was and what changed."""

from __future__ import annotations

from collections.abc import Iterator

from journal import JournalReader
from journal_inspect.commands.changes import changed_fields, told
from journal_inspect.commands.fleets import Moment, ask_fleet, check_end, find_lsn, unknown
from journal_inspect.exits import FINE, NothingFoundError
from journal_inspect.rendering.look import Look
from journal_inspect.rendering.objects import JSON, put_objects, versioned
from journal_inspect.rendering.text import command, put_lines, say, some, table
from manager import AgentChange, UnknownAgentError, read_history

_HEADER = ("LSN", "WHEN", "KIND", "STATUS", "CHANGED")
_KEPT = "(kept)"  # the kind of the first, where a checkpoint is all that tells of it


def show_history(path: str, look: Look, ref: str, at: Moment | None) -> int:
    lsn = None if at is None else find_lsn(path, look, at)
    try:
        changes = ask_fleet(path, lambda: read_history(path, ref, at=lsn))
    except UnknownAgentError as error:
        raise unknown(path, error, at) from error
    if lsn is not None:
        with JournalReader.open(path) as reader:
            check_end(path, lsn, reader.last_lsn)
    if not changes:
        raise NothingFoundError(f"{path}: nothing is kept of {ref!r}")
    if look.form != "text":
        put_objects((_object(change, look) for change in changes), look.form)
    else:
        put_lines(table(_HEADER, _rows(changes, look), folded="CHANGED"))
    last = changes[-1].after or changes[-1].before
    assert last is not None
    kept = "" if changes[0].kind else ", what came before the oldest checkpoint is no longer kept"
    say(
        f"{path}: {some(len(changes), 'change')} of {last.agent_id}{kept}; "
        f"its records: {command('log', path, '-a', last.agent_id)}"
    )
    return FINE


def _rows(changes: list[AgentChange], look: Look) -> Iterator[tuple[object, ...]]:
    for change in changes:
        what = told(changed_fields(change.before, change.after, look), look)
        if change.after is None:
            what = "removed"
        about = change.after or change.before
        if about and change.agent_id != about.agent_id:
            what += f" (by {change.agent_id})"
        status = change.after.status if change.after else "removed"
        kind = change.kind or _KEPT
        yield change.lsn, look.time(change.written_at_ns), kind, status, what


def _object(change: AgentChange, look: Look) -> JSON:
    about = change.after or change.before
    assert about is not None
    fields = {} if change.after is None else changed_fields(change.before, change.after, look)
    return versioned(
        lsn=change.lsn,
        written_at_ns=change.written_at_ns,
        kind=change.kind or None,
        agent_id=about.agent_id,
        by_agent_id=change.agent_id,
        status=change.after.status if change.after else None,
        fields=fields,
    )

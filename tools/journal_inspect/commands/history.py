"""history: show each change of an agent, with its time and the changed fields."""

from __future__ import annotations

from collections.abc import Iterator

from _journal_console.exits import FINE
from _journal_console.text import count_of, put_lines, table

from journal_inspect.commands.changes import changed_fields, describe_changes
from journal_inspect.commands.fleets import (
    Moment,
    ask_fleet,
    check_end,
    find_lsn,
    get_agent,
    open_fleet,
)
from journal_inspect.commands.reading import open_reader
from journal_inspect.exits import NothingFoundError
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.objects import JSON, put_objects, versioned
from journal_inspect.rendering.progress import counted
from journal_inspect.rendering.renderer import Renderer
from manager import AgentChange, UnknownAgentError, read_history

_HEADER = ("LSN", "WHEN", "KIND", "STATUS", "CHANGED")
_KEPT = "(kept)"  # the kind of the first change, if it is from a checkpoint


def show_history(path: str, renderer: Renderer, ref: str, at: Moment | None) -> int:
    lsn = None if at is None else find_lsn(path, renderer, at)
    try:
        changes = _changes(path, ref, lsn)
    except UnknownAgentError:
        # An id may be shortened, but it costs a second pass.
        fleet = open_fleet(path, renderer, at)
        agent_id = get_agent(path, fleet, ref, at, of_history=True).agent_id
        changes = _changes(path, agent_id, lsn)
    if lsn is not None:
        with open_reader(path) as reader:
            check_end(path, lsn, reader.last_lsn)
    if not changes:
        raise NothingFoundError(f"{path}: no change of {ref!r} is kept")
    if renderer.form != "text":
        put_objects((_object(change, renderer) for change in changes), renderer.form)
    else:
        put_lines(table(_HEADER, _rows(changes, renderer), folded="CHANGED"))
    last = changes[-1].after or changes[-1].before
    assert last is not None
    note = "" if changes[0].kind else "; changes before the oldest checkpoint are no longer kept"
    say(
        f"{path}: {count_of(len(changes), 'change')} of {last.agent_id}{note}; "
        f"see the agent's records: {command('log', path, '-a', last.agent_id)}"
    )
    return FINE


def _changes(path: str, ref: str, lsn: int | None) -> list[AgentChange]:
    with counted("reading", path) as progress:
        return ask_fleet(path, lambda: read_history(path, ref, at=lsn, progress=progress))


def _rows(changes: list[AgentChange], renderer: Renderer) -> Iterator[tuple[object, ...]]:
    for change in changes:
        text = describe_changes(changed_fields(change.before, change.after, renderer), renderer)
        if change.after is None:
            text = "removed"
        about = change.after or change.before
        if about and change.agent_id != about.agent_id:
            text += f" (by {change.agent_id})"
        status = change.after.status if change.after else "removed"
        kind = change.kind or _KEPT
        yield change.lsn, renderer.time(change.written_at_ns), kind, status, text


def _object(change: AgentChange, renderer: Renderer) -> JSON:
    about = change.after or change.before
    assert about is not None
    fields = {} if change.after is None else changed_fields(change.before, change.after, renderer)
    return versioned(
        lsn=change.lsn,
        written_at_ns=change.written_at_ns,
        kind=change.kind or None,
        agent_id=about.agent_id,
        by_agent_id=change.agent_id,
        status=change.after.status if change.after else None,
        fields=fields,
    )

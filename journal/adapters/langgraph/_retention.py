"""Removal of checkpoints: those that a namespace no longer keeps, and everything that goes with
them.

A checkpoint is removed in one transaction with its writes, and with the values that no other
checkpoint of its namespace refers to. The namespaces of subgraphs that ran under it are marked as
doomed in that transaction, and removed in slices after it, or at the next open.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import groupby, islice
from operator import itemgetter, methodcaller
from typing import Any

from journal import Key, Transaction
from journal.adapters.langgraph._parts import delete_parts, owner_of_value, owner_of_write
from journal.adapters.langgraph._rows import (
    KEYS_A_SLICE,
    CheckpointRow,
    Place,
    SaverTables,
    beside,
    pairs,
)

_TTL_S_MAX = 10**11  # some 3,000 years
_Rows = dict[str, CheckpointRow]


def kept_rows(rows: _Rows, keep: int, *others: str) -> set[str]:
    """Return the ids of the newest `keep` checkpoints and of `others`, and of the ancestors that
    they need.

    A delta channel is rebuilt from the writes of ancestors, back to one that has its value. Without
    them it would be empty, and nothing would report that.
    """
    kept = {*sorted(rows)[-keep:], *others}
    for checkpoint_id in list(kept):
        row: CheckpointRow | None = rows[checkpoint_id]
        needed = set(row.deltas) if row and row.deltas else None
        while needed and row is not None and row.parent is not None:
            parent, row = row.parent, rows.get(row.parent)
            if row is not None:
                kept.add(parent)
                needed -= row.refs.keys()
    return kept


def remove(
    t: Transaction,
    saved: SaverTables,
    place: Place,
    rows: _Rows,
    victims: Sequence[str],
    strays_before: str,
) -> list[tuple[str, ...]]:
    """Remove checkpoints of a namespace in a transaction, until it has changed enough keys.

    `victims` ascend. The newest go first: as long as a checkpoint is there, so are the ancestors
    that it needs. Remove them from `rows`, too, and return the prefixes of the namespaces that are
    doomed.

    Remove strays as well: writes and subgraphs that came after the removal of their checkpoints.
    LangGraph may also store them a moment before their own checkpoint. So only those are strays
    whose checkpoints are older than `strays_before`, for example the oldest of the namespace.
    """
    unused: set[tuple[str, str]] = set()  # the values of channels that only these referred to
    removed: set[str] = set()
    changed = 0
    checkpoints, writes = t[saved.checkpoints], t[saved.writes]
    for checkpoint_id, keys in _writes_of(t, saved, place, victims, strays_before):
        if changed >= KEYS_A_SLICE:
            break
        row = rows.pop(checkpoint_id, None)
        if row is not None:
            removed.add(checkpoint_id)
            unused.update(row.refs.items())
            checkpoints.discard((*place, checkpoint_id))
            changed += 1 + len(row.refs)
        else:
            saved.removed_early.add((*place, checkpoint_id), *(("writes", key) for key in keys))
        for key in keys:
            writes.discard(key)
            delete_parts(t, saved, owner_of_write(place, *key[2:]))
        changed += len(keys)
    remove_unused(t, saved, place, rows, unused)
    doomed: list[tuple[str, ...]] = []
    for child in _children_of(t, saved, place, removed, strays_before):
        if (parent := (*place, child[1])) not in saved.checkpoints:
            newest = methodcaller("prefix", (place[0], child[2]), reverse=True, limit=1)
            found = [("checkpoints", key) for key, _ in beside(t, saved.checkpoints, newest)]
            saved.removed_early.add(parent, ("children", child), *found)
        t[saved.children].discard(child)
        doomed.append((place[0], child[2]))
        doom(t, saved, doomed[-1])
    return doomed


def remove_unused(
    t: Transaction, saved: SaverTables, place: Place, rows: _Rows, unused: set[tuple[str, str]]
) -> None:
    """Remove those of the `unused` values of channels that none of all `rows` refers to."""
    for row in rows.values():
        unused.difference_update(row.refs.items())
    for channel, reference in unused:
        t[saved.values].discard((*place, channel, reference))
        delete_parts(t, saved, owner_of_value(place, channel, reference))


def has_strays(saved: SaverTables, place: Place) -> bool:
    """Return whether a namespace has writes or subgraphs of checkpoints before its oldest one."""
    for (*_, oldest), _ in pairs(saved.checkpoints.prefix(place, limit=1)):
        writes = pairs(saved.writes.prefix(place, limit=1))
        children = pairs(saved.children.prefix(place[:1], limit=0 if place[1] else 1))
        found = [key[2] for key, _ in writes] + [key[1] for key, _ in children]
        return any(checkpoint_id < oldest for checkpoint_id in found)
    return False


def _writes_of(
    t: Transaction, saved: SaverTables, place: Place, victims: Sequence[str], strays_before: str
) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """Yield each victim and the keys of its writes, and those of strays. The newest come first.

    All are read in one range, since beginning another one takes as long as reading four rows.
    """
    waiting = [*victims]
    first = "" if strays_before or not victims else victims[0]
    after_last = max(f"{victims[-1]}\0" if victims else "", strays_before)
    read = methodcaller("range", (*place, first), (*place, after_last), reverse=True)
    keys = (key for key, _ in beside(t, saved.writes, read))
    for checkpoint_id, group in groupby(keys, key=itemgetter(2)):
        while waiting and waiting[-1] > checkpoint_id:
            yield waiting.pop(), []
        if waiting and waiting[-1] == checkpoint_id:
            yield waiting.pop(), [*group]
        elif checkpoint_id < strays_before:
            yield checkpoint_id, [*group]
    while waiting:
        yield waiting.pop(), []


def _children_of(
    t: Transaction, saved: SaverTables, place: Place, removed: set[str], strays_before: str
) -> list[tuple[Any, ...]]:
    """Return the keys of the subgraphs that ran under removed checkpoints, and of strays. What is
    too much for a transaction is a stray later."""
    if place[1] or not saved.children:  # most savers have none
        return []
    first = "" if strays_before else min(removed, default="")
    after_last = max(f"{max(removed, default='')}\0", strays_before)
    read = methodcaller("range", (place[0], first), (place[0], after_last))
    keys = (key for key, _ in beside(t, saved.children, read))
    found = (key for key in keys if key[1] in removed or key[1] < strays_before)
    return [*islice(found, KEYS_A_SLICE)]


def doom(t: Transaction, saved: SaverTables, prefix: tuple[str, ...]) -> None:
    """Mark a thread or a namespace as doomed in a transaction, unless it is marked already."""
    if prefix not in t[saved.doomed]:
        t[saved.doomed][prefix] = saved.tables.journal.last_lsn


def drop(saved: SaverTables, prefix: tuple[str, ...]) -> int | None:
    """Remove everything of a doomed thread or namespace, in slices. Return the last LSN.

    Checkpoints go first, the oldest first, so a reader never sees one without its values. A put
    into it waits until it is not doomed any more. Another call may end the removal meanwhile. Then
    what is there is new, and stays until the call that dooms it again removes it.
    """
    mark = saved.doomed.get(prefix)
    if (prefix, mark) not in saved.removals:
        if early := _early(saved, prefix):
            saved.commit(partial(_note_early, saved, prefix, mark, early))
        saved.removals.add((prefix, mark))
    first = (saved.checkpoints, saved.heads, saved.children)
    for table in (*first, saved.values, saved.writes, saved.parts):
        if table is saved.children and len(prefix) > 1:
            continue  # these rows name the children of a checkpoint, not of a namespace
        keys = (key for key, _ in table.prefix(prefix))
        while some := list(islice(keys, KEYS_A_SLICE)):
            saved.commit(partial(_drop_rows, saved, prefix, mark, table, some))
    marks = [key for key, _ in saved.doomed.prefix(prefix)]  # of its namespaces, too
    return saved.commit(partial(_drop_rows, saved, prefix, mark, saved.doomed, marks))


def _drop_rows(
    saved: SaverTables,
    prefix: tuple[str, ...],
    mark: int | None,
    table: Any,
    keys: list[Key],
    t: Transaction,
) -> None:
    if _is_doomed(t, saved, prefix, mark):
        for key in keys:
            t[table].discard(key)


def _early(saved: SaverTables, prefix: tuple[str, ...]) -> list[Key]:
    """Return the keys of the checkpoints that have writes or subgraphs and are not there."""
    used: set[Key] = {key[:3] for key, _ in pairs(saved.writes.prefix(prefix))}
    if len(prefix) == 1:
        used |= {(key[0], "", key[1]) for key, _ in pairs(saved.children.prefix(prefix))}
    return [key for key in used if key not in saved.checkpoints]


def _note_early(
    saved: SaverTables, prefix: tuple[str, ...], mark: int | None, keys: list[Key], t: Transaction
) -> None:
    """Note the checkpoints that are not there, before anything is removed."""
    if _is_doomed(t, saved, prefix, mark):
        for key in keys:
            saved.removed_early.add(key, ("checkpoints", key))


def _is_doomed(
    t: Transaction, saved: SaverTables, prefix: tuple[str, ...], mark: int | None
) -> bool:
    """Return whether the removal that began with `mark` is not over."""
    return prefix in t[saved.doomed] and t[saved.doomed].get(prefix) == mark


def drop_all_doomed(saved: SaverTables) -> None:
    """Finish the removals that a crash interrupted."""
    for prefix, _ in pairs(saved.doomed.items()):
        drop(saved, prefix)


def doom_thread(t: Transaction, saved: SaverTables, thread: str, now: float | None = None) -> None:
    """Mark a thread as doomed in a transaction, and forget when it expires. If `now` is given, in
    Unix seconds, do so only if it has expired by then."""
    deadline = t[saved.deadlines].get(thread)
    if now is not None and not has_expired(deadline, now):
        return
    doom(t, saved, (thread,))
    forget_deadline(t, saved, thread, deadline)


def check_retention(keep: object, ttl_s: object) -> None:
    """Raise ValueError for a wrong `keep` or `ttl_s` of a saver."""
    if keep is not None and (type(keep) is not int or keep < 1):
        raise ValueError(f"keep is {keep!r:.80}; give a number of checkpoints, or None for all")
    if ttl_s is not None and (
        not isinstance(ttl_s, int | float) or type(ttl_s) is bool or not 0 < ttl_s <= _TTL_S_MAX
    ):
        raise ValueError(
            f"ttl_s is {ttl_s!r:.80}; give a number of seconds up to {_TTL_S_MAX}, or None"
        )


def touch(t: Transaction, saved: SaverTables, thread: str, now: float, ttl_s: float) -> None:
    """Let a thread live until `now + ttl_s`, in Unix seconds.

    With one `ttl_s`, the deadline moves at most a hundred times within that: most puts don't write
    it.
    """
    deadline = t[saved.deadlines].get(thread)
    if deadline is not None and abs(now + ttl_s - deadline) < ttl_s / 100:
        return
    forget_deadline(t, saved, thread, deadline)
    t[saved.deadlines][thread] = now + ttl_s
    t[saved.expiring][(ms(now + ttl_s), thread)] = None


def forget_deadline(
    t: Transaction, saved: SaverTables, thread: str, deadline: float | None
) -> None:
    """Let a thread live for ever. `deadline`: when it was to expire, if it was."""
    if deadline is not None:
        t[saved.deadlines].delete(thread)
        t[saved.expiring].discard((ms(deadline), thread))


def has_expired(deadline: float | None, now: float) -> bool:
    """Return whether a thread with this deadline, if it has one, has expired by `now`."""
    return deadline is not None and deadline <= now


def expired_threads(saved: SaverTables, now: float) -> Iterator[str]:
    """Yield the threads that expired before `now`, in Unix seconds."""
    for key, _ in pairs(saved.expiring.range(None, (ms(now),))):
        yield key[1]


def ms(seconds: float) -> int:
    """Return Unix milliseconds."""
    return int(seconds * 1000)


def subgraph_parent(namespace: str, parents: object) -> str | None:
    """Return the root checkpoint under which the run of a subgraph began, or None.

    Such a run has a namespace of its own, which contains the id of a task after a colon. A subgraph
    that keeps its state between runs has none.
    """
    if ":" not in namespace or not isinstance(parents, dict):
        return None
    root = parents.get("")
    return root if isinstance(root, str) else None


def ordered(rows: _Rows, victims: Collection[str]) -> list[str]:
    """Return the ids of `victims`, the oldest first."""
    return [checkpoint_id for checkpoint_id in rows if checkpoint_id in victims]

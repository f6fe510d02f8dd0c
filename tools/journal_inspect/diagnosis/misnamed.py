"""Misnamed files: segments that have another segment's header, and the renames that undo it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import count

from journal import Finding

Pair = tuple[str, str]  # two names of files in the journal's directory


def _misnamed(findings: Iterable[Finding]) -> dict[str, str]:
    """Return the name of each file that has another one's header, and that one's name."""
    return {_name(it): it.header_of for it in findings if it.header_of}


def _name(finding: Finding) -> str:
    return finding.path.rpartition("/")[2]


def plan_renames(findings: Iterable[Finding], taken: Collection[str]) -> tuple[Pair, ...]:
    """Return the renames that give each file the name in its header, in an order in which each new
    name is free by then.

    `taken`: all names in the directory. A file keeps its name if two files claim the same new one,
    or if that belongs to a file which itself keeps its name.
    """
    names = _misnamed(findings)
    claims = Counter(names.values())
    moves = {file: name for file, name in names.items() if claims[name] == 1}
    while stuck := [file for file, name in moves.items() if name not in moves and name in taken]:
        for file in stuck:
            del moves[file]
    return tuple(_in_order(moves, taken))


def _in_order(moves: dict[str, str], taken: Collection[str]) -> Iterator[Pair]:
    """Yield `moves` so that each new name is free by then. Of a ring, one file steps aside first,
    under a name that is not `taken`."""
    pending = dict(moves)
    while pending:
        file = next((file for file, name in pending.items() if name not in pending), None)
        if file:
            yield file, pending.pop(file)
            continue
        file, name = pending.popitem()
        aside = next(free for n in count(1) if (free := f"{file}.aside-{n}") not in taken)
        yield file, aside
        pending[aside] = name


def find_copies(findings: Collection[Finding], taken: Collection[str]) -> tuple[Pair, ...]:
    """Return each file that lost records and has the header of another file, and that one's name,
    if it is `taken` by a file that has its own header."""
    names = _misnamed(findings)
    lost = {_name(it) for it in findings if it.lsn}
    return tuple(
        (file, name)
        for file, name in names.items()
        if file in lost and name not in names and name in taken
    )

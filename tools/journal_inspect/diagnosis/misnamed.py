"""Misnamed files: segments with the header of another segment, and the renames that fix them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import count

from journal import Finding

Pair = tuple[str, str]  # two names of files in the journal's directory


def _misnamed(findings: Iterable[Finding]) -> dict[str, str]:
    """Return the name of each file with the header of another file, mapped to that file's name."""
    return {_name(each): each.header_of for each in findings if each.header_of}


def _name(finding: Finding) -> str:
    return finding.path.rpartition("/")[2]


def plan_renames(findings: Iterable[Finding], taken: Collection[str]) -> tuple[Pair, ...]:
    """Return the renames that give each file the name in its header, ordered so that each new name
    is free when its turn comes.

    `taken`: all names in the directory. A file keeps its name if two files claim the same new one,
    or if the new one belongs to a file that keeps its name.
    """
    names = _misnamed(findings)
    claims = Counter(names.values())
    moves = {file: name for file, name in names.items() if claims[name] == 1}
    while stuck := [file for file, name in moves.items() if name not in moves and name in taken]:
        for file in stuck:
            del moves[file]
    return tuple(_in_order(moves, taken))


def _in_order(moves: dict[str, str], taken: Collection[str]) -> Iterator[Pair]:
    """Yield `moves` ordered so that each new name is free when its turn comes.

    In a ring of names, one file first moves to a temporary name that is not `taken`.
    """
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
    """Return each file that lost records and has the header of another existing file, and the name
    of that file.

    The other file must have its own header and be among the `taken` names.
    """
    names = _misnamed(findings)
    lost = {_name(finding) for finding in findings if finding.lsn}
    return tuple(
        (file, name)
        for file, name in names.items()
        if file in lost and name not in names and name in taken
    )

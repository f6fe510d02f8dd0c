"""Misnamed: files that have the header of another one. What gives them their names back."""

from __future__ import annotations

import filecmp
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from shlex import join

from journal import Finding


def misnamed(findings: Iterable[Finding]) -> dict[Path, Path]:
    """Each such file, and the name that its header says; that is whole, or nothing is said."""
    found = ((Path(it.path), it.header_of) for it in findings)
    return {file: file.with_name(name) for file, name in found if name}


def give_back(names: dict[Path, Path]) -> str:
    """The commands that do it, for names that are free or become so ("": for none)."""
    claims = Counter(names.values())
    moves = {file: name for file, name in names.items() if claims[name] == 1}
    while taken := [file for file, name in moves.items() if name not in moves and name.exists()]:
        for file in taken:
            del moves[file]
    return " && ".join(join(["mv", "-n", "--", *map(str, pair)]) for pair in _in_order(moves))


def _in_order(moves: dict[Path, Path]) -> Iterator[tuple[Path, Path]]:
    """None onto a file that is still there; of a ring one steps aside."""
    left = dict(moves)
    while left:
        file = next((file for file, name in left.items() if name not in left), None)
        if file:
            yield file, left.pop(file)
            continue
        file, name = left.popitem()
        aside = next(it for n in count(1) if not (it := Path(f"{file}.aside-{n}")).exists())
        yield file, aside
        left[aside] = name


def told_copies(findings: list[Finding]) -> str:
    """Of those where something is lost, and whose name another file has by right: what they are."""
    names = misnamed(findings)
    lost = {Path(it.path) for it in findings if it.lsn}
    return " ".join(
        f"{file.name} {_told_copy(file, name)}; what the log had there is not in it."
        for file, name in names.items()
        if file in lost and name not in names and name.exists()
    )


def _told_copy(file: Path, name: Path) -> str:
    if filecmp.cmp(file, name, shallow=False):
        return f"is a copy of {name.name}"
    return f"has the header of {name.name}, which is there too, and other bytes than that"

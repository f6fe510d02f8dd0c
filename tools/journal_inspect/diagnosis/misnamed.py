"""Misnamed files: segments with the header of another segment."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from journal import Finding

Pair = tuple[str, str]  # two names of files in the journal's directory


def _misnamed(findings: Iterable[Finding]) -> dict[str, str]:
    """Return the name of each file with the header of another file, mapped to that file's name."""
    return {_name(each): each.header_of for each in findings if each.header_of}


def _name(finding: Finding) -> str:
    return finding.path.rpartition("/")[2]


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

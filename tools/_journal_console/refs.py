"""Refs: the beginning of an agent's id, where only one id begins with it."""

from __future__ import annotations

from collections.abc import Iterable

_IDS_SHOWN = 5


class AmbiguousPrefixError(LookupError):
    """Several ids begin with what the user gave."""


def by_prefix(ids: Iterable[str], ref: str) -> str | None:
    """Return the only id that begins with `ref`, or None if none does.

    Raises AmbiguousPrefixError, with some of them, if there are several.
    """
    found = sorted({each for each in ids if ref and each.startswith(ref)})
    if len(found) > 1:
        more = f" and {len(found) - _IDS_SHOWN} more" if found[_IDS_SHOWN:] else ""
        begin = f"{len(found)} ids begin with {ref!r}"
        raise AmbiguousPrefixError(
            f"{begin}: {', '.join(found[:_IDS_SHOWN])}{more}; give more of it"
        )
    return found[0] if found else None

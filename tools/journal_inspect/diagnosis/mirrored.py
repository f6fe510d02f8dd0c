"""Mirrored journals: damage to their files does not matter to an open with the mirror."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

MARKER = "MIRROR"  # the file that states the mirror of its directory


def marked_url(path: str) -> str | None:
    """Return the address that the file MIRROR states, or None if there is none or it is damaged."""
    url = _read_marker(path).get("url")
    return None if url is None else str(url)


def mirror_of(path: str) -> str | None:
    """Return the address of the mirror with which an open would fix the directory, or None if there
    is none. A restored directory has no mirror yet."""
    fields = _read_marker(path)
    is_whole = {"journal_id", "epoch", "restored_lsn"} <= fields.keys()
    return marked_url(path) if is_whole and fields["restored_lsn"] is None else None


def advise_mirror(path: str) -> str | None:
    """Return the advice to open a damaged journal with its mirror, or None if it has none."""
    url = mirror_of(path)
    return url and f"open it with its mirror first, {url}, which replaces what is damaged"


def _read_marker(path: str) -> dict[str, Any]:
    with suppress(OSError, ValueError, TypeError, RecursionError):
        return dict(json.loads(Path(path, MARKER).read_text(encoding="utf-8")))
    return {}

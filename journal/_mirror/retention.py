"""Retention: chooses the checkpoints that a mirror keeps, and the part of its log.

The two newest checkpoints always stay, whatever the clock says. For each hour, one older checkpoint
stays. Everything that a restore to any moment of the last `keep_s` seconds needs stays, too. The
clock decides nothing else, so a wrong clock costs moments of the past, but no acknowledged record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from journal._mirror.blobs import CheckpointName

ALWAYS_KEPT = 2
_HOUR_MS = 3_600_000


class Kept(NamedTuple):
    """The kept part of a mirror: these checkpoints, and the entries after `floor`, as entries or in
    roll-ups."""

    checkpoints: list[CheckpointName]
    floor: int


def keep(checkpoints: Sequence[CheckpointName], now_ms: int, keep_s: float) -> Kept:
    """Return the part to keep of a mirror with these checkpoints, which are in the order of the
    log."""
    since_ms = now_ms - keep_s * 1000
    past = [at for at, name in enumerate(checkpoints) if name.made_ms < since_ms]
    newest = max(len(checkpoints) - ALWAYS_KEPT, 0)
    if not past or not newest:
        begin = 0  # moments before the first checkpoint may still be asked for
    else:
        begin = min(past[-1], newest)
    kept: list[CheckpointName] = []
    hours = set[int]()
    for at, name in enumerate(checkpoints[begin:], begin):
        hour = name.made_ms // _HOUR_MS
        # Without a base, nothing leads over the gap before it.
        if at == begin or at >= newest or name.nonce or hour not in hours:
            kept.append(name)
            hours.add(hour)
    is_begun = bool(past) and len(kept) >= ALWAYS_KEPT
    return Kept(kept, kept[0].number if is_begun else 0)

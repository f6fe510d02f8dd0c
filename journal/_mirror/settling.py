"""Settling: finds out which records of a directory were in a mirror that no longer has their log.

Claims are never trimmed. The first claim of a higher epoch than a writer's states the last LSN that
the mirror had when that writer could append no more. So of the records of a claimed epoch, exactly
those up to that LSN were in the mirror. Of an epoch that the directory never claimed, nothing is
known: another writer may have the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from journal._disk.disk import Directory
from journal._format.segment import FrameState, Segment, SegmentName, segment_names
from journal._mirror.ahead import in_order
from journal._mirror.comparing import Comparison
from journal._mirror.entry import CLAIM, MirrorDamageError, MirrorEntry
from journal._mirror.reading import REQUESTS, read_entry
from journal._mirror.store import AbsentError, Store


def settled(
    store: Store, directory: Directory, comparison: Comparison, epoch_max: int
) -> dict[str, int]:
    """Return `comparison.common` with the bytes that the mirror had before it removed them.

    `epoch_max`: the epoch of the last claim that the directory made. Raises what the store and the
    disk raise, and CorruptionError.
    """
    common = dict(comparison.common)
    names = [
        name
        for name in segment_names(directory.names())
        if name.first_lsn < comparison.shown_lsn and name.epoch <= epoch_max
    ]
    claims = _claims(store) if names else []
    for name in names:
        later = [claim for claim in claims if claim.epoch > name.epoch]
        epoch = min((claim.epoch for claim in later), default=0)
        # A stray claim may have the same epoch, and was made earlier.
        lsn = max((claim.last_lsn for claim in later if claim.epoch == epoch), default=0)
        common[str(name)] = max(common.get(str(name), 0), _size_up_to(directory, name, lsn))
    return common


def _claims(store: Store) -> list[MirrorEntry]:
    """Return all claims. Return none if an entry is damaged, because it may be the first one of its
    epoch."""

    def fetch(number: int) -> Callable[[], MirrorEntry | None]:
        def read() -> MirrorEntry | None:
            try:
                return read_entry(store, number)
            except AbsentError:  # it was trimmed meanwhile, and so is no claim
                return None

        return read

    try:
        with closing(in_order(map(fetch, store.numbers(0)), REQUESTS)) as entries:
            return [entry for entry in entries if entry is not None and entry.kind == CLAIM]
    except MirrorDamageError:
        return []


def _size_up_to(directory: Directory, name: SegmentName, lsn: int) -> int:
    """Return the end of the last frame of a segment whose records are all up to `lsn`."""
    end = 0
    with Segment(directory, name) as segment:
        for scanned in segment.scan():
            if scanned.state is not FrameState.RECORDS:
                continue
            if scanned.header.first_lsn + scanned.header.record_count - 1 > lsn:
                break
            end = scanned.end
    return end

"""Settling: finds out which records of a directory were in a mirror that no longer has their log.

Claims are never trimmed. The first claim of a higher epoch than the directory's last one states the
last LSN that the mirror had when the directory's writer could append no more. When that writer
claimed, the directory had all that the mirror had. So of the records that it had claimed until
then, those up to that LSN were in the mirror. (An upload of several entries may have been
interrupted. Its records count as missing.) Of the records of an epoch that the directory never
claimed, nothing is known: another writer may have the same epoch.

Source: tools/proof/fork_model.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from journal._disk.disk import Directory
from journal._format.segment import FrameState, Segment, SegmentName, segment_names
from journal._mirror.ahead import in_order
from journal._mirror.comparing import Comparison
from journal._mirror.entry import CLAIM, MirrorDamageError, MirrorEntry
from journal._mirror.marker import Marker
from journal._mirror.reading import REQUESTS, read_entry
from journal._mirror.store import AbsentError, Store


def settled(
    store: Store, directory: Directory, comparison: Comparison, marker: Marker
) -> dict[str, int]:
    """Return `comparison.common` with the bytes that the mirror had before it removed them.

    `marker`: the directory's. Raises what the store and the disk raise, and CorruptionError.
    """
    common = dict(comparison.common)
    names = [
        name
        for name in segment_names(directory.names())
        # An opening of an earlier version without a claim has noted only its epoch.
        if name.first_lsn < comparison.shown_lsn and name.epoch <= marker.epoch
    ]
    lsn = _lsn_after(store, marker.epoch, comparison.known.last_lsn) if names else 0
    if marker.unclaimed_lsn is not None:
        lsn = min(lsn, marker.unclaimed_lsn)
    for name in names:
        common[str(name)] = max(common.get(str(name), 0), _size_up_to(directory, name, lsn))
    return common


def _lsn_after(store: Store, epoch: int, last_lsn: int) -> int:
    """Return the LSN up to which the mirror had every record when a writer of a higher epoch first
    claimed it; or `last_lsn`, the one that it has now, if none did."""
    claims = _claims(store)
    if claims is None:
        return 0
    later = [claim for claim in claims if claim.epoch > epoch]
    first = min((claim.epoch for claim in later), default=0)
    # A stray claim may have the same epoch, and was made earlier.
    return max((claim.last_lsn for claim in later if claim.epoch == first), default=last_lsn)


def _claims(store: Store) -> list[MirrorEntry] | None:
    """Return all claims. Return None if an entry is damaged, because it may be the first one of its
    epoch."""

    def fetch(number: int) -> Callable[[], MirrorEntry | None]:
        def read() -> MirrorEntry | None:
            try:
                return read_entry(store, number)
            except AbsentError:  # it was trimmed meanwhile, and so is not a claim
                return None

        return read

    try:
        with closing(in_order(map(fetch, store.numbers(0)), REQUESTS)) as entries:
            return [entry for entry in entries if entry is not None and entry.kind == CLAIM]
    except MirrorDamageError:
        return None


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

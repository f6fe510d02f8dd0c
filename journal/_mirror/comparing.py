"""Comparing: finds the bytes that a mirror or a local directory has and the other lacks.

A writer that has claimed the mirror compares before it recovers. A directory may be behind its
mirror: it is new, or a snapshot of the machine took it back to an earlier state. To recover it as
it is would cut acknowledged records off, in the mirror too. Bytes decide, and no clock. Where the
directory has compacted its own, its marker says which of the mirror's it can have had. Source:
tools/proof/fork_model.py.

Where the directory's bytes are in no intact frame, or are missing although a later segment follows,
they are damaged. The mirror's take their place.

A comparison begins at the place that the directory's note names, if the note still fits both sides
and the mirror still has the names of everything before it, and at the beginning otherwise. What the
directory lacks goes to unfinished files as it is read.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from operator import itemgetter
from types import MappingProxyType
from typing import Literal

from journal._disk.disk import Directory, file_size
from journal._format.checkpoint import checkpoint_lsns, floor_lsn
from journal._format.segment import (
    FrameState,
    Segment,
    SegmentName,
    segment_names,
    segments_after,
)
from journal._log import report
from journal._mirror.blobs import CheckpointName
from journal._mirror.content import content_bytes, damage_in, end_lsn, first_difference
from journal._mirror.entry import MirrorDamageError, MirrorEntry, Piece, is_checkpoint
from journal._mirror.marker import Marker
from journal._mirror.place_note import Known, read_note
from journal._mirror.reading import (
    BEGINNING,
    Names,
    Place,
    list_names,
    read_entry,
    read_log,
    shown_after,
    start_from,
    true_checkpoints,
)
from journal._mirror.staging import Staging
from journal._mirror.store import AbsentError, Store
from journal._recovery.checkpoints import find_checkpoints
from journal.errors import CorruptionError

Verdict = Literal["new", "equal", "behind", "ahead", "forked"]
_UNMARKED = Marker("")


@dataclass(slots=True)
class Comparison:
    """The result of a comparison.

    verdict: "new" if the mirror has no bytes; "equal"; "behind" if only the directory lacks bytes;
    "ahead" if only the mirror does; "forked" if both do, if bytes differ, or if a repair has cut
    off what the directory lacks. known: what the mirror has. staging: what the directory lacks, and
    segments in which the mirror's bytes take the place of damaged ones, in unfinished files; empty
    if it is "forked". common: for each local segment, the number of its first bytes that the mirror
    has, or had.
    fixed_lsn: the last LSN that the segments have with the replaced bytes; 0 if there are none.
    shown_lsn: the LSN at which the first segment begins that the mirror's log shows, after the last
    gap in it; 0 if it shows none. An earlier segment is not in `common` if the mirror has removed
    its log. epoch: the highest epoch of the entries that were read; 0 if there were none.
    """

    verdict: Verdict
    known: Known
    staging: Staging
    common: dict[str, int]
    shown_lsn: int
    epoch: int = 0
    fixed_lsn: int = 0

    def fetch(self) -> None:
        """Add the missing files and bytes to the directory, durably, and report the damage that
        this has fixed. After a crash, compare again."""
        fixed = self.staging.fixed
        self.staging.put()
        for name, offset in sorted(fixed.items()):
            path = f"{self.staging.directory.path}/{name}"
            report(
                logging.WARNING,
                "%s: from offset %d on, bytes were damaged or missing, and were replaced by the "
                "mirror's, so none of these records is lost. Look for errors of the disk in the "
                "system's log",
                path,
                offset,
            )


def compare(
    store: Store,
    directory: Directory,
    marker: Marker = _UNMARKED,
    *,
    had: Mapping[str, int] = MappingProxyType({}),
) -> Comparison:
    """Compare a mirror with a local directory, which no writer may have open.

    Segments that a local checkpoint covers count as compacted, not as missing, unless the `marker`
    shows that the directory never had them. Damage to them is passed over, as by an open. `had`:
    for each segment, the number of its first bytes that the mirror is known to have had. If it
    raises, no unfinished file is left. Raises what the store and the disk raise, CorruptionError
    and MirrorDamageError.
    """
    local = _Local(directory, marker, had)
    known = read_note(directory)
    if known and known.is_in(directory, local.is_covered) and not local.has_gap(known):
        try:
            names = list_names(store)
            if _continues(store, names, local, known.place):
                return _compare(store, names, local, known)
        except MirrorDamageError:
            pass  # the note may be of entries that are gone
    names = list_names(store)
    while True:
        try:
            return _compare(store, names, local, Known())
        except MirrorDamageError:
            # A fixed start is gone if the mirror's writer has removed the log after it meanwhile.
            before = local.start(store, names)
            names = list_names(store)
            if local.start(store, names) == before:
                raise


def _continues(store: Store, names: Names, local: _Local, place: Place) -> bool:
    """Return whether the mirror still has the log up to the place, and by its names all that is
    read without a note."""
    start = local.start(store, names)
    if start is None:
        start = start_from(true_checkpoints(store, names.blobs))
    if not names.show(start[0].number + 1 if start else 1, place.number):
        return False
    try:
        return read_entry(store, place.number).nonce == place.nonce
    except AbsentError:
        # Only entries that are followed by others are trimmed; otherwise, the mirror was emptied.
        return max(names.numbers, default=0) > place.number


def _compare(store: Store, names: Names, local: _Local, known: Known) -> Comparison:
    staging = Staging(local.directory)
    common = {name: each.size for name, each in known.extents.items() if name in local.names}
    is_differing, epoch = False, 0
    noted = segment_names(list(known.extents))
    shown_lsn = noted[0].first_lsn if noted else 0
    try:
        start = local.start(store, names) if known.place == BEGINNING else None
        with closing(read_log(store, known.place, start=start, blobs=names.blobs)) as log:
            for entry in log:
                known.add(entry)
                epoch = max(epoch, entry.epoch)
                shown_lsn = shown_after(entry, shown_lsn)
                is_differing = not _stage(entry, local, staging, common)
                if is_differing:
                    break
        verdict, fixed_lsn = _verdict(local, known, staging, shown_lsn, is_differing=is_differing)
    except BaseException:
        staging.drop()
        raise
    if verdict == "forked":
        staging.drop()
    return Comparison(verdict, known, staging, common, shown_lsn, epoch, fixed_lsn)


def _stage(entry: MirrorEntry, local: _Local, staging: Staging, common: dict[str, int]) -> bool:
    """Stage those bytes of an entry that the directory lacks or has damaged, and note those that
    both have in `common`. Return False if the directory has others in the place of some."""
    is_same = True
    for piece in entry.pieces:
        if piece.is_checkpoint:
            if not local.has_checkpoint(piece.name):
                staging.write(piece)
            continue
        compared = local.compared(piece)
        if compared is None:
            is_same = False
            continue
        same, damaged = compared
        if piece.name in local.names:
            common[piece.name] = max(common.get(piece.name, 0), piece.offset + same)
        if local.is_covered(piece.name):
            continue
        for begin, end in damaged:
            staging.fix(Piece(piece.name, piece.offset + begin, piece.data[begin:end]))
        if same < len(piece.data):
            add = staging.fix if local.has_ended(piece.name) else staging.write
            add(Piece(piece.name, piece.offset + same, piece.data[same:]))
    return is_same


def _verdict(
    local: _Local, known: Known, staging: Staging, shown_lsn: int, *, is_differing: bool
) -> tuple[Verdict, int]:
    """Return the verdict, and the last LSN of the segments that are fixed. Keep only those staged
    files that the log needs."""
    mirrored = segment_names(list(known.extents))
    needed = set(map(str, segments_after(mirrored, local.floor_lsn)))
    if any(name in needed for name in staging.lacking):
        # Then the log may need the checkpoints, too.
        needed |= {name for name in staging.names if is_checkpoint(name)}
    staging.drop({name for name in staging.names if name not in needed})
    is_ahead = any(local.reaches_past(name, known.size(name)) for name in local.names)
    fixed = {
        name: end_lsn(staging, name, local.checkpoint_lsn) - 1
        for name in segment_names(list(staging.fixed))
    }
    fixed_lsn = max(fixed.values(), default=0)
    if not mirrored:
        return "new", 0
    if is_differing or local.cuts_covered(known, shown_lsn) or local.cuts_fixed(known, fixed):
        return "forked", 0
    if local.has_other_state(known.last_lsn, segment_names(list(staging.lacking))):
        return "forked", 0
    if (staging.lacking or local.has_missed(known.last_lsn)) and is_ahead:
        # A crash may have left a torn tail where another writer then went on.
        is_forked = local.has_cut(mirrored, segment_names(list(staging.lacking))) or any(
            local.has_records_past(name, known.size(name)) for name in local.names
        )
        return ("forked", 0) if is_forked else ("behind", fixed_lsn)
    has_own = any(local.has_own_past(name, known.size(name)) for name in local.names)
    return "behind" if staging.lacking else "ahead" if has_own else "equal", fixed_lsn


class _Local:
    """The segments of a directory."""

    def __init__(self, directory: Directory, marker: Marker, had: Mapping[str, int]) -> None:
        names = directory.names()
        self.directory = directory
        self._marker = marker
        self._had = had
        self._segments = segment_names(names)
        self.names = list(map(str, self._segments))
        lsns = checkpoint_lsns(names)
        self.checkpoint_lsn = max(lsns, default=0)
        self.floor_lsn = floor_lsn(lsns)  # after it, each writer keeps the log
        self._sizes: dict[str, int] = {}
        self._damage: dict[str, list[tuple[int, int]]] = {}

    def start(self, store: Store, names: Names) -> list[CheckpointName] | None:
        """Return the blobs from which to read a mirror, so that it can be compared with all local
        segments. Return None, for the newest blobs, if the mirror no longer has the log that far
        back."""
        if not self._segments:
            return None
        begin_lsn = self._segments[0].first_lsn
        checkpoints = true_checkpoints(store, names.blobs)
        before = [each for each in checkpoints if each.lsn < begin_lsn]
        if before or not checkpoints:
            return start_from(before)
        return [] if names.show(1, checkpoints[0].number) else None

    def has_checkpoint(self, name: str) -> bool:
        """Return whether the directory has this checkpoint, or a later one."""
        return checkpoint_lsns([name])[0] <= self.checkpoint_lsn

    def is_covered(self, name: str) -> bool:
        """Return whether two checkpoints cover a segment that is not there, as the segments show
        that follow it.

        The directory never had a segment of a later epoch than that of its last claim. So its
        checkpoints cover its own records in their place.
        """
        (lacking,) = segment_names([name])
        return self._is_before_floor(lacking) and not self._never_had(lacking)

    def has_missed(self, mirrored_lsn: int) -> bool:
        """Return whether the mirror, which has every record up to `mirrored_lsn`, already had
        records that the directory lacked when the directory was first written without a claim."""
        lsn = self._marker.unclaimed_lsn
        return lsn is not None and lsn < mirrored_lsn

    def has_other_state(self, mirrored_lsn: int, lacking: list[SegmentName]) -> bool:
        """Return whether a checkpoint was made from records that the directory had in place of the
        mirror's. Its log may no longer have them. A checkpoint holds none of a later epoch than its
        own; without a claim, that may be the epoch of another writer. `lacking`: the segments that
        the directory lacks."""
        if self.has_missed(min(mirrored_lsn, self.checkpoint_lsn)):
            return True
        lacking = [each for each in lacking if each.first_lsn <= self.checkpoint_lsn]
        unclaimed_lsn = self._marker.unclaimed_lsn or 0
        if any(each.first_lsn <= unclaimed_lsn and self._never_had(each) for each in lacking):
            return True
        newest = find_checkpoints(self.directory, self.directory.names(), 1) if lacking else None
        if newest is None or not newest.good:
            return False
        newest.close()
        (taken,) = newest.good
        return any(each.first_lsn <= taken.lsn and taken.epoch < each.epoch for each in lacking)

    def compared(self, piece: Piece) -> tuple[int, list[tuple[int, int]]] | None:
        """Return the number of bytes at the beginning of a piece that the segment has, and the
        places among them where it has damaged ones. Return None if it has other records there."""
        if piece.name not in self.names:
            return 0, []
        file = self.directory.open(piece.name, "read")
        try:
            own = file.read(len(piece.data), piece.offset)
        finally:
            file.close()
        if own != piece.data:
            own = own[: max(self._size(piece.name) - piece.offset, 0)]
        damaged = list[tuple[int, int]]()
        begin = first_difference(own, piece.data, 0)
        while begin < len(own):
            end = self._end_of_damage(piece.name, piece.offset + begin) - piece.offset
            if end <= begin:
                return None
            damaged.append((begin, min(end, len(own))))
            begin = first_difference(own, piece.data, end)
        return len(own), damaged

    def has_gap(self, known: Known) -> bool:
        """Return whether the directory has bytes that are not `known`, before the last segment that
        is. A follower that was killed may have left them, and the next one went on from a
        checkpoint. The note does not say where the mirror's log begins then."""
        last = max(known.extents, default="")
        return any(self._is_longer(name, known.size(name)) for name in self.names if name < last)

    def has_ended(self, name: str) -> bool:
        """Return whether another segment follows a segment, which had all its bytes then."""
        return name in self.names[:-1]

    def cuts_fixed(self, known: Known, fixed: Mapping[SegmentName, int]) -> bool:
        """Return whether a segment that the mirror lacks begins before the last LSN of one that is
        `fixed`. The log was cut at the damage: by an open after a crash, to which it looked like
        a torn tail, or by a repair."""
        return any(
            name < each and each.first_lsn <= last_lsn and not known.size(str(each))
            for name, last_lsn in fixed.items()
            for each in self._segments
        )

    def cuts_covered(self, known: Known, shown_lsn: int) -> bool:
        """Return whether a segment that two checkpoints cover has records in the mirror that these
        do not cover. The directory's log was cut before them, as in `cuts_fixed`."""
        mirrored = [n for n in segment_names(list(known.extents)) if n.first_lsn >= shown_lsn]
        return any(
            (after.first_lsn - 1 if after else known.last_lsn) > self.floor_lsn
            and self.is_covered(str(name))
            for name, after in zip_longest(mirrored, mirrored[1:])
        )

    def reaches_past(self, name: str, size: int) -> bool:
        """Return whether a segment has more than `size` bytes that may be of the log, and that the
        mirror is not known to have had."""
        return self._is_longer(name, max(size, self._had.get(name, 0)))

    def has_cut(self, mirrored: list[SegmentName], lacking: list[SegmentName]) -> bool:
        """Return whether the directory has a segment without records that would cut off those it is
        `lacking`, once they are fetched.

        A repair leaves one in the place of a damaged segment. Its epoch is newer. One that a crash
        left before another writer went on is older than what that writer wrote.
        """
        own = [each for each in self._segments if each not in mirrored]
        return any(cut.epoch > each.epoch for cut in own for each in lacking)

    def has_records_past(self, name: str, size: int) -> bool:
        """Return whether a segment has a whole frame of records after its first `size` bytes, which
        the mirror is not known to have had."""
        size = max(size, self._had.get(name, 0))
        if not self.reaches_past(name, size):
            return False
        (segment_name,) = segment_names([name])
        with Segment(self.directory, segment_name) as segment:
            return any(
                scanned.state is FrameState.RECORDS and scanned.end > size
                for scanned in segment.scan()
            )

    def has_own_past(self, name: str, size: int) -> bool:
        """Return whether a segment has bytes after its first `size` bytes that may be of the
        directory's own log. The torn tail of a segment of which the mirror had the records is not,
        nor is what two checkpoints cover."""
        if not self.reaches_past(name, size):
            return False
        (segment,) = segment_names([name])
        is_had = self._had.get(name) or self._is_before_floor(segment)
        return not is_had or self.has_records_past(name, size)

    def _is_longer(self, name: str, size: int) -> bool:
        return file_size(self.directory, name) > size and self._size(name) > size

    def _never_had(self, name: SegmentName) -> bool:
        """Return whether a segment has a later epoch than that of the directory's last claim."""
        return 0 < self._marker.epoch < name.epoch

    def _is_before_floor(self, name: SegmentName) -> bool:
        return any(name < each and each.first_lsn - 1 <= self.floor_lsn for each in self._segments)

    def _end_of_damage(self, name: str, offset: int) -> int:
        """Return the end of the damaged bytes of a segment that include `offset`, or `offset` if
        that is in a whole frame."""
        damage = self._damage_in(name)
        at = bisect_right(damage, offset, key=itemgetter(0))
        return max(damage[at - 1][1], offset) if at else offset

    def _damage_in(self, name: str) -> list[tuple[int, int]]:
        """Return the places of a segment that are in no whole frame. A segment is compared in many
        pieces, and scanned once."""
        if name not in self._damage:
            (segment,) = segment_names([name])
            self._damage[name] = damage_in(self.directory, segment)
        return self._damage[name]

    def _size(self, name: str) -> int:
        if name not in self._sizes:
            (segment,) = segment_names([name])
            try:
                self._sizes[name] = content_bytes(self.directory, segment)
            except CorruptionError:  # its header is damaged
                if not self._is_before_floor(segment):
                    raise
                self._sizes[name] = 0
        return self._sizes[name]

"""Aside: the files of a directory that has diverged from its mirror.

A writer that was overtaken may have records that no other machine has, and an operator may have
started an old copy of a machine. Before the directory gets the mirror's files, its own files move
to `PATH.aside-EPOCH`, where nothing removes them. They keep their names, so that every reader opens
them as a journal.

A copy begins with the file COPYING.tmp, so that no other directory is taken for one. All files are
copied and synced. The file ASIDE comes last, and makes the copy complete. Only then are the
originals removed. So each step may be interrupted: an incomplete copy is made again, and once the
copy is complete, the removal goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple

from journal._disk.disk import Directory, Disk, discard_file, is_disk_error, remove_if_exists
from journal._format.checkpoint import checkpoint_lsns, checkpoint_name
from journal._format.record import Record
from journal._format.segment import FrameState, Segment, segment_names
from journal._mirror.place_note import remove_note
from journal._mutex import is_raised_by_call
from journal._names import ASIDE, COPYING, LOCK, is_incomplete_copy
from journal._offline.backup import copy_file
from journal._offline.cursor import kept_segments
from journal._offline.reader import readable
from journal._offline.statement import read_statement, write_statement
from journal.errors import JournalError

_READ_BYTES = 1 << 20
_VERSION = 1


class Aside(NamedTuple):
    """A complete directory of files that were put aside.

    path: the directory. origin: the directory that they come from. common: for each segment, the
    number of its first bytes that the mirror has, or had. What follows them is in no mirror.

    appended_after: the last LSN of the journal before these records were appended to it again; None
    until that begins. appended_last: the LSN of the last of them; None until that is done.
    """

    path: str
    origin: str
    common: dict[str, int]
    appended_after: int | None = None
    appended_last: int | None = None


def put_aside(disk: Disk, directory: Directory, common: dict[str, int]) -> Aside:
    """Move all segments and checkpoints of a locked directory to one beside it, and return that.

    `common`: see Aside. After a crash, the next comparison finds a fork again, or nothing that
    differs; then everything is in the other directory. Raises the disk's errors.
    """
    names = directory.names()
    epoch = max((name.epoch for name in segment_names(names)), default=0)
    number = 1
    while True:
        suffix = f".aside-{epoch}" + (f"-{number}" if number > 1 else "")
        target = disk.open_directory(directory.path + suffix, write=True)
        try:
            names = target.names()
            if not names or is_incomplete_copy(names):
                _copy(directory, target, common)
            if ASIDE in target.names() and _holds(target, directory):
                _remove(directory)
                return read_aside(target)
        finally:
            target.close(unlock=False)
        # It is another fork of the same epoch, perhaps of a machine rolled back twice, or was made
        # by somebody else.
        number += 1


def read_aside(directory: Directory) -> Aside:
    """Return the statement of a directory that was put aside. Raises JournalError if it was not, or
    only in part."""
    path = directory.path
    try:
        return Aside(path, *read_statement(directory, ASIDE, _VERSION))
    except FileNotFoundError as error:
        if not is_disk_error(error, directory):
            raise
        raise JournalError(
            f"{path}: not a directory that was put aside: the file {ASIDE} is missing; give a "
            "directory named PATH.aside-EPOCH"
        ) from None
    except TypeError as error:
        if not is_raised_by_call(error, "journal"):
            raise
        raise JournalError(f"{path}/{ASIDE}: it is damaged: {error}") from error


def write_aside(directory: Directory, aside: Aside) -> None:
    """Replace the statement of a directory that was put aside, durably."""
    write_statement(directory, ASIDE, _VERSION, aside._asdict())


def own_frames(
    directory: Directory, aside: Aside, current: Directory | None
) -> Iterator[tuple[int, list[Record]]]:
    """Yield the first LSN and the records of each frame that is in no mirror, in order.

    `current`: the journal's directory now, None if it is gone. A frame that it has at the same
    place is the mirror's. Damage to what the mirror has is passed over. Raises CorruptionError
    after the frames before other damage.
    """
    present = set(current.names()) if current else ()
    for batch in readable(directory, _last_common_lsn(directory, aside)):
        name = batch.path.rpartition("/")[2]
        frames = list(batch.frames())
        ends = [offset for offset, *_ in frames[1:]] + [batch.run.end]
        for (offset, _, first_lsn, records), end in zip(frames, ends, strict=True):
            is_filler = first_lsn == batch.filler_lsn
            if is_filler or end <= aside.common.get(name, 0):
                continue
            if current is not None and name in present:
                own = batch.run.data[offset - batch.run.offset : end - batch.run.offset]
                if _read(current, name, offset, end) == own:
                    continue
            yield first_lsn, list(records)


def _last_common_lsn(directory: Directory, aside: Aside) -> int | None:
    """Return the LSN before what the mirror lacks: before its first frame, or of the last frame
    before its first damage. Return None if that is at the beginning."""
    lsn = None
    names = directory.names()
    segments = kept_segments(segment_names(names), checkpoint_lsns(names))
    for name, after in zip_longest(segments, segments[1:]):
        size = aside.common.get(str(name), 0)
        with Segment(directory, name) as segment:
            for scanned in segment.scan():
                is_whole, first_lsn = scanned.state is FrameState.RECORDS, scanned.header.first_lsn
                if is_whole and after and first_lsn >= after.first_lsn:
                    break  # the log was cut here
                if scanned.end > size and scanned.state is not FrameState.MARK:
                    return first_lsn - 1 if is_whole else lsn
                if is_whole:
                    lsn = first_lsn + scanned.header.record_count - 1
    return lsn


def _read(directory: Directory, name: str, begin: int, end: int) -> bytes:
    file = directory.open(name, "read")
    try:
        return file.read(end - begin, begin)
    finally:
        file.close()


def _copy(directory: Directory, target: Directory, common: dict[str, int]) -> None:
    begun = target.names()
    if COPYING not in begun:
        target.open(COPYING, "create").close()
        target.sync()
    for name in begun:
        if name != COPYING:
            target.remove(name)  # of a copy that was interrupted; the originals are all there
    names = directory.names()
    for name in _files(names):
        copy_file(directory, target, name, None)
    target.open(LOCK, "create").close()
    target.sync()
    write_aside(target, Aside(target.path, directory.path, common))
    remove_if_exists(target, COPYING)


def _holds(target: Directory, directory: Directory) -> bool:
    """Return whether each file of a directory is in the copy, with the same bytes."""
    copied = set(target.names())
    return all(
        name in copied and _is_same(target, directory, name) for name in _files(directory.names())
    )


def _is_same(one: Directory, two: Directory, name: str) -> bool:
    first = one.open(name, "read")
    try:
        second = two.open(name, "read")
        try:
            size = first.size()
            return size == second.size() and all(
                first.read(_READ_BYTES, offset) == second.read(_READ_BYTES, offset)
                for offset in range(0, size, _READ_BYTES)
            )
        finally:
            second.close()
    finally:
        first.close()


def _remove(directory: Directory) -> None:
    """Remove the originals, durably. The checkpoints go first, so that none is ever taken for one
    of the mirror's log. The segments of the highest epoch go last, so that the name of the copy is
    found again after a crash."""
    remove_note(directory)
    names = directory.names()
    segments = segment_names(names)
    epoch = max((name.epoch for name in segments), default=0)
    older = [str(name) for name in segments if name.epoch < epoch]
    newest = [str(name) for name in segments if name.epoch == epoch]
    for group in (sorted(set(_files(names)) - set(map(str, segments))), older, newest):
        for name in group:
            discard_file(directory, name)
        directory.sync()


def _files(names: list[str]) -> list[str]:
    segments = list(map(str, segment_names(names)))
    return segments + [checkpoint_name(lsn) for lsn in checkpoint_lsns(names)]

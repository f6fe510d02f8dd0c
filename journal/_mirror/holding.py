"""Holding: local segments that a checkpoint covers stay while the mirror still needs them.

The mirror lacks them as long as it can't be reached. Holding them is bounded: if more than
`lag_bytes_max` bytes are missing in the mirror, they are removed, and the mirror starts again from
a checkpoint.
"""

from __future__ import annotations

from journal._disk.disk import Directory, file_size
from journal._format.segment import SegmentName, segment_names


class Holding:
    """The segments that are held for a mirror. A compaction calls it, and the shipper sets `first`.

    first: the first segment that the mirror still needs. None stands for all of them: it is not
    known yet what the mirror has. is_compacted: True after a compaction that the shipper has not
    looked at.
    """

    def __init__(self, lag_bytes_max: int) -> None:
        self._lag_bytes_max = lag_bytes_max
        self.first: SegmentName | None = None
        self.is_compacted = True

    def __call__(self, directory: Directory, covered: list[str]) -> list[str]:
        """Return those of the `covered` files that may be removed now."""
        self.is_compacted = True
        first = self.first  # another thread may set it
        segments = segment_names(directory.names())
        needed = [str(name) for name in segments if first is None or name >= first]
        if sum(file_size(directory, name) for name in needed) > self._lag_bytes_max:
            return covered
        return [name for name in covered if name not in needed]

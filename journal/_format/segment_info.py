"""SegmentInfo: a reader's report on a segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from journal._public import public


@public
@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """The contents and the condition of a segment."""

    path: str
    """The path of the segment."""

    epoch: int
    """The epoch of its writer."""

    first_lsn: int
    """The LSN of its first record."""

    last_lsn: int
    """The LSN of its last record, or 0 if it has none."""

    size_bytes: int
    """The size of the file in bytes, preallocated space included."""

    frames: int
    """The number of its frames of records. Marks are not counted."""

    durable_lsn: int
    """The highest LSN that its frames and marks prove to have been durable. For the last segment,
    the name of a checkpoint counts too."""

    state: Literal["active", "sealed", "torn", "damaged", "stray"]
    """The condition of the segment: "active" for the last segment of a live journal, "sealed" for a
    whole segment, "torn" for one that ends in a torn tail, "damaged", and "stray" for a file that
    does not belong to this log: a segment of another journal, or a copy under a wrong name."""

    unreadable: tuple[tuple[int, int], ...] = ()
    """The first and the last LSN of each range in the segment that damage made unreadable. The last
    LSN is 0 if nothing says where the range ends."""

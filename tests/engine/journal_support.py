"""What the tests of journal share."""

from __future__ import annotations

from journal.testing import SimulatedDisk
from tests.independent_reader import Segment, decode_segment
from tests.support import (
    PATH,
    names,
)


def segments(disk: SimulatedDisk) -> list[Segment]:
    return [decode_segment(disk.contents(PATH)[name]) for name in names(disk, ".seg")]

"""What the tests of reader share."""

from __future__ import annotations

from journal import (
    Finding,
    JournalReader,
    SegmentInfo,
)
from journal.testing import SimulatedDisk
from tests.support import (
    PATH,
)


def findings(disk: SimulatedDisk) -> list[Finding]:
    with JournalReader.open(PATH, disk=disk) as reader:
        return list(reader.verify())


def infos(disk: SimulatedDisk) -> list[SegmentInfo]:
    with JournalReader.open(PATH, disk=disk) as reader:
        return reader.segments()

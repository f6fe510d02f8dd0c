"""Programs that get records back after damage, and that read records that may be huge."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from journal import (
    Journal,
    JournalReader,
    LargeRecord,
    PutBackReport,
    Record,
    SalvagedRecord,
    is_restored_mark,
    put_back,
    read_salvaged,
)
from manager import fleet_machine
from tests.project.typed_programs.journals import Jobs


def use_salvaged(path: Path, salvaged: str) -> list[Record]:
    records: list[SalvagedRecord] = list(read_salvaged(salvaged))
    with Journal.open(path) as journal:
        assert_type(put_back(salvaged, journal), PutBackReport)
    report: PutBackReport = put_back(salvaged, machine=Jobs)
    put_back(salvaged, machine=fleet_machine)
    put_back(salvaged, machine=3)  # type: ignore[arg-type]
    print(report.refused, report.nope)  # type: ignore[attr-defined]
    return [each.record for each in records if not is_restored_mark(each.record)]


def use_large_records(path: Path) -> int:
    total = 0
    with JournalReader.open(path, memory_max_bytes=1 << 20) as reader:
        for entry in reader.entries():
            record: object = entry.record
            if isinstance(record, LargeRecord):
                total += record.memory_bytes
    return total

"""Lines of a checkpoint of tables that are forged, or as long as a checkpoint takes."""

from __future__ import annotations

import resource

import pytest

from journal import JournalError
from journal._format.checkpoint import LINE_BYTES_MAX
from journal._tables.machine import TablesMachine


@pytest.mark.parametrize(
    "forged",
    [
        b'{"table":"t","key":' + b',"value":' * 20_000 + b"}]",
        b'{"table":"' + b"t" * 1_000_000 + b'","key":1,"value":1}',
    ],
    ids=["many values", "a long name"],
)
def test_a_forged_line_costs_no_more_than_its_length(forged: bytes) -> None:
    """P9: it is refused in a moment; it took seconds, and 130 bytes of memory a byte."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises((ValueError, JournalError)):
        TablesMachine().load_lines([forged])
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime - before.ru_utime < 2
    assert after.ru_maxrss - before.ru_maxrss < 32 << 10  # KiB


def test_a_line_may_be_as_long_as_a_checkpoint_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row is loaded, and the next checkpoint takes it, too: no other line is beside it."""
    rest = b'{"table":"t","key":2,"value":""}'
    value = b"x" * (LINE_BYTES_MAX - 2 - len(rest))
    machine = TablesMachine()
    machine.load_lines([b'{"table":"t","key":1,"value":1},\n', rest[:-2] + value + rest[-2:]])
    assert [len(item.lines) for item in machine.freeze()] == [31, LINE_BYTES_MAX - 2]

"""The rules that every frame header keeps: no crash can break them."""

from __future__ import annotations

from typing import Any

import pytest

from journal._format.frame import Header, HeaderRule
from journal._format.layout import LSN_MAX, MARK, PAYLOAD_BYTES_MAX, RECORDS

LSN = 7
WHOLE = Header(0, LSN, LSN - 1, 0, payload_bytes=10, record_count=2, kind=RECORDS)
WHOLE_MARK = WHOLE._replace(payload_bytes=0, record_count=0, kind=MARK)
BROKEN: list[tuple[HeaderRule, dict[str, Any]]] = [
    (HeaderRule.KIND, {"kind": 3}),
    (HeaderRule.KIND, {"zero": b"\0\1\0"}),
    (HeaderRule.FIRST_LSN, {"first_lsn": LSN + 1}),
    (HeaderRule.FIRST_LSN, {"first_lsn": LSN - 1}),
    (HeaderRule.DURABLE_LSN, {"durable_lsn": LSN}),
    (HeaderRule.LAST_LSN, {"record_count": LSN_MAX}),
    (HeaderRule.PAYLOAD_BYTES, {"payload_bytes": PAYLOAD_BYTES_MAX + 1}),
    (HeaderRule.EMPTY, {"record_count": 0}),
    (HeaderRule.EMPTY, {"payload_bytes": 0}),
    (HeaderRule.EMPTY, {"kind": MARK}),
]


@pytest.mark.parametrize("header", [WHOLE, WHOLE_MARK])
def test_a_writers_header_breaks_no_rule(header: Header) -> None:
    """A writer's header breaks no rule, for a frame of records or a mark."""
    assert header.broken_rule(LSN) is None


@pytest.mark.parametrize(("rule", "changed"), BROKEN)
def test_an_impossible_header_breaks_a_rule(rule: HeaderRule, changed: dict[str, Any]) -> None:
    """P4: The broken rule is a field for programs, and its description is for people."""
    header = WHOLE._replace(**changed)
    assert header.broken_rule(LSN) is rule
    assert header.describe(rule, LSN).startswith("the frame ")

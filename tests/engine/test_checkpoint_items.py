"""Items of a checkpoint come back exactly as they were frozen, and version 1 is read as before."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from journal import CorruptionError, JournalReader
from journal.testing import SimulatedDisk
from tests.engine.compaction_support import compact
from tests.engine.items_support import ITEMS, file_of, forge, items_after, nested
from tests.independent_reader import decode_checkpoint
from tests.support import PATH, findings, open_on, put

# --- what comes back ---


@given(items=st.lists(ITEMS, max_size=10))
@example(items=[{"$bytes": b"x"}, {"$$bytes": {"$bytes": "eA=="}}, {"$bytes": 1, "k": b""}])
def test_any_item_comes_back_exactly(items: list[Any]) -> None:
    """P6: items of every type that a checkpoint carries come back with their types, to the engine
    and to a reader that knows nothing but the page."""
    disk = SimulatedDisk()
    with open_on(disk) as journal:
        put(journal, 1)
        assert repr(list(compact(journal, *items).items())) == repr(items)
    assert repr(items_after(disk)) == repr(items)
    assert repr(list(decode_checkpoint(file_of(disk)).items)) == repr(items)


@pytest.mark.parametrize(
    ("item", "line"),
    [
        (b"", '{"$bytes":""}'),
        (b"\x00\xff", '{"$bytes":"AP8="}'),
        (b"\xfb\xff\xfe", '{"$bytes":"+//+"}'),
        ([1, b"a"], '[1,{"$bytes":"YQ=="}]'),
        ({"k": b"a"}, '{"k":{"$bytes":"YQ=="}}'),
        ({"$bytes": "YQ=="}, '{"$$bytes":"YQ=="}'),
        ({"$bytes": b"a"}, '{"$$bytes":{"$bytes":"YQ=="}}'),
        ({"$$bytes": [{"$bytes": 1}]}, '{"$$$bytes":[{"$$bytes":1}]}'),
        ({"$bytes": "YQ==", "k": 1}, '{"$bytes":"YQ==","k":1}'),
        ({"bytes": 1}, '{"bytes":1}'),
        ({"$byte": 1}, '{"$byte":1}'),
        ({"$bytes\n": 1}, '{"$bytes\\n":1}'),
        ("$bytes", '"$bytes"'),
    ],
)
def test_bytes_stand_in_the_file_by_the_page(disk: SimulatedDisk, item: Any, line: str) -> None:
    """P6: bytes are `{"$bytes": base64}`; an object that looks like it gets one `$` more."""
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, item)
    assert b'"version":2,' in file_of(disk)
    assert file_of(disk).splitlines()[2].decode() == line
    assert repr(items_after(disk)) == repr([item])


def test_an_item_nests_as_deep_as_it_may(disk: SimulatedDisk) -> None:
    """P6: an item at the bound comes back, also with bytes and a dollar key at its bottom."""
    items = [nested([]), nested(b"x"), nested({"$bytes": 1}), nested(1, map_key="$bytes")]
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, *items)
    found = items_after(disk)
    assert list(map(json_of, found)) == list(map(json_of, items))


def json_of(value: Any) -> str:  # a repr of so many levels is refused by some Pythons
    return json.dumps(value, default=lambda data: {"bytes": data.hex()})


# --- what is read ---


def test_version_1_is_read_without_the_rule(disk: SimulatedDisk) -> None:
    """P6: what an engine wrote that knew no bytes comes back as it meant it: as an object."""
    items = [{"$bytes": "QQ=="}, {"$bytes": 1}, {"$$bytes": {"$bytes": "no"}}, "$bytes"]
    forge(disk, 1, [json.dumps(item).encode() for item in items])
    assert items_after(disk) == items
    assert list(decode_checkpoint(file_of(disk)).items) == items
    assert findings(disk) == []


def test_checkpoints_of_both_versions_stand_side_by_side(disk: SimulatedDisk) -> None:
    """P6, P7: after version 1 the next checkpoint is version 2; both verify."""
    forge(disk, 1, [b'{"$bytes":"QQ=="}'])
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        items = [*journal.checkpoint.items(), b"A"]
        put(journal, 2)
        compact(journal, *items)
    versions = [
        json.loads(data.split(b"\n")[0].rstrip(b",") + b"}")["version"]
        for name, data in sorted(disk.contents(PATH).items())
        if name.endswith(".json")
    ]
    assert versions == [1, 2]
    assert findings(disk) == []
    with JournalReader.open(PATH, disk=disk) as reader:
        newer, older = reader.checkpoints()
        assert list(older.items()) == [{"$bytes": "QQ=="}]
        assert list(newer.items()) == [{"$bytes": "QQ=="}, b"A"]
        older.close()
        newer.close()
    assert items_after(disk) == items


@pytest.mark.parametrize(
    "bad",
    [
        b'{"$bytes":1}',
        b'{"$bytes":null}',
        b'{"$bytes":["QQ=="]}',
        b'{"$bytes":{"$bytes":"QQ=="}}',
        b'{"$bytes":"QQ"}',
        b'{"$bytes":"QQ="}',
        b'{"$bytes":"QQ==="}',
        b'{"$bytes":"QQ==QQ=="}',
        b'{"$bytes":"Q"}',
        b'{"$bytes":"="}',
        b'{"$bytes":"QR=="}',
        b'{"$bytes":"QQ ="}',
        b'{"$bytes":"QQ==\\n"}',
        b'{"$bytes":"-_-_"}',
        '{"$bytes":"QQ=é"}'.encode(),
        b'{"$bytes":"\\ud800QQ="}',
        b'{"\\u0024bytes":1}',
        b'[{"k":[{"$bytes":1}]}]',
        b'{"k":{"$bytes":"!"}',
    ],
)
def test_invalid_base64_in_an_item_is_corruption(disk: SimulatedDisk, bad: bytes) -> None:
    """P4: bytes that no writer made, in a file that verified: CorruptionError, with its place."""
    forge(disk, 2, [b'{"$bytes":"QQ=="}', b"0", bad, b"1"])
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        found: list[Any] = []
        with pytest.raises(CorruptionError, match="item 2 of the checkpoint") as caught:
            found.extend(journal.checkpoint.items())
        assert (found, caught.value.lsn) == ([b"A", 0], 1)
        assert caught.value.path == journal.checkpoint.path
        assert caught.value.offset == file_of(disk).index(bad)
    assert [(f.kind, f.offset) for f in findings(disk)] == [
        ("bad_checkpoint", file_of(disk).index(bad))
    ]


@pytest.mark.parametrize(
    ("line", "item"),
    [
        (b'{"$bytes":"QQ==","$bytes":"Qg=="}', b"B"),  # as any JSON reader: the last one counts
        (b'{"$bytes":"QQ==","$$bytes":1}', {"$bytes": "QQ==", "$$bytes": 1}),
        (b'{"k":1,"$bytes":2}', {"k": 1, "$bytes": 2}),
        (b'{"\\u0024bytes":"QQ=="}', b"A"),
        (b'{"$\\u0062ytes":"QQ=="}', b"A"),
        (b'{"$bytes":"\\u0051Q=="}', b"A"),
        (b'{ "$bytes" : "QQ==" }', b"A"),
        (b'{"$$bytes":"no base64"}', {"$bytes": "no base64"}),
        (b'"\\u0024bytes"', "$bytes"),
    ],
)
def test_the_rule_is_about_keys_not_about_their_spelling(line: bytes, item: Any) -> None:
    """P6: JSON that spells the same object differently is the same item, whatever stands around."""
    for others in ([], [b"0"], [b'{"$bytes":""}']):
        disk = SimulatedDisk()
        forge(disk, 2, [*others, line])
        assert items_after(disk)[-1] == item
        assert decode_checkpoint(file_of(disk)).items[-1] == item


def test_large_bytes_come_back(disk: SimulatedDisk) -> None:
    """P6: an item of many megabytes goes through the same way."""
    items = [bytes(range(256)) * 40_000, {"k": [b"\xff" * 3_000_001]}]
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, *items)
    assert items_after(disk) == items

"""Items of a checkpoint are read back exactly as they were frozen, also from version 1."""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from contextlib import closing, suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from journal import CorruptionError, JournalReader
from journal._format.checkpoint import decode_item
from journal._format.lines import lines_of
from journal.testing import SimulatedDisk
from tests.engine.compaction_support import compact
from tests.engine.items_support import ITEMS, file_of, forge, items_after, nested
from tests.independent_reader import decode_checkpoint
from tests.support import PATH, findings, open_on, put

# --- what is written ---


@given(items=st.lists(ITEMS, max_size=10))
@example(items=[{"$bytes": b"x"}, {"$$bytes": {"$bytes": "eA=="}}, {"$bytes": 1, "k": b""}])
def test_any_item_is_read_back_exactly(items: list[Any]) -> None:
    """P6: Items of every supported type are read back with their types, by the engine and by a
    reader that knows nothing but the format page."""
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
def test_bytes_are_encoded_as_the_format_page_says(
    disk: SimulatedDisk, item: Any, line: str
) -> None:
    """P6: Bytes are encoded as `{"$bytes": base64}`. An object that looks like that gets one `$`
    more."""
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, item)
    assert b'"version":2,' in file_of(disk)
    assert file_of(disk).splitlines()[2].decode() == line
    assert repr(items_after(disk)) == repr([item])


def test_an_item_may_reach_the_depth_limit(disk: SimulatedDisk) -> None:
    """P6: An item at the depth limit is read back, also with bytes or a dollar key at its
    bottom."""
    items = [nested([]), nested(b"x"), nested({"$bytes": 1}), nested(1, map_key="$bytes")]
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, *items)
    recovered = items_after(disk)
    assert list(map(json_of, recovered)) == list(map(json_of, items))


def json_of(value: Any) -> str:  # some Pythons refuse a repr of so many levels
    return json.dumps(value, default=lambda data: {"bytes": data.hex()})


# --- what is read ---


def test_version_1_has_no_encoded_bytes(disk: SimulatedDisk) -> None:
    """P6: In a file of version 1, which had no bytes, an object that looks like encoded bytes is an
    object."""
    items = [{"$bytes": "QQ=="}, {"$bytes": 1}, {"$$bytes": {"$bytes": "no"}}, "$bytes"]
    forge(disk, 1, [json.dumps(item).encode() for item in items])
    assert items_after(disk) == items
    assert list(decode_checkpoint(file_of(disk)).items) == items
    assert findings(disk) == []


def test_checkpoints_of_both_versions_coexist(disk: SimulatedDisk) -> None:
    """P6, P7: The next checkpoint after one of version 1 is of version 2, and both verify."""
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
    """P4: Bytes that no writer produced, in a file that verified, raise CorruptionError with their
    offset."""
    forge(disk, 2, [b'{"$bytes":"QQ=="}', b"0", bad, b"1"])
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        items: list[Any] = []
        with pytest.raises(CorruptionError, match="item 2 of the checkpoint") as caught:
            items.extend(journal.checkpoint.items())
        assert (items, caught.value.lsn) == ([b"A", 0], 1)
        assert caught.value.path == journal.checkpoint.path
        assert caught.value.offset == file_of(disk).index(bad)
    assert [(f.kind, f.offset) for f in findings(disk)] == [
        ("bad_checkpoint", file_of(disk).index(bad))
    ]


@given(text=st.text("AQRgw/+=-\n\u00e9", max_size=13))
def test_only_the_exact_base64_of_bytes_is_decoded(text: str) -> None:
    """P4: A string is refused unless it is what encoding its bytes gives."""
    expected, decoded = None, None
    with suppress(ValueError):
        data = a2b_base64(text)
        expected = data if b2a_base64(data, newline=False) == text.encode() else None
    with suppress(ValueError):
        decoded = decode_item(json.dumps({"$bytes": text}).encode())
    assert decoded == expected


@pytest.mark.parametrize(
    ("line", "item"),
    [
        (b'{"$bytes":"QQ==","$bytes":"Qg=="}', b"B"),  # the last one counts, as in any JSON reader
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
def test_the_spelling_of_a_key_does_not_matter(line: bytes, item: Any) -> None:
    """P6: A different spelling of the same JSON object is the same item, whichever items precede
    it."""
    for others in ([], [b"0"], [b'{"$bytes":""}']):
        disk = SimulatedDisk()
        forge(disk, 2, [*others, line])
        assert items_after(disk)[-1] == item
        assert decode_checkpoint(file_of(disk)).items[-1] == item


def test_large_bytes_are_read_back(disk: SimulatedDisk) -> None:
    """P6: An item of many megabytes is read back like any other."""
    items = [bytes(range(256)) * 40_000, {"k": [b"\xff" * 3_000_001]}]
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, *items)
    assert items_after(disk) == items


def test_only_an_lf_ends_a_line() -> None:
    """A checkpoint is divided into lines at each LF and at nothing else."""
    lines = [b'{"a":"\x0b\x0c\xc2\x85"},\r,\n', b"\n", b"\r\n", b'{"b":1}']
    assert lines_of(b"".join(lines)) == lines


@pytest.mark.parametrize("count", [0, 1, 3])
def test_items_are_the_same_wherever_a_read_ends(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each item is read once, and the last two lines never, also if a read ends between them."""
    disk, items = SimulatedDisk(), [[number, "x" * 20 * number] for number in range(count)]
    with open_on(disk) as journal:
        put(journal, "a")
        compact(journal, *items).close()
    for chunk_bytes in range(1, 400):
        monkeypatch.setattr("journal._format.checkpoint._CHUNK_BYTES", chunk_bytes)
        with JournalReader.open(PATH, disk=disk) as reader:
            checkpoint = reader.base()
            assert checkpoint is not None
            with closing(checkpoint):
                assert list(checkpoint.items()) == items, chunk_bytes
                texts = [encoded.lines for encoded in checkpoint._encoded_items()]
            assert json.loads(b"[%b]" % b",".join(texts)) == items

"""Checkpoint items for tests: strategies, and files whose items may have any bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from journal._format.crc32c import checksum
from journal._format.items import NESTING_MAX
from journal.testing import SimulatedDisk
from tests.engine.compaction_support import compact
from tests.support import PATH, names, open_on, put

KEYS = st.text(max_size=8) | st.sampled_from(["bytes", "$", "$bytes", "$$bytes", "$$$bytes", "$x"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(['{"$bytes":"QQ=="}', '"$', "\\u0024bytes"])
    | st.binary(max_size=20)
)
ITEMS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)


def items_after(disk: SimulatedDisk) -> list[Any]:
    """Return the items from which the next opening starts."""
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        return list(journal.checkpoint.items())


def file_of(disk: SimulatedDisk) -> bytes:
    (name,) = names(disk, ".json")
    return disk.contents(PATH)[name]


def forge(disk: SimulatedDisk, version: int, lines: Iterable[bytes]) -> None:
    """Write a checkpoint of one record in that version, with the given lines as its items."""
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, 0)
    (name,) = names(disk, ".json")
    first, opening, *_ = disk.contents(PATH)[name].splitlines(keepends=True)
    first = first.replace(b'"version":2', b'"version":%d' % version)
    lines = list(lines)
    body = first + opening + b",\n".join(lines) + b"\n],\n"
    data = body + b'"count":%d,"crc32c":"%08x"}\n' % (len(lines), checksum(body))
    file = disk.open_directory(PATH, write=True).open(name, "update")
    file.truncate(0)
    file.write(data, 0)


def nested(bottom: Any, *, map_key: str | None = None) -> Any:
    """Wrap `bottom` in as many lists, or maps, as an item may have."""
    value = bottom
    for _ in range(NESTING_MAX - isinstance(bottom, list | dict)):
        value = [value] if map_key is None else {map_key: value}
    return value

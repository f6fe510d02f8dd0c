"""A state machine that detects any change of the log, for tests of the engine itself."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from itertools import chain
from typing import Any

from journal import CowTable


class Ledger:
    """Rows by key, and a digest that changes if a record is lost, doubled or out of order.

    A record is [key, value, filler]; a value of None removes the key.
    """

    application = "ledger/1"

    def __init__(self) -> None:
        self.table: CowTable[str, Any] = CowTable()
        self.lsn = 0
        self.digest = 0

    def load(self, item: Any) -> None:
        if "digest" in item:
            self.lsn, self.digest = item["lsn"], item["digest"]
        else:
            self.table[item["key"]] = item

    def apply(self, lsn: int, record: list[Any]) -> None:
        key, value, _ = record
        if value is None:
            self.table.pop(key, None)
        else:
            self.table[key] = {"key": key, "value": value}
        self.lsn, self.digest = lsn, digest(self.digest, lsn, record)

    def freeze(self) -> Iterable[Any]:
        head = {"lsn": self.lsn, "digest": self.digest}
        return chain([head], self.table.freeze())


def digest(before: int, lsn: int, record: list[Any]) -> int:
    return zlib.crc32(repr((lsn, record)).encode(), before)

"""A script that makes one journal with checkpoints of version 2, with the same bytes each time.

Its segments are of version 1. The files are in `v2/`, and no test writes them: they change only
with the format's version. They are made once per version, by hand, in the checkout:

    python -m tests.golden.journal_v2
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from journal import Journal
from tests.golden.journal_v1 import PLACE, SECOND_NS, Script

FOLDER = Path(__file__).resolve().parent / "v2"

# The records, which are also the checkpoint's items: every type that both support, at every place.
LOG: list[Any] = [
    None,
    *(True, False),
    *(0, -1, 2**64 - 1, -(2**63)),
    *(0.5, -0.0, 1e300),
    *("", "é✓🗝", '"$bytes', '{"$bytes":"QQ=="}', "\\u0024bytes", "line\nfeed\0"),
    *(b"", b"\x00", b"\x00\xff", b"\xfb\xef\xbe", bytes(range(256))),
    *([], [b""], [1, [b"a", [b"ab", [b"abc"]]]]),
    *({}, {"k": b"v"}, {"$": 1}, {"bytes": 1}, {"$byte": 1}, {"$bytess": 1}, {"a$bytes": b"x"}),
    *({"$bytes": "QQ=="}, {"$bytes": b"A"}, {"$bytes": {"$bytes": {"$bytes": b"A"}}}),
    *({"$$bytes": "QQ=="}, {"$$$bytes": [b"A"]}, {"$bytes": None}, {"$bytes": {}}),
    *({"$bytes": "QQ==", "k": b"v"}, {"k": 1, "$$bytes": b""}),
    [{"rows": [{"$bytes": [{"$$bytes": b"deep"}, b"\xff"]}]}, {"key": "last"}],
]
CHECKPOINTS = (20, len(LOG) - 3)


def items(lsn: int) -> list[Any]:
    """Return the state as of `lsn`: every record so far, and an int that only JSON supports."""
    return [*LOG[:lsn], 10**30]


def checkpoint(script: Script, journal: Journal) -> None:
    script.disk.clock_ns += SECOND_NS
    journal.compact(lambda: (journal.last_lsn, items(journal.last_lsn)))


def write() -> dict[str, bytes]:
    """Return the journal's files, without LOCK, which is for people."""
    script = Script()
    done = 0
    for lsn in CHECKPOINTS:
        with script.open() as journal:
            script.append(journal, LOG[done:lsn])
            checkpoint(script, journal)
        done = lsn
    with script.open() as journal:
        script.append(journal, LOG[done:])
    return {name: data for name, data in script.disk.contents(PLACE).items() if name != "LOCK"}


if __name__ == "__main__":
    FOLDER.mkdir()
    for name, data in write().items():
        (FOLDER / name).write_bytes(data)

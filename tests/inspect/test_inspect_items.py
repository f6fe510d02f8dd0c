"""journal-inspect: items of checkpoints of both versions, and bytes in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from journal import Journal, Options
from tests.golden.journal_v1 import CHECKPOINTS
from tests.golden.journal_v1 import items as items_at
from tests.inspect.inspect_support import ask, checkpoints, compact, flip, golden, open_journal, put


def test_checkpoint_shows_bytes_like_log(tmp_path: Path) -> None:
    """Bytes in items are shown like bytes in records, not in the encoding of the file."""
    items: list[Any] = [b"\x00\xff", {"k": [b""]}, {"$bytes": "AP8="}, {"$bytes": b"A"}]
    expected = [
        {"base64": "AP8="},
        {"k": [{"base64": ""}]},
        {"$bytes": "AP8="},
        {"$bytes": {"base64": "QQ=="}},
    ]
    path = tmp_path / "j"
    with open_journal(path) as journal:
        put(journal, *items)
        compact(journal, *items)
    assert ask("checkpoint", path, "-o", "json").json["items"] == expected
    assert ask("checkpoint", path, "-o", "jsonl").jsonl[1:] == expected
    assert list(map(json.loads, ask("checkpoint", path).lines[-4:])) == expected
    assert [entry["record"] for entry in ask("log", path, "-o", "jsonl").jsonl] == expected
    hidden = ask("checkpoint", path, "--redact", "k", "-o", "json").json["items"]
    assert hidden == [expected[0], {"k": "[redacted]"}, *expected[2:]]


def test_every_command_reads_checkpoints_of_both_versions(tmp_path: Path) -> None:
    """A journal may have checkpoints of versions 1 and 2, and each command reads both."""
    path = golden(tmp_path / "golden")
    with Journal.open(path, options=Options(application="golden/1")) as journal:
        put(journal, b"new")
        compact(journal, b"new", {"$bytes": "x"})
    heads = [file.read_bytes().split(b",\n")[0] + b"}" for file in checkpoints(path)]
    assert [json.loads(head)["version"] for head in heads] == [1, 2]
    summaries = ask("info", path, "-o", "json").json["checkpoints"]
    assert [each["count"] for each in summaries] == [2, len(items_at(CHECKPOINTS[-1]))]
    assert "bad_checkpoint" not in ask("verify", path).out
    assert ask("checkpoint", path, "-o", "json").json["items"] == [
        {"base64": "bmV3"},
        {"$bytes": "x"},
    ]
    older = ask("checkpoint", path, "--lsn", CHECKPOINTS[-1], "-o", "json").json
    assert older["items"] == items_at(CHECKPOINTS[-1])
    flip(checkpoints(path)[1], 240)  # the newer one, so an open and a repair use the older one
    assert "bad_checkpoint" in ask("verify", path).out
    assert ask("checkpoint", path, "-o", "json").json["lsn"] == CHECKPOINTS[-1]
    assert ask("repair", path).code in (0, 1)
    assert ask("backup", path, path.with_name("copy")).code == 0
    with Journal.open(path, options=Options(application="golden/1")) as journal:
        assert journal.checkpoint is not None
        assert list(journal.checkpoint.items()) == items_at(CHECKPOINTS[-1])

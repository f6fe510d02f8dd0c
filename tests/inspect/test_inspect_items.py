"""journal-inspect: items of checkpoints of both versions, and the bytes in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from journal import Journal, Options
from tests.golden.journal_v1 import CHECKPOINTS
from tests.golden.journal_v1 import items as items_at
from tests.inspect.inspect_support import ask, checkpoints, compact, flip, golden, open_journal, put


def test_checkpoint_shows_bytes_as_log_does(tmp_path: Path) -> None:
    """Bytes in items are shown as bytes in records are, and no item for what stands in the file."""
    items: list[Any] = [b"\x00\xff", {"k": [b""]}, {"$bytes": "AP8="}, {"$bytes": b"A"}]
    shown = [
        {"base64": "AP8="},
        {"k": [{"base64": ""}]},
        {"$bytes": "AP8="},
        {"$bytes": {"base64": "QQ=="}},
    ]
    path = tmp_path / "j"
    with open_journal(path) as journal:
        put(journal, *items)
        compact(journal, *items)
    assert ask("checkpoint", path, "-o", "json").json["items"] == shown
    assert ask("checkpoint", path, "-o", "jsonl").jsonl[1:] == shown
    assert list(map(json.loads, ask("checkpoint", path).lines[-4:])) == shown
    assert [it["record"] for it in ask("log", path, "-o", "jsonl").jsonl] == shown
    hidden = ask("checkpoint", path, "--redact", "k", "-o", "json").json["items"]
    assert hidden == [shown[0], {"k": "[redacted]"}, *shown[2:]]


def test_checkpoints_of_both_versions_are_looked_at_alike(tmp_path: Path) -> None:
    """A journal with a checkpoint of version 1 and one of version 2: each verb takes both."""
    path = golden(tmp_path / "golden")
    with Journal.open(path, options=Options(application="golden/1")) as journal:
        put(journal, b"new")
        compact(journal, b"new", {"$bytes": "x"})
    versions = [json.loads(it.read_bytes().split(b",\n")[0] + b"}") for it in checkpoints(path)]
    assert [it["version"] for it in versions] == [1, 2]
    found = ask("info", path, "-o", "json").json
    assert [it["count"] for it in found["checkpoints"]] == [2, len(items_at(CHECKPOINTS[-1]))]
    assert "bad_checkpoint" not in ask("verify", path).out
    assert ask("checkpoint", path, "-o", "json").json["items"] == [
        {"base64": "bmV3"},
        {"$bytes": "x"},
    ]
    older = ask("checkpoint", path, "--lsn", CHECKPOINTS[-1], "-o", "json").json
    assert older["items"] == items_at(CHECKPOINTS[-1])
    flip(checkpoints(path)[1], 240)  # the newer one: an open, and a repair, take the older one
    assert "bad_checkpoint" in ask("verify", path).out
    assert ask("checkpoint", path, "-o", "json").json["lsn"] == CHECKPOINTS[-1]
    assert ask("repair", path).code in (0, 1)
    assert ask("backup", path, path.with_name("copy")).code == 0
    with Journal.open(path, options=Options(application="golden/1")) as journal:
        assert journal.checkpoint is not None
        assert list(journal.checkpoint.items()) == items_at(CHECKPOINTS[-1])

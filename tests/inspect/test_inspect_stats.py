"""journal-inspect stats: what a journal is full of."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgpack

from tests.inspect.inspect_support import (
    ask,
    damage_a_fleet,
    fleet,
    golden,
    make,
    open_journal,
    segments,
    tear,
)


def test_stats_count_records_and_bytes(tmp_path: Path) -> None:
    """By kind and agent, and of the commits that they came in."""
    with fleet(tmp_path) as manager:
        path = Path(manager.path)
    entries = ask("log", path, "-o", "json").json
    frames = [it for it in ask("log", path, "--frames", "-o", "json").json if it["count"]]
    shown = ask("stats", path, "-o", "json").json
    assert (shown["records"], shown["frames"]) == (len(entries), len(frames))
    assert (shown["first_lsn"], shown["last_lsn"]) == (1, 11)
    assert shown["bytes"] == sum(it["size_bytes"] for it in frames)
    kinds = Counter(entry["record"][0] for entry in entries)
    assert {it["kind"]: it["records"] for it in shown["kinds"]} == kinds
    sizes = {it["kind"]: it["bytes"] for it in shown["kinds"]}
    for kind, size in sizes.items():
        mine = [entry["record"] for entry in entries if entry["record"][0] == kind]
        assert size == sum(len(msgpack.packb(record)) for record in mine)
    assert list(sizes.values()) == sorted(sizes.values(), reverse=True)
    assert sum(it["records"] for it in shown["agents"]) == len(entries) - kinds["boot"]
    assert {it["name"] for it in shown["agents"]} == {"lead", "done", None}
    counts = [it["count"] for it in frames]
    assert shown["batch_records"]["count"] == len(counts)
    assert shown["batch_records"]["max"] == max(counts)
    assert shown["batch_records"]["mean"] == sum(counts) / len(counts)
    assert shown["batch_bytes"]["max"] == max(it["size_bytes"] for it in frames)
    assert shown["interval_ns"]["count"] == len(frames) - 1
    assert sum(it["records"] for it in shown["growth"]) == len(entries)
    assert len(ask("stats", path, "--top", 1, "-o", "json").json["agents"]) == 1


def test_stats_of_a_part_of_the_log(tmp_path: Path) -> None:
    """From and to an LSN, within frames too, and from and to a time; periods are equal and few."""
    path = golden(tmp_path / "j")

    def records(*args: object) -> tuple[int, int, int]:
        it = ask("stats", path, *args, "-o", "json").json
        return it["records"], it["first_lsn"], it["last_lsn"]

    assert records() == (52, 9, 60)
    assert records("--from-lsn", 54, "--to-lsn", 57) == (4, 54, 57)
    entries = ask("log", path, "-o", "json").json
    at_ns = entries[45 - 9]["written_at_ns"]
    at = datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat()
    assert records("-S", at)[1] == min(it["lsn"] for it in entries if it["written_at_ns"] >= at_ns)
    assert records("-U", at)[2] == max(it["lsn"] for it in entries if it["written_at_ns"] <= at_ns)
    batch = tmp_path / "batch"
    with open_journal(batch) as journal:
        journal.append_batch(list(range(10)))
    count_of = ask("stats", batch, "--from-lsn", 3, "--to-lsn", 5, "-o", "json").json
    assert (count_of["records"], count_of["first_lsn"], count_of["last_lsn"]) == (3, 3, 5)
    growth = ask("stats", path, "-o", "json").json["growth"]
    assert len(growth) <= 24
    assert len({it["to_ns"] - it["from_ns"] for it in growth}) == 1
    assert sum(it["records"] for it in growth) == 52
    lines = ask("stats", path).lines
    assert any(line.startswith("records per commit") for line in lines)
    assert any(line.split()[:1] == ["filler"] for line in lines)


def test_stats_go_on_behind_damage(tmp_path: Path) -> None:
    """P4: what is whole is counted, and that some is not is told."""
    damaged = damage_a_fleet(tmp_path)
    answer = ask("stats", damaged.path, "-o", "json")
    assert answer.code == 3
    assert 0 < answer.json["records"] < damaged.end
    assert f"journal-inspect verify {damaged.path}" in answer.err


def test_stats_take_no_torn_tail_for_damage(tmp_path: Path) -> None:
    """What a crash left unfinished is no damage, be it a frame whose header is whole."""
    path = make(tmp_path / "j")
    tear(path)
    assert (ask("stats", path).code, ask("stats", path).err) == (0, "")
    torn = make(tmp_path / "torn")
    file = segments(torn)[-1]
    at = ask("log", torn, "--frames", "-o", "json").json[-2]  # before the mark
    file.write_bytes(file.read_bytes()[: at["offset"] + at["size_bytes"] - 1])
    assert ask("verify", torn).code == 1
    answer = ask("stats", torn, "-o", "json")
    assert (answer.code, answer.json["records"], answer.err) == (0, 2, "")

"""journal-inspect stats: counts and sizes of a journal's records and commits."""

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
    """Records and bytes are counted by kind, by agent and by commit."""
    with fleet(tmp_path) as manager:
        path = Path(manager.path)
    entries = ask("log", path, "-o", "json").json
    frames = [frame for frame in ask("log", path, "--frames", "-o", "json").json if frame["count"]]
    output = ask("stats", path, "-o", "json").json
    assert (output["records"], output["frames"]) == (len(entries), len(frames))
    assert (output["first_lsn"], output["last_lsn"]) == (1, 11)
    assert output["bytes"] == sum(frame["size_bytes"] for frame in frames)
    kinds = Counter(entry["record"][0] for entry in entries)
    assert {kind["kind"]: kind["records"] for kind in output["kinds"]} == kinds
    sizes = {kind["kind"]: kind["bytes"] for kind in output["kinds"]}
    for kind, size in sizes.items():
        records = [entry["record"] for entry in entries if entry["record"][0] == kind]
        assert size == sum(len(msgpack.packb(record)) for record in records)
    assert list(sizes.values()) == sorted(sizes.values(), reverse=True)
    assert sum(agent["records"] for agent in output["agents"]) == len(entries) - kinds["boot"]
    assert {agent["name"] for agent in output["agents"]} == {"lead", "done", None}
    counts = [frame["count"] for frame in frames]
    assert output["batch_records"]["count"] == len(counts)
    assert output["batch_records"]["max"] == max(counts)
    assert output["batch_records"]["mean"] == sum(counts) / len(counts)
    assert output["batch_bytes"]["max"] == max(frame["size_bytes"] for frame in frames)
    assert output["interval_ns"]["count"] == len(frames) - 1
    assert sum(period["records"] for period in output["growth"]) == len(entries)
    assert len(ask("stats", path, "--top", 1, "-o", "json").json["agents"]) == 1


def test_stats_cover_a_range(tmp_path: Path) -> None:
    """Stats cover a range of LSNs, even within a frame, or of times, in a few equal periods."""
    path = golden(tmp_path / "j")

    def records(*args: object) -> tuple[int, int, int]:
        stats = ask("stats", path, *args, "-o", "json").json
        return stats["records"], stats["first_lsn"], stats["last_lsn"]

    assert records() == (52, 9, 60)
    assert records("--from-lsn", 54, "--to-lsn", 57) == (4, 54, 57)
    entries = ask("log", path, "-o", "json").json
    at_ns = entries[45 - 9]["written_at_ns"]
    at = datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat()
    assert records("-S", at)[1] == min(
        entry["lsn"] for entry in entries if entry["written_at_ns"] >= at_ns
    )
    assert records("-U", at)[2] == max(
        entry["lsn"] for entry in entries if entry["written_at_ns"] <= at_ns
    )
    batch = tmp_path / "batch"
    with open_journal(batch) as journal:
        journal.append_batch(list(range(10)))
    ranged = ask("stats", batch, "--from-lsn", 3, "--to-lsn", 5, "-o", "json").json
    assert (ranged["records"], ranged["first_lsn"], ranged["last_lsn"]) == (3, 3, 5)
    growth = ask("stats", path, "-o", "json").json["growth"]
    assert len(growth) <= 24
    assert len({period["to_ns"] - period["from_ns"] for period in growth}) == 1
    assert sum(period["records"] for period in growth) == 52
    lines = ask("stats", path).lines
    assert any(line.startswith("records per commit") for line in lines)
    assert any(line.split()[:1] == ["filler"] for line in lines)


def test_stats_continue_after_damage(tmp_path: Path) -> None:
    """P4: Whole frames after damage are counted, and the damage is reported."""
    damaged = damage_a_fleet(tmp_path)
    answer = ask("stats", damaged.path, "-o", "json")
    assert answer.code == 3
    assert 0 < answer.json["records"] < damaged.end
    assert f"journal-inspect verify {damaged.path}" in answer.err


def test_a_torn_tail_is_no_damage_to_stats(tmp_path: Path) -> None:
    """A torn tail is no damage, even if its frame's header is whole."""
    path = make(tmp_path / "j")
    tear(path)
    assert (ask("stats", path).code, ask("stats", path).err) == (0, "")
    torn = make(tmp_path / "torn")
    file = segments(torn)[-1]
    torn_frame = ask("log", torn, "--frames", "-o", "json").json[-2]  # before the mark
    file.write_bytes(file.read_bytes()[: torn_frame["offset"] + torn_frame["size_bytes"] - 1])
    assert ask("verify", torn).code == 1
    answer = ask("stats", torn, "-o", "json")
    assert (answer.code, answer.json["records"], answer.err) == (0, 2, "")

"""journal-inspect verify, repair, backup, stats: what is lost, what is safe, what to do next."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from journal import Journal, JournalReader
from manager import SubAgentManager
from tests.inspect.inspect_support import (
    FRAME_BYTES,
    Damaged,
    ask,
    checkpoints,
    contents,
    damage_a_fleet,
    fleet,
    flip,
    golden,
    make,
    open_journal,
    put,
    segments,
    tear,
)


@pytest.fixture
def damaged(tmp_path: Path) -> Damaged:
    return damage_a_fleet(tmp_path)


def open_lsns(path: Path) -> list[int]:
    """What an open finds, on a copy."""
    copy = path.with_name("copy")
    shutil.copytree(path, copy)
    try:
        with Journal.open(copy) as journal:
            return [entry.lsn for entry in journal.replay(0)]
    finally:
        shutil.rmtree(copy)


# --- verify ---


def test_verify_tells_what_is_lost_what_is_safe_and_what_to_type(damaged: Damaged) -> None:
    """P4: the last good LSN, the first and last that are lost, which of them can be read; each
    command that it gives does what it says."""
    answer = ask("verify", damaged.path)
    lost, readable = damaged.end - damaged.lsn + 1, damaged.end - damaged.last_lsn
    assert answer.code == 3
    assert answer.lines[1:] == [
        f"lost            LSN {damaged.lsn} to {damaged.end} ({lost} records)",
        f"readable        LSN {damaged.last_lsn + 1} to {damaged.end} ({readable} records)",
        f"unreadable      {lost - readable} lost records of unknown origin",
        f"last good LSN {damaged.lsn - 1}; 1 corruption",
    ]
    summary = ask("verify", damaged.path, "-o", "jsonl").jsonl[-1]
    assert (summary["first_lost_lsn"], summary["last_lost_lsn"]) == (damaged.lsn, damaged.end)
    assert summary["readable"] == [{"first_lsn": damaged.last_lsn + 1, "last_lsn": damaged.end}]
    path = damaged.path
    for command in (
        f"log {path} --to-lsn {damaged.lsn - 1}",
        f"agents {path} --at {damaged.lsn - 1}",
        f"repair {path} --salvage",
    ):
        assert f"journal-inspect {command}" in answer.err
        assert ask(*command.split()).code == (3 if command.startswith("repair") else 0)


def test_verify_from_an_lsn_leaves_out_what_ends_before_it(damaged: Damaged) -> None:
    """--from-lsn: damage in older segments is not looked for, later damage is found."""
    firsts = [int(file.name[:20]) for file in segments(damaged.path)]
    assert ask("verify", damaged.path, "--from-lsn", firsts[2]).code == 3
    answer = ask("verify", damaged.path, "--from-lsn", firsts[3])
    assert (answer.code, answer.out) == (
        0,
        f"last good LSN {damaged.end}; no findings; checked from LSN {firsts[3]}\n",
    )
    flip(segments(damaged.path)[-1], 64 + FRAME_BYTES)
    assert ask("verify", damaged.path, "--from-lsn", firsts[3]).code == 3


def test_verify_reports_progress_in_bytes(tmp_path: Path) -> None:
    """All that is looked at is told, bit by bit: in the end what the frames and items take."""
    with fleet(tmp_path) as manager:
        path = Path(manager.path)
    told: list[int] = []
    with JournalReader.open(path) as reader:
        assert list(reader.verify(progress=told.append)) == []
        frames = sum(info.size_bytes for info in reader.frames() if info.state == "log")
    assert len(told) > 1
    assert sum(told) == frames + sum(file.stat().st_size for file in checkpoints(path))


def test_verify_finds_a_payload_that_is_whole_and_does_not_decode(tmp_path: Path) -> None:
    """P4: CRCs hold for whatever was written; what no writer of ours writes is corruption."""
    for number, payload in enumerate(
        (b"\xc1", b"\xa1\xff", b"\x01", b"\x01\x02\x03", b"\x81\x90\x01")
    ):
        path = make(tmp_path / str(number), [])
        (path / "00000000000000000001-0000000001.seg").write_bytes(segment_of(payload))
        answer = ask("verify", path, "-o", "json")
        assert answer.code == 3, payload
        assert "payload is whole, but" in answer.json["findings"][0]["message"]
    path = make(tmp_path / "good", [])
    (path / "00000000000000000001-0000000001.seg").write_bytes(segment_of(b"\x01\x02"))
    assert ask("verify", path).code == 0


def segment_of(payload: bytes) -> bytes:
    """A segment of one frame that says it holds two records."""
    from tests.independent_reader import crc32c

    head = b"\x89JRNL\r\n\x1a" + bytes([1, 0, 0, 0, 1, 0, 0, 0]) + b"i" * 16
    head += (1).to_bytes(8, "little") + (5).to_bytes(8, "little") + bytes(12)
    seed = crc32c(head)
    fields = crc32c(payload).to_bytes(4, "little") + (1).to_bytes(8, "little") + bytes(8)
    fields += (5).to_bytes(8, "little") + len(payload).to_bytes(4, "little")
    fields += (2).to_bytes(4, "little") + bytes([1, 0, 0, 0])
    crc = crc32c(fields, seed).to_bytes(4, "little")
    return head + seed.to_bytes(4, "little") + crc + fields + payload


# --- repair ---


def test_repair_is_a_dry_run_by_default(damaged: Damaged) -> None:
    """Nothing is changed, and it says what would be kept, cut and lost, by LSN and by agent."""
    before = contents(damaged.path)
    answer = ask("repair", damaged.path, "--salvage")
    assert answer.code == 3
    assert contents(damaged.path) == before
    assert [file.name for file in damaged.path.parent.iterdir()] == [damaged.path.name]
    shown = ask("repair", damaged.path, "--salvage", "-o", "json").json
    assert not shown["applied"]
    assert shown["last_lsn"] == damaged.lsn - 1
    assert (shown["first_lost_lsn"], shown["last_lost_lsn"]) == (damaged.lsn, damaged.end)
    wanted: Counter[str] = Counter()
    for record in damaged.records[damaged.last_lsn :]:
        wanted[record[1]] += 1
    assert {it["agent_id"]: it["records"] for it in shown["lost_by_agent"]} == wanted
    names = {record[1]: record[7] for record in damaged.records if record[0] == "spawn"}
    for it in shown["lost_by_agent"]:
        assert it["name"] == names[it["agent_id"]]
        assert it["kinds"] == {"spawn": 1, "result": 1}
    assert shown["removed"] == [file.name for file in reversed(segments(damaged.path)[3:])]
    assert "nothing was changed; to repair it" in answer.err
    assert f"journal-inspect repair {damaged.path} --salvage --apply" in answer.err
    facts = dict(line.split("  ", 1) for line in answer.lines[:6])
    assert facts["kept"].strip() == f"up to LSN {damaged.lsn - 1}"
    assert (
        facts["lost"].strip().endswith(f"{damaged.last_lsn - damaged.lsn + 1} of them unreadable")
    )


def test_repair_applied_opens_and_keeps_all_that_it_cut(damaged: Damaged) -> None:
    """P1, P4: what is good is kept; copies of what was removed and a journal of what was whole
    behind the damage stand beside it; then it opens, verifies, and can be repaired again."""
    cut = {file.name: file.read_bytes() for file in segments(damaged.path)[3:]}
    answer = ask("repair", damaged.path, "--apply", "--salvage", "-o", "json")
    assert answer.code == 0
    shown = answer.json
    assert shown["applied"]
    saved, salvaged = Path(shown["saved_to"]), Path(shown["salvaged_to"])
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == cut
    records = [it["record"] for it in ask("log", salvaged, "-o", "json").json]
    assert records == damaged.records[damaged.last_lsn :]
    assert "spawn       agent_" in ask("log", salvaged, "-n", 2).out
    assert open_lsns(damaged.path) == list(range(1, damaged.lsn))
    verified = ask("verify", damaged.path, "-o", "json")
    assert verified.code == 1  # what is left behind the cut
    assert verified.json["counts"]["corruption"] == 0
    assert verified.json["first_lost_lsn"] is None
    assert verified.json["cut"]
    assert ask("info", damaged.path).code == 0
    again = ask("repair", damaged.path)
    assert again.code == 0
    assert "it opens as it is; there is nothing to repair" in again.err


def test_repair_cuts_where_it_is_told(damaged: Damaged) -> None:
    """--cut-at: the last LSN to keep, the end of a commit; one that is none is refused, with one
    beside it; on a whole journal too."""
    at = damaged.lsn - 1
    assert open_cut(damaged.path, at - 2) == list(range(1, at - 1))
    whole = make(damaged.path.parent / "whole", [1, 2, 3, 4])
    dry = ask("repair", whole, "--cut-at", 2)
    assert dry.code == 0
    assert "LSN 3 to 4 (2 records), 0 of them unreadable" in dry.out
    assert f"repair {whole} --cut-at 2 --apply" in dry.err
    assert f"repair {whole} --cut-at 2 --salvage" in dry.err
    assert open_cut(whole, 2) == [1, 2]
    batch = damaged.path.parent / "batch"
    with open_journal(batch) as journal:
        journal.append_batch([1, 2, 3])
    answer = ask("repair", batch, "--cut-at", 2, "--apply")
    assert (answer.code, answer.out) == (2, "")
    assert "a possible cut near it: LSN 3" in answer.err


def open_cut(path: Path, lsn: int) -> list[int]:
    copy = path.with_name("to-be-cut")
    shutil.copytree(path, copy)
    try:
        assert ask("repair", copy, "--cut-at", lsn, "--apply").code == 0
        return open_lsns(copy)
    finally:
        shutil.rmtree(copy)


def test_repair_of_a_torn_tail_alone(tmp_path: Path) -> None:
    """There is nothing to repair; it opens as it is."""
    path = make(tmp_path / "j")
    tear(path)
    before = contents(path)
    for apply in ([], ["--apply"]):
        answer = ask("repair", path, *apply)
        assert answer.code == 0
        assert "none: it opens as it is" in answer.out
    assert contents(path) == before


def test_repair_without_anything_to_start_from_is_refused(tmp_path: Path) -> None:
    """P4: where the log's beginning and every checkpoint are gone, nothing is made up."""
    path = golden(tmp_path / "j")
    for file in checkpoints(path):
        flip(file, 40)
    before = contents(path)
    answer = ask("repair", path, "--apply")
    assert (answer.code, answer.out) == (3, "")
    assert f"restore a backup, or see what is left: journal-inspect log {path};" in answer.err
    assert contents(path) == before


# --- backup ---


def test_backup_of_a_live_journal_opens_to_the_state_at_its_lsn(tmp_path: Path) -> None:
    """P6: it is verified, and another manager finds in it what the first one had."""
    with fleet(tmp_path) as manager:
        dest = tmp_path / "elsewhere" / ".subagents"
        dest.parent.mkdir()
        answer = ask("backup", manager.path, dest, "-o", "json")
        live = {it.agent_id: it.result for it in manager.agents(include_archived=True)}
        last_lsn = manager.stats().last_lsn
    assert answer.code == 0
    assert (answer.json["path"], answer.json["lsn"]) == (str(dest), last_lsn)
    assert f"journal-inspect info {dest}" in answer.err
    with SubAgentManager.open(dest.parent) as copy:
        assert {it.agent_id: it.result for it in copy.agents(include_archived=True)} == live


def test_backup_writes_over_nothing(tmp_path: Path) -> None:
    """A place that holds something, lies in the journal, or in no directory is refused, and says
    what to do."""
    path = make(tmp_path / "j")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    before = contents(path)
    for dest, words in {
        "full": "already exists; choose a new directory",
        "file": "already exists; choose a new directory",
        "j/copy": "lies inside the journal; choose a directory outside",
        "none/copy": "its parent directory does not exist",
    }.items():
        answer = ask("backup", path, tmp_path / dest)
        assert (answer.code, answer.out) == (4, "")
        assert words in answer.err
    assert contents(path) == before
    text = ask("backup", path, tmp_path / "copy")
    assert "up to LSN    3" in text.lines


def test_backup_of_a_damaged_journal_is_refused(damaged: Damaged) -> None:
    """P4: a backup is a whole journal or none."""
    copy = damaged.path.with_name("copy")
    for _ in range(2):
        answer = ask("backup", damaged.path, copy)
        assert (answer.code, answer.out) == (3, "")
        assert not copy.exists()
    copy.mkdir(mode=0o700)
    assert ask("backup", damaged.path, copy).code == 3
    assert list(copy.iterdir()) == []
    assert f"journal-inspect verify {damaged.path}" in answer.err


def test_the_dead_and_the_cut_are_told_apart(damaged: Damaged) -> None:
    """P4: whole frames behind damage are dead; after the cut they are no part of the log."""

    def states() -> Counter[str]:
        with JournalReader.open(damaged.path) as reader:
            return Counter(info.state for info in reader.frames() if info.count)

    before = states()
    assert before["dead"] > 0
    assert (before["damaged"], before["cut"]) == (1, 0)
    assert ask("repair", damaged.path, "--apply").code == 0
    after = states()
    assert (after["cut"], after["dead"]) == (before["dead"], 0)


def test_lost_is_what_anything_tells_of(tmp_path: Path) -> None:
    """P4: damage to the last commit is known from the mark behind it: lost, and not readable."""
    path = make(tmp_path / "j", ["a", "b", "c"])
    with JournalReader.open(path) as reader:
        *_, last = reader.entries()
    assert last.offset
    flip(segments(path)[0], last.offset + FRAME_BYTES)
    answer = ask("verify", path)
    assert answer.code == 3
    assert answer.lines[1:] == [
        "lost            LSN 3 (1 record)",
        "readable        none",
        "unreadable      1 lost record of unknown origin",
        "last good LSN 2; 1 corruption",
    ]
    assert f"journal-inspect repair {path}\n" in answer.err
    assert ask("repair", path).lines[-1] == "unreadable: 1 lost record of unknown origin"
    with open_journal(tmp_path / "two") as journal:
        put(journal, 1)

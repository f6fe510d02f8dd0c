"""journal-inspect verify, repair, backup: what is lost, what is safe, and what to do next."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from journal import Journal, JournalReader
from manager import SubAgentManager
from tests.inspect.damage_support import damage_frame
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
    """Return the LSNs that an open of a copy replays."""
    copy = path.with_name("copy")
    shutil.copytree(path, copy)
    try:
        with Journal.open(copy) as journal:
            return [entry.lsn for entry in journal.replay(0)]
    finally:
        shutil.rmtree(copy)


# --- verify ---


def test_verify_states_the_loss_and_advises_commands_that_work(damaged: Damaged) -> None:
    """P4: verify states the last good LSN, the lost LSNs, and which of them are readable.

    Each command that it advises works.
    """
    answer = ask("verify", damaged.path)
    lost_count, readable = damaged.end - damaged.lsn + 1, damaged.end - damaged.last_lsn
    assert answer.code == 3
    assert answer.lines[2:] == [
        f"  good            up to LSN {damaged.lsn - 1}",
        f"  lost            LSN {damaged.lsn} to {damaged.end} ({lost_count} records)",
        f"  readable        LSN {damaged.last_lsn + 1} to {damaged.end} ({readable} records)",
        f"  unreadable      {lost_count - readable} of the lost records"
        "; it is unknown which agents they were of",
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


def test_verify_from_an_lsn_skips_older_segments(damaged: Damaged) -> None:
    """--from-lsn skips damage in older segments, and finds later damage."""
    firsts = [int(file.name[:20]) for file in segments(damaged.path)]
    assert ask("verify", damaged.path, "--from-lsn", firsts[2]).code == 3
    answer = ask("verify", damaged.path, "--from-lsn", firsts[3])
    assert (answer.code, answer.out) == (
        0,
        f"{damaged.path}: whole.\n"
        f"  good            up to LSN {damaged.end}, checked from LSN {firsts[3]}\n",
    )
    flip(segments(damaged.path)[-1], 64 + FRAME_BYTES)
    assert ask("verify", damaged.path, "--from-lsn", firsts[3]).code == 3


def test_verify_reports_progress_in_bytes(tmp_path: Path) -> None:
    """Progress adds up to the bytes of all frames and checkpoints."""
    with fleet(tmp_path) as manager:
        path = Path(manager.path)
    steps: list[int] = []
    with JournalReader.open(path) as reader:
        assert list(reader.verify(progress=steps.append)) == []
        frames = sum(info.size_bytes for info in reader.frames() if info.state == "log")
    assert len(steps) > 1
    assert sum(steps) == frames + sum(file.stat().st_size for file in checkpoints(path))


def test_verify_finds_a_whole_payload_that_does_not_decode(tmp_path: Path) -> None:
    """P4: A payload with a valid CRC that no writer of ours writes is corruption."""
    for number, payload in enumerate(
        (b"\xc1", b"\xa1\xff", b"\x01", b"\x01\x02\x03", b"\x81\x90\x01")
    ):
        path = make(tmp_path / str(number), [], application="")
        (path / "00000000000000000001-0000000001.seg").write_bytes(segment_of(payload))
        answer = ask("verify", path, "-o", "json")
        assert answer.code == 3, payload
        assert "payload is whole, but" in answer.json["findings"][0]["message"]
    path = make(tmp_path / "good", [], application="")
    (path / "00000000000000000001-0000000001.seg").write_bytes(segment_of(b"\x01\x02"))
    assert ask("verify", path).code == 0


def segment_of(payload: bytes) -> bytes:
    """Return a segment with one frame whose header counts two records."""
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
    """A dry run changes nothing, and states what is kept, cut and lost, by LSN and by agent."""
    before = contents(damaged.path)
    answer = ask("repair", damaged.path, "--salvage")
    assert answer.code == 3
    assert contents(damaged.path) == before
    assert [file.name for file in damaged.path.parent.iterdir()] == [damaged.path.name]
    output = ask("repair", damaged.path, "--salvage", "-o", "json").json
    assert not output["applied"]
    assert output["last_lsn"] == damaged.lsn - 1
    assert (output["first_lost_lsn"], output["last_lost_lsn"]) == (damaged.lsn, damaged.end)
    expected: Counter[str] = Counter()
    for record in damaged.records[damaged.last_lsn :]:
        expected[record[1]] += 1
    assert {agent["agent_id"]: agent["records"] for agent in output["lost_by_agent"]} == expected
    names = {record[1]: record[7] for record in damaged.records if record[0] == "spawn"}
    for agent in output["lost_by_agent"]:
        assert agent["name"] == names[agent["agent_id"]]
        assert agent["kinds"] == {"spawn": 1, "result": 1}
    assert output["removed"] == [file.name for file in reversed(segments(damaged.path)[3:])]
    assert "nothing was changed; to repair it" in answer.err
    assert f"journal-inspect repair {damaged.path} --salvage --apply" in answer.err
    facts = dict(line.split("  ", 1) for line in answer.lines[:6])
    assert facts["kept"].strip() == f"up to LSN {damaged.lsn - 1}"
    assert (
        facts["lost"].strip().endswith(f"{damaged.last_lsn - damaged.lsn + 1} of them unreadable")
    )


def test_a_repair_of_another_programs_journal_names_no_agents(tmp_path: Path) -> None:
    """The lost records are counted by kind alone, also if some look like those of a manager."""
    path = make(tmp_path / "log", [[1], [2], [3], ["progress", "a.txt", 1, 2], "text"])
    damage_frame(path, 2)
    answer = ask("repair", path)
    assert "AGENT" not in answer.out
    header = answer.lines.index("LOST RECORDS  FIRST LSN  LAST LSN  KINDS")
    row = answer.lines[header + 1].split(maxsplit=3)
    assert row == ["3", "3", "5", "1 (array), 1 progress, 1 (str)"]
    (lost,) = ask("repair", path, "-o", "json").json["lost_by_agent"]
    assert (lost["agent_id"], lost["name"], lost["records"]) == (None, None, 3)


def test_an_applied_repair_keeps_copies_of_all_that_it_cut(damaged: Damaged) -> None:
    """P1, P4: Good records are kept; removed files, and whole frames after the damage, are saved.

    The saved files are beside the journal, which then opens, verifies, and can be repaired again.
    """
    cut = {file.name: file.read_bytes() for file in segments(damaged.path)[3:]}
    answer = ask("repair", damaged.path, "--apply", "--salvage", "-o", "json")
    assert answer.code == 0
    output = answer.json
    assert output["applied"]
    saved, salvaged = Path(output["saved_to"]), Path(output["salvaged_to"])
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == cut
    records = [entry["record"] for entry in ask("log", salvaged, "-o", "json").json]
    assert records == damaged.records[damaged.last_lsn :]
    assert "spawn       agent_" in ask("log", salvaged, "-n", 2).out
    assert open_lsns(damaged.path) == list(range(1, damaged.lsn))
    verified = ask("verify", damaged.path, "-o", "json")
    assert verified.code == 1  # for the torn tail before the cut
    assert verified.json["counts"]["corruption"] == 0
    assert verified.json["first_lost_lsn"] is None
    assert verified.json["cut"]
    assert ask("info", damaged.path).code == 0
    again = ask("repair", damaged.path)
    assert again.code == 0
    assert "it opens as it is; there is nothing to repair" in again.err


def test_repair_cuts_at_the_given_lsn(damaged: Damaged) -> None:
    """--cut-at names the last LSN to keep, on a whole journal too.

    An LSN that is not the end of a commit is refused, and a possible one is named.
    """
    at = damaged.lsn - 1
    assert open_cut(damaged.path, at - 2) == list(range(1, at - 1))
    healthy = make(damaged.path.parent / "whole", [1, 2, 3, 4])
    dry = ask("repair", healthy, "--cut-at", 2)
    assert dry.code == 0
    assert "LSN 3 to 4 (2 records), 0 of them unreadable" in dry.out
    assert f"repair {healthy} --cut-at 2 --apply" in dry.err
    assert f"repair {healthy} --cut-at 2 --salvage" in dry.err
    assert open_cut(healthy, 2) == [1, 2]
    batch = damaged.path.parent / "batch"
    with open_journal(batch) as journal:
        journal.append_batch([1, 2, 3])
    answer = ask("repair", batch, "--cut-at", 2, "--apply")
    assert (answer.code, answer.out) == (2, "")
    assert "the nearest are LSN 0 and 3" in answer.err
    assert open_cut(batch, 0) == []


def open_cut(path: Path, lsn: int) -> list[int]:
    copy = path.with_name("to-be-cut")
    shutil.copytree(path, copy)
    try:
        assert ask("repair", copy, "--cut-at", lsn, "--apply").code == 0
        return open_lsns(copy)
    finally:
        shutil.rmtree(copy)


def test_a_torn_tail_needs_no_repair(tmp_path: Path) -> None:
    """A torn tail needs no repair, because an open handles it."""
    path = make(tmp_path / "j")
    tear(path)
    before = contents(path)
    for apply in ([], ["--apply"]):
        answer = ask("repair", path, *apply)
        assert answer.code == 0
        assert "none: it opens as it is" in answer.out
    assert contents(path) == before


def test_repair_without_anything_to_start_from_is_refused(tmp_path: Path) -> None:
    """P4: If the log's beginning and every checkpoint are gone, a repair is refused."""
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
    """P6: A backup is verified, and another manager recovers from it what the first one had."""
    with fleet(tmp_path) as manager:
        dest = tmp_path / "elsewhere" / ".subagents"
        dest.parent.mkdir()
        answer = ask("backup", manager.path, dest, "-o", "json")
        live = {agent.agent_id: agent.result for agent in manager.agents(include_archived=True)}
        last_lsn = manager.stats().last_lsn
    assert answer.code == 0
    assert (answer.json["path"], answer.json["lsn"]) == (str(dest), last_lsn)
    assert f"journal-inspect info {dest}" in answer.err
    with SubAgentManager.open(dest.parent) as copy:
        assert {
            agent.agent_id: agent.result for agent in copy.agents(include_archived=True)
        } == live


def test_backup_copies_output_on_request(tmp_path: Path) -> None:
    """The output of commands is left out of a backup, unless it is asked for. No symlink in it is
    followed."""
    path = make(tmp_path / "j")
    output = path / "output"
    output.mkdir()
    (output / "agent_0123456789ab.7.out.0").write_bytes(b"\xffprinted")
    (output / "link").symlink_to("/etc/passwd")
    os.mkfifo(output / "fifo")
    (path / "control").mkdir()
    ask("backup", path, tmp_path / "without")
    answer = ask("backup", path, tmp_path / "with", "--output", "-o", "json")
    for companion in ("control", "output"):
        assert not (tmp_path / "without" / companion).exists()
    assert (answer.json["output_files"], answer.json["output_bytes"]) == (1, 8)
    copied = tmp_path / "with" / "output"
    assert [(file.name, file.read_bytes()) for file in copied.iterdir()] == [
        ("agent_0123456789ab.7.out.0", b"\xffprinted")
    ]
    assert copied.stat().st_mode & 0o777 == 0o700
    assert ask("verify", tmp_path / "with").code == 0


def test_backup_follows_no_link_to_output(tmp_path: Path) -> None:
    """A symlink in place of the directory of outputs is refused. The message says what is left."""
    path = make(tmp_path / "j")
    (tmp_path / "secret").mkdir()
    (path / "output").symlink_to(tmp_path / "secret")
    answer = ask("backup", path, tmp_path / "copy", "--output")
    assert answer.code == 4
    assert "the journal is copied and verified, but the output" in answer.err
    assert not (tmp_path / "copy" / "output").exists()


def test_backup_overwrites_nothing(tmp_path: Path) -> None:
    """A destination that exists, is inside the journal, or has no parent directory is refused.

    The message says what to do.
    """
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
    """P4: A backup of a damaged journal is refused and leaves nothing."""
    copy = damaged.path.with_name("copy")
    for _ in range(2):
        answer = ask("backup", damaged.path, copy)
        assert (answer.code, answer.out) == (3, "")
        assert not copy.exists()
    copy.mkdir(mode=0o700)
    assert ask("backup", damaged.path, copy).code == 3
    assert list(copy.iterdir()) == []
    assert f"journal-inspect verify {damaged.path}" in answer.err


def test_frames_are_dead_before_a_cut_and_cut_after_it(damaged: Damaged) -> None:
    """P4: Whole frames after damage are dead; after a cut there they are not part of the log."""

    def states() -> Counter[str]:
        with JournalReader.open(damaged.path) as reader:
            return Counter(info.state for info in reader.frames() if info.count)

    before = states()
    assert before["dead"] > 0
    assert (before["damaged"], before["cut"]) == (1, 0)
    assert ask("repair", damaged.path, "--apply").code == 0
    after = states()
    assert (after["cut"], after["dead"]) == (before["dead"], 0)


def test_a_mark_proves_that_the_last_commit_is_lost(tmp_path: Path) -> None:
    """P4: A damaged last commit is reported as lost, because the mark after it proves it."""
    path = make(tmp_path / "j", ["a", "b", "c"])
    with JournalReader.open(path) as reader:
        *_, last = reader.entries()
    assert last.offset
    flip(segments(path)[0], last.offset + FRAME_BYTES)
    answer = ask("verify", path)
    assert answer.code == 3
    assert answer.lines[2:] == [
        "  good            up to LSN 2",
        "  lost            LSN 3 (1 record)",
        "  readable        none",
        "  unreadable      1 of the lost records",
    ]
    assert f"journal-inspect repair {path}  " in answer.err
    assert ask("repair", path).lines[-1] == "unreadable: 1 of the lost records"
    with open_journal(tmp_path / "two") as journal:
        put(journal, 1)

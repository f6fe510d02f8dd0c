"""journal-inspect on damaged journals: info, verify and repair agree, and nothing good is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from journal import CorruptionError, Journal, JournalReader
from manager import SubAgentManager
from tests.inspect.damage_support import (
    LAST_LSN,
    REFUSED,
    copy_as,
    damage_frame,
    history,
    segment,
)
from tests.inspect.inspect_support import (
    ask,
    checkpoints,
    compact,
    contents,
    damage_all_frames,
    flip,
    make,
    open_journal,
    put,
    segments,
)
from tests.inspect.test_inspect_schemas import check
from tests.tiers import slow_but_every


def opened(path: Path) -> tuple[int, list[int]]:
    """Open the journal. Return its last LSN and the LSNs that it replays."""
    with Journal.open(path) as journal:
        return journal.last_lsn, [entry.lsn for entry in journal.replay()]


@pytest.mark.parametrize("case", slow_but_every(3, REFUSED))
def test_verify_info_repair_and_open_agree_on_damage(tmp_path: Path, case: str) -> None:
    """P1, P4: verify, info and a dry repair agree on the last LSN and the loss, and change nothing.

    With --apply, the repair does what it announced. Each byte is where it was or in the copies. The
    journal then opens up to that LSN, and verify reports no loss.
    """
    damage, last_lsn = REFUSED[case]
    path = history(tmp_path / "j")
    damage(path)
    before = contents(path)
    with pytest.raises(CorruptionError):
        Journal.open(path)
    info, verify = ask("info", path), ask("verify", path, "-o", "json")
    assert f"repair        would keep everything up to LSN {last_lsn}" in info.lines
    dry = ask("repair", path, "-o", "json")
    assert (info.code, verify.code, dry.code) == (3, 3, 3)
    losses = [
        (answer["first_lost_lsn"], answer["last_lost_lsn"]) for answer in (verify.json, dry.json)
    ]
    assert losses[0] == losses[1]
    assert verify.json["last_good_lsn"] == dry.json["last_lsn"] == last_lsn
    assert contents(path) == before
    done = ask("repair", path, "--apply", "-o", "json")
    assert done.code == 0
    same = ("last_lsn", "removed", "salvaged", "readable", "lost_by_agent")
    assert {key: done.json[key] for key in same} == {key: dry.json[key] for key in same}
    remaining = {file.name: file.read_bytes() for file in path.iterdir()}
    saved = Path(done.json["saved_to"] or tmp_path / "none")
    copies = {file.name: file.read_bytes() for file in saved.glob("*")}
    assert {**remaining, **copies}.items() >= {
        name: data for name, (data, *_) in before.items() if name != "LOCK"
    }.items()
    assert opened(path)[0] == last_lsn
    verify = ask("verify", path, "-o", "json")
    assert (verify.json["last_good_lsn"], verify.json["first_lost_lsn"]) == (last_lsn, None)
    assert ask("repair", path).code == 0


def test_a_loss_without_a_known_end_has_a_first_lsn(tmp_path: Path) -> None:
    """P4: If nothing says how many records the last segment had, JSON states the first LSN that may
    be lost, and no last one, as the text does."""
    path = history(tmp_path / "j")
    os.truncate(segment(path, 37), 0)
    for verb in ("verify", "repair"):
        assert "any records after LSN 36" in ask(verb, path).out
        answer = ask(verb, path, "-o", "json")
        assert (answer.json["first_lost_lsn"], answer.json["last_lost_lsn"]) == (37, None)
        check(verb, path)


def test_setting_a_stray_segment_aside_loses_no_record(tmp_path: Path) -> None:
    """P4: verify says that no record is lost; repair sets the file aside and cuts nothing."""
    path = history(tmp_path / "j")
    copy = copy_as(segment(path, 22), 24, 2)
    verify = ask("verify", path)
    assert verify.lines[2:] == [f"  good            up to LSN {LAST_LSN}"]
    assert "LSN 24 is in 00000000000000000022-0000000002.seg" in verify.lines[1]
    assert "no record is lost" in verify.err
    assert f"journal-inspect repair {path}  " in verify.err
    lines = ask("repair", path).lines
    facts = {line.split("  ")[0]: line.rpartition("  ")[2].strip() for line in lines}
    assert (facts["lost"], facts["set aside"]) == ("none", copy.name)
    assert facts["cut away"] == "no file"


def test_damage_before_the_checkpoint_leaves_its_state(tmp_path: Path) -> None:
    """P4, P5: Damage that the checkpoint covers keeps no journal from opening, and loses nothing.

    Every verb says so, and verify also names the checkpoint that can't be fallen back on.
    """
    path = history(tmp_path / "j")
    damage_frame(path, 19)
    verify = ask("verify", path)
    assert verify.code == 1
    past = "  history         LSN 19 (1 record) can't be read. No state is lost: "
    assert f"{past}the checkpoint at LSN 20 has it" in verify.lines
    assert verify.lines[-1].startswith("  fallback        the checkpoint at LSN 8 can't replace")
    assert f"  good            up to LSN {LAST_LSN}" in verify.lines
    info = ask("info", path)
    assert info.code == 1
    assert "LSNs          7 to 45, unreadable: 19 (1 record), durable up to 45" in info.lines
    assert ask("info", path, "-o", "json").json["unreadable"] == [{"first_lsn": 19, "last_lsn": 19}]
    repair = ask("repair", path)
    assert (repair.code, repair.lines[1]) == (0, "problem      none: it opens as it is")
    assert ask("log", path, "--from-lsn", 20).code == 0
    assert ask("log", path).code == 3
    assert opened(path)[0] == LAST_LSN


@pytest.mark.parametrize(("checkpoint_lsn", "code"), [(9, 3), (10, 1)])
@pytest.mark.parametrize("is_live", [False, True])
def test_a_checkpoint_in_the_middle_of_a_damaged_frame_does_not_cover_it(
    tmp_path: Path, is_live: bool, checkpoint_lsn: int, code: int
) -> None:
    """P4: verify and info report that an open would refuse if the checkpoint covers only the first
    records of a damaged frame, beside a live writer, too. verify calls no others covered."""
    path = tmp_path / "j"
    with open_journal(path) as journal:
        for lsn in range(1, 16, 2):
            journal.wait_durable(journal.append_batch([[lsn], [lsn + 1]]))
            if lsn == 9:
                journal.compact(lambda: (checkpoint_lsn, ["state"])).close()
        if is_live:
            damage_frame(path, 9)
            assert (ask("verify", path).code, ask("info", path).code) == (code, code)
            return
    damage_frame(path, 9)
    verify = ask("verify", path)
    assert (verify.code, ask("info", path).code) == (code, code)
    lsns = "LSN 9 (1 record)" if checkpoint_lsn == 9 else "LSN 9 to 10 (2 records)"
    assert f"  history         {lsns} can't be read. No state is lost: " in verify.out
    assert f"checkpoint at LSN {checkpoint_lsn} can't replace" not in verify.out


def test_verify_names_the_fleet_that_its_checkpoint_holds(tmp_path: Path) -> None:
    """P6: If the log before the newest checkpoint is damaged, that checkpoint's state can be shown.

    verify advises the command.
    """
    with SubAgentManager.open(tmp_path) as manager:
        for number in range(4):
            manager.wait_durable(manager.spawn("x", name=f"n{number}").lsn)
        checkpoint_lsn = manager.stats().last_lsn
        manager.compact()
        manager.wait_durable(manager.spawn("x", name="after").lsn)
        path = Path(manager.path)
    damage_all_frames(path)
    verify = ask("verify", path)
    assert f"  good            up to LSN {checkpoint_lsn}" in verify.lines
    assert f"journal-inspect agents {path} --at {checkpoint_lsn}  " in verify.err
    agents = ask("agents", path, "--at", checkpoint_lsn, "-o", "json")
    assert agents.code == 0
    assert len(agents.json) == 4


@pytest.mark.parametrize("lsn", [7, 16])
def test_damage_below_a_checkpoint_loses_nothing(tmp_path: Path, lsn: int) -> None:
    """P4: Damage that a checkpoint covers is found, but needs no repair, and the journal opens.

    Two checkpoints later verify finds nothing.
    """
    path = history(tmp_path / "j")
    if lsn == 7:
        segment(path, 7).unlink()
    else:
        damage_frame(path, 9)
    verify = ask("verify", path)
    assert verify.code == 1
    assert f"  good            up to LSN {LAST_LSN}" in verify.lines
    assert "it opens as it is" in verify.err
    assert "journal-inspect repair" not in verify.err
    for apply in ([], ["--apply"]):
        repair = ask("repair", path, *apply)
        assert repair.code == 0
        assert "it opens as it is" in repair.err
    with open_journal(path) as journal:
        for number in range(2):
            put(journal, number)
            compact(journal, number)
    assert ask("verify", path).code == 0


def test_a_tail_that_a_repair_cut_off_is_named(tmp_path: Path) -> None:
    """P4: verify says that a repair cut the log, if there is evidence; else it may be a crash."""
    path = history(tmp_path / "j")
    damage_frame(path, 32)
    assert ask("repair", path, "--apply").code == 0
    verify = ask("verify", path)
    assert verify.code == 1
    cause = "a repair cut this tail off, although LSN 35 was durable"
    message = f"{cause}; the log continues at LSN 32"
    assert verify.lines[1].endswith(message)
    assert "or of a repair" in verify.err
    with JournalReader.open(path) as reader:
        assert [finding.durable_lsn for finding in reader.verify()] == [35]


def test_info_shows_the_durable_lsn_of_lost_records(tmp_path: Path) -> None:
    """P4: A mark after the last commit, and a checkpoint, prove what was durable."""
    path = make(tmp_path / "j", ["a", "b", "c"])
    damage_frame(path, 3)
    assert (
        "LSNs          1 to 3, unreadable: 3 (1 record), durable up to 3" in ask("info", path).lines
    )
    path = history(tmp_path / "other")
    for file in segments(path):
        file.unlink()
    assert "LSNs          none, durable up to 20" in ask("info", path).lines


def test_a_damaged_checkpoint_proves_a_lost_end(tmp_path: Path) -> None:
    """P4: The name of a damaged checkpoint proves that the log reached its LSN."""
    path = make(tmp_path / "j", ["a"])
    with open_journal(path) as journal:
        compact(journal, 1)
        put(journal, "b", "c")
        compact(journal, 2)
    _, newest = checkpoints(path)
    flip(newest, 5)
    os.truncate(segments(path)[-1], 64)
    assert "  lost            LSN 2 to 3 (2 records)" in ask("verify", path).lines
    assert ask("repair", path, "-o", "json").json["last_lost_lsn"] == 3


def test_info_promises_no_impossible_repair(tmp_path: Path) -> None:
    """P4: info promises no repair that would be refused."""
    path = history(tmp_path / "j")
    for file in checkpoints(path):
        flip(file, 5)
    assert (
        "repair        impossible: neither a checkpoint nor the beginning of the log is left"
        in ask("info", path).lines
    )
    assert "it is text, one item a line" in ask("verify", path).err
    assert ask("repair", path).code == 3


def test_info_counts_the_bytes_of_unusable_files(tmp_path: Path) -> None:
    """P4: Segments and checkpoints that can't be used still count as bytes on the disk.

    info names the checkpoint, and verify states how many bytes can't be used.
    """
    path = history(tmp_path / "j")
    damaged, checkpoint = segment(path, 22), checkpoints(path)[1]
    flip(damaged, 30)
    flip(checkpoint, 5)
    info = ask("info", path, "-o", "json")
    files = [*segments(path), *checkpoints(path)]
    assert info.json["disk_bytes"] == sum(file.stat().st_size for file in files)
    sizes = {entry["path"]: entry["size_bytes"] for entry in info.json["segments"]}
    assert sizes == {str(file): file.stat().st_size for file in segments(path)}
    assert f"{checkpoint}: does not verify" in info.err
    findings = ask("verify", path, "-o", "json").json["findings"]
    assert [(entry["path"], entry["size_bytes"]) for entry in findings] == [
        (str(file), file.stat().st_size) for file in (damaged, checkpoint)
    ]


@pytest.mark.parametrize("lsn", [31, 37])
def test_a_damaged_segment_header_costs_nothing(tmp_path: Path, lsn: int) -> None:
    """P4: An open refuses a segment with a damaged header. verify says that a repair can fix it,
    and a repair rebuilds it and loses nothing."""
    path = history(tmp_path / "j")
    before = {name: data for name, (data, *_) in contents(path).items()}
    flip(segment(path, lsn), 30)
    verify = ask("verify", path)
    assert verify.code == 3
    assert "  fixable         1 file by a repair, without any loss" in verify.lines
    assert f"  good            up to LSN {LAST_LSN}" in verify.lines
    assert f"journal-inspect repair {path}  " in verify.err
    with pytest.raises(CorruptionError):
        open_journal(path)
    assert f"rebuild      the header of {segment(path, lsn).name}" in ask("repair", path).lines
    assert ask("repair", path, "--apply").code == 0
    assert {name: data for name, (data, *_) in contents(path).items()} == before
    assert ask("verify", path).code == 0


@pytest.mark.parametrize("lsn", [31, 37])
def test_frames_after_a_header_that_nothing_confirms_are_readable(tmp_path: Path, lsn: int) -> None:
    """P4: If the first frame is damaged, too, the segment's header is not rebuilt. The other frames
    verify under the seed: verify counts them, and a repair salvages them."""
    path = history(tmp_path / "j")
    damage_frame(path, lsn)
    flip(segment(path, lsn), 30)
    verify = ask("verify", path)
    lost_range = f"LSN {lsn} to {LAST_LSN} ({LAST_LSN - lsn + 1} records)"
    readable = f"LSN {lsn + 1} to {LAST_LSN} ({LAST_LSN - lsn} records)"
    assert f"  lost            {lost_range}" in verify.lines
    assert f"  readable        {readable}" in verify.lines
    assert f"journal-inspect repair {path} --salvage  " in verify.err
    repair = ask("repair", path, "--salvage", "--apply")
    assert f"lost         {lost_range}, 1 of them unreadable" in repair.lines
    with JournalReader.open(f"{path}.salvaged-1") as reader:
        assert [entry.record[0] for entry in reader.entries()] == [*range(lsn + 1, LAST_LSN + 1)]

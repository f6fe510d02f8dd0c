"""journal-inspect: the output of `info`, `verify`, `checkpoint` and `agents`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from journal_inspect.rendering import objects
from journal_inspect.report.data import observe

from journal import CorruptionError, Journal, JournalReader
from manager import Agent, SubAgentManager
from tests.golden.journal_v1 import CHECKPOINTS
from tests.inspect.inspect_support import (
    ask,
    checkpoints,
    compact,
    fleet,
    flip,
    golden,
    make,
    open_journal,
    put,
    segments,
    tear,
)

# --- info ---


def test_info_as_json_has_the_readers_fields(path: Path) -> None:
    """Journal, segments and checkpoints are shown with the reader's fields by name."""
    document = ask("info", path, "-o", "json").json
    with JournalReader.open(path) as reader:
        infos, checkpoint_list = reader.segments(), reader.checkpoints()
    assert document["schema_version"] == document["format_version"] == 1
    assert document["path"] == str(path)
    assert document["journal_id"] == checkpoint_list[0].journal_id
    assert document["application"] == "golden/1"
    assert document["epochs"] == [1, 2, 3, 4]
    assert (document["first_lsn"], document["last_lsn"], document["durable_lsn"]) == (9, 60, 60)
    assert document["writer_pid"] is None
    assert document["disk_bytes"] == sum(f.stat().st_size for f in path.glob("*[gn]"))
    for info, shown_info in zip(infos, document["segments"], strict=True):
        assert shown_info == {"schema_version": 1} | {
            name: getattr(info, name)
            for name in type(info).__dataclass_fields__
            if name != "unreadable"
        }
    assert [shown_info["lsn"] for shown_info in document["checkpoints"]] == list(
        reversed(CHECKPOINTS)
    )
    for checkpoint in checkpoint_list:
        checkpoint.close()


def test_info_as_text_aligns(path: Path) -> None:
    """Each column begins or ends where its header does, and names and states are shown."""
    lines = ask("info", path).lines
    assert "recovery      replays 5 records after LSN 55" in lines
    assert "writer        none" in lines
    start = next(n for n, line in enumerate(lines) if line.startswith("SEGMENT"))
    table = lines[start : start + 6]
    states = ["sealed", "sealed", "sealed", "torn", "sealed"]
    assert [line.split()[1] for line in table] == ["STATE", *states]
    begins = table[0].index("STATE")
    assert [line[begins:].split()[0] for line in table[1:]] == states
    ends = table[0].index("FIRST LSN") + len("FIRST LSN")
    assert [line[:ends].split()[-1] for line in table[1:]] == ["9", "45", "54", "58", "59"]


def test_info_of_a_live_journal_shows_its_writer(tmp_path: Path) -> None:
    """The pid of a live writer is shown, and its last segment is active."""
    with open_journal(tmp_path / "j") as journal:
        put(journal, 1, 2)
        document = ask("info", tmp_path / "j", "-o", "json").json
    assert document["writer_pid"] == os.getpid()
    assert [segment["state"] for segment in document["segments"]] == ["active"]
    assert document["durable_lsn"] >= 1


@pytest.mark.parametrize("between", ["segments", "checkpoints"])
@pytest.mark.parametrize("verb", ["info", "report"])
def test_a_compaction_during_info_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, between: str
) -> None:
    """P4: A compaction during the read is not reported as damage.

    A checkpoint may be newer than the segments that were read, or be replaced by two newer ones.
    """
    renderer = getattr(JournalReader, between)
    with open_journal(tmp_path / "j") as journal:
        put(journal, 1)
        compact(journal, {"n": 1})

        def then_compact(reader: JournalReader) -> object:
            infos = renderer(reader)
            monkeypatch.setattr(JournalReader, between, renderer)
            for _ in range(3):
                put(journal, *["x" * 2000] * 4)
                compact(journal, {"n": journal.last_lsn})
            return infos

        monkeypatch.setattr(JournalReader, between, then_compact)
        if verb == "info":
            answer = ask("info", tmp_path / "j")
            assert (answer.code, answer.err) == (0, "")
            assert "recovery      replays" in answer.out
        else:
            with JournalReader.open(tmp_path / "j") as reader:
                observation = observe(reader)
            assert observation.recovery.refused is None
        assert getattr(JournalReader, between) is renderer


def test_info_counts_a_new_segment_as_evidence(path: Path) -> None:
    """A segment without records proves that everything before it was durable."""
    os.truncate(segments(path)[-1], 64)
    document = ask("info", path, "-o", "json").json
    assert (document["last_lsn"], document["durable_lsn"]) == (58, 58)


def test_info_reports_an_empty_journal(tmp_path: Path) -> None:
    """An empty journal is reported as empty, with exit code 0."""
    answer = ask("info", make(tmp_path / "j", []))
    assert answer.code == 0
    empty = "the journal is empty: it has no segment"
    assert f"LSNs          none, durable up to 0; {empty}" in answer.lines
    assert "recovery      replays 0 records" in answer.lines


def damages(path: Path, foreign: Path) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Yield ways to damage a journal like the one at `path`, each with its name."""
    for file in (*segments(path), *checkpoints(path)):
        size = file.stat().st_size
        for at in (None, 0, 70, 120, size // 2, size - 2):
            yield f"{file.name} at {at}", partial(damage_file, file.name, at)
    yield "no segments", lambda folder: list(map(Path.unlink, segments(folder)))
    yield "foreign checkpoint", lambda folder: shutil.copy(checkpoints(foreign)[-1], folder)
    yield "only a header", lambda folder: os.truncate(segments(folder)[-1], 64)


def damage_file(name: str, at: int | None, folder: Path) -> None:
    file = folder / name
    if at is None:
        file.unlink()
    else:
        flip(file, min(at, file.stat().st_size - 1))


def opened(path: Path) -> tuple[bool, list[int]]:
    """Open a copy. Return whether the open was refused, and the LSNs that it replayed."""
    copy = path.with_name("copy")
    shutil.copytree(path, copy)
    try:
        with Journal.open(copy) as journal:
            return False, [entry.lsn for entry in journal.replay()]
    except CorruptionError:
        return True, []
    finally:
        shutil.rmtree(copy)


def test_info_predicts_the_next_open(tmp_path: Path) -> None:
    """P4: Whatever is damaged in one file, `info` predicts what an open does.

    Where an open refuses, `info` says so and `verify` finds corruption. Otherwise `info` counts the
    records that the open replays.
    """
    refusals = 0
    foreign = tmp_path / "foreign"
    with open_journal(foreign) as journal:
        put(journal, *range(57))
        compact(journal, "foreign")
    for base in (golden(tmp_path / "two"), golden(tmp_path / "one")):
        if base.name == "one":
            flip(checkpoints(base)[-1], 40)  # now everything depends on the older checkpoint
        for name, damage in damages(base, foreign):
            damaged = tmp_path / "damaged"
            shutil.copytree(base, damaged)
            damage(damaged)
            refused, replayed = opened(damaged)
            info, verify = ask("info", damaged, "-o", "json"), ask("verify", damaged)
            recovery = info.json["recovery"]
            assert (recovery["refused"] is not None) == refused, (name, recovery)
            if refused:
                refusals += 1
                assert info.code == verify.code == 3, name
            else:
                assert recovery["records"] == len(replayed), name
            shutil.rmtree(damaged)
    assert refusals > 10


# --- verify ---


def test_verify_of_a_whole_journal_finds_nothing(tmp_path: Path) -> None:
    """A whole journal gives exit code 0, with the last LSN and no message."""
    path = make(tmp_path / "j")
    answer = ask("verify", path)
    lines = [f"{path}: whole.", "  good            up to LSN 3"]
    assert (answer.code, answer.lines, answer.err) == (0, lines, "")


def test_verify_from_an_lsn_reports_where_it_began(tmp_path: Path) -> None:
    """--from-lsn checks whole segments; after the end of the log it gives exit code 1."""
    path = make(tmp_path / "j", ["x" * 900] * 6)
    first_lsns = [int(file.name[:20]) for file in segments(path)]
    answer = ask("verify", path, "--from-lsn", first_lsns[1] + 1)
    summary = f"  good            up to LSN 6, checked from LSN {first_lsns[1]}"
    assert (answer.code, answer.lines) == (0, [f"{path}: whole.", summary])
    answer = ask("verify", path, "--from-lsn", 7)
    assert answer.code == 1
    assert "no record from LSN 7 on; the log ends at LSN 6" in answer.err


def test_verify_of_a_torn_tail_exits_with_1(tmp_path: Path) -> None:
    """A torn tail gives exit code 1, and nothing acknowledged is lost."""
    path = make(tmp_path / "j")
    tear(path)
    answer = ask("verify", path)
    assert answer.code == 1
    assert answer.lines[1].startswith(f"  torn_tail       {segments(path)[0].name} at ")
    assert answer.lines[2] == "  good            up to LSN 3"
    assert "nothing to do: the next open goes on at LSN 4" in answer.err


def test_verify_locates_corruption(tmp_path: Path) -> None:
    """P4: Corruption is reported with file, offset and LSN, and the last LSN before it."""
    path = make(tmp_path / "j", [["record", n, "x" * 500] for n in range(30)])
    with JournalReader.open(path) as reader:
        offset = next(entry.offset for entry in reader.entries() if entry.lsn == 5)
    assert offset
    flip(segments(path)[0], offset + 44)  # in its payload
    finding, last = ask("verify", path, "-o", "jsonl").jsonl
    assert finding["kind"] == "corruption"
    assert (finding["path"], finding["offset"], finding["lsn"]) == (
        str(segments(path)[0]),
        offset,
        5,
    )
    assert (last["kind"], last["last_good_lsn"], last["counts"]["corruption"]) == ("summary", 4, 1)
    as_json = ask("verify", path, "-o", "json")
    assert as_json.code == 3
    assert as_json.json == last | {"findings": [finding]}


def test_verify_finds_damaged_checkpoints_and_stray_files(tmp_path: Path) -> None:
    """A damaged checkpoint gives exit code 1; stray files are only listed."""
    path = tmp_path / "j"
    with open_journal(path) as journal:
        put(journal, 1)
        compact(journal, {"item": 1})
        put(journal, 2)
        compact(journal, {"item": 2})
    (path / "stray").touch()
    (path / "checkpoint-00000000000000000009.json.tmp").touch()
    answer = ask("verify", path)
    assert (answer.code, answer.lines[-1]) == (0, "  good            up to LSN 2")
    flip(checkpoints(path)[1], 150)
    answer = ask("verify", path)
    assert (answer.code, answer.lines[-1]) == (1, "  good            up to LSN 2")


def test_verify_reports_a_log_without_its_beginning(path: Path) -> None:
    """P4: Without checkpoints the beginning of the log is lost, though each segment is whole."""
    for file in checkpoints(path):
        flip(file, 40)
    answer = ask("verify", path, "-o", "json")
    assert answer.code == 3
    (finding,) = [f for f in answer.json["findings"] if f["kind"] == "corruption"]
    assert (finding["path"], finding["lsn"]) == (str(segments(path)[0]), 1)


def test_verify_reports_a_checkpoint_of_another_journal(tmp_path: Path) -> None:
    """P4: A whole checkpoint with another journal's id is corruption."""
    for name in ("a", "b"):
        with open_journal(tmp_path / name) as journal:
            put(journal, name)
            compact(journal, name)
    _, file = checkpoints(tmp_path / "a")
    shutil.copy(file, tmp_path / "b")
    answer = ask("verify", tmp_path / "b", "-o", "json")
    assert answer.code == 3
    assert [finding["path"] for finding in answer.json["findings"]] == [
        str(tmp_path / "b" / file.name)
    ]
    assert answer.json["last_good_lsn"] == 1


# --- checkpoint ---


def test_checkpoint_shows_the_newest_or_the_given_one(path: Path) -> None:
    """A checkpoint is shown with its fields and then its items, in each format."""
    for lsn, args in ((CHECKPOINTS[1], []), *((lsn, ["--lsn", lsn]) for lsn in CHECKPOINTS)):
        document = ask("checkpoint", path, *args, "-o", "json").json
        items = document.pop("items")
        assert list(document) == [
            *("schema_version", "lsn", "epoch", "count", "created_at_ms", "application", "path")
        ]
        assert (document["lsn"], document["count"]) == (lsn, len(items))
        assert ask("checkpoint", path, *args, "-o", "jsonl").jsonl == [document, *items]
        lines = ask("checkpoint", path, *args).lines
        assert f"LSN          {lsn}" in lines
        assert [json.loads(line) for line in lines[lines.index("") + 1 :]] == items


def test_checkpoint_skips_a_damaged_one(path: Path) -> None:
    """The newest whole checkpoint is shown, as an open uses it; a damaged one gives exit code 1."""
    flip(checkpoints(path)[1], 200)
    assert ask("checkpoint", path, "-o", "json").json["lsn"] == CHECKPOINTS[0]
    answer = ask("checkpoint", path, "--lsn", CHECKPOINTS[1])
    assert (answer.code, answer.out) == (1, "")
    assert f"LSNs of checkpoints that verify: {CHECKPOINTS[0]};" in answer.err


def test_a_checkpoint_without_items_is_shown(tmp_path: Path) -> None:
    """A checkpoint of an empty state is shown in each format."""
    with open_journal(tmp_path / "j") as journal:
        put(journal, 1)
        compact(journal)
    assert ask("checkpoint", tmp_path / "j", "-o", "json").json["items"] == []
    assert len(ask("checkpoint", tmp_path / "j", "-o", "jsonl").jsonl) == 1


# --- agents ---


def test_agents_shows_the_fleet_of_a_live_manager(tmp_path: Path) -> None:
    """Each agent is shown with the fields that the manager has."""
    with fleet(tmp_path) as manager:
        output = ask("agents", manager.path, "-o", "jsonl").jsonl
        agents = manager.agents(include_archived=True)
    assert len(agents) == 6
    for agent, shown_agent in zip(agents, output, strict=True):
        assert list(shown_agent) == ["schema_version", *Agent.__dataclass_fields__]
        assert shown_agent == {"schema_version": 1} | objects.plain(
            {name: getattr(agent, name) for name in Agent.__dataclass_fields__}
        )


def test_agents_without_a_manager_shows_the_next_open(tmp_path: Path) -> None:
    """P6: Without a live manager, the agents are those that the next one recovers."""
    with fleet(tmp_path) as manager:
        path = manager.path
    output = ask("agents", path, "-o", "json").json
    with SubAgentManager.open(tmp_path) as manager:
        recovered = manager.agents(include_archived=True)
    assert [(each["agent_id"], each["status"], each["reason"]) for each in output] == [
        (agent.agent_id, agent.status, agent.reason) for agent in recovered
    ]
    assert {agent_shown["status"] for agent_shown in output} >= {
        "interrupted",
        "queued",
        "completed",
    }


def test_agents_as_text_are_a_table(tmp_path: Path) -> None:
    """Agents are a table, with a message that counts them and names the LSN."""
    with fleet(tmp_path) as manager:
        answer = ask("agents", manager.path)
        lsn = manager.get("lead").lsn
    header, *rows = answer.lines
    assert header.split()[:4] == ["AGENT", "NAME", "STATUS", "PARENT"]
    assert len(rows) == 6
    assert any("it broke" in row and "failed" in row for row in rows)
    assert f"as of LSN {lsn}" in answer.err
    assert "2 running" in answer.err


def test_agents_refuses_another_programs_journal(tmp_path: Path, path: Path) -> None:
    """An empty fleet gives exit code 1, and another program's journal is refused with its path.

    That holds even if its records look like a manager's.
    """
    with SubAgentManager.open(tmp_path) as manager:
        manager.wait_durable()
        answer = ask("agents", manager.path, "-o", "json")
    assert (answer.code, answer.json) == (1, [])
    foreign = [path]
    for number, record in enumerate((7, {"a": 1}, ["start", "x", 1, "y"], ["spawn"], [[]])):
        foreign.append(make(tmp_path / f"foreign{number}", [record]))
    for place in foreign:
        answer = ask("agents", place)
        assert (answer.code, answer.out) == (4, ""), place
        assert f"{place}: not a journal of a manager" in answer.err
        assert answer.err.count("\n") == 1

"""journal-inspect: what `info`, `verify`, `checkpoint` and `agents` show, of good and of bad."""

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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with segments of four epochs, a torn tail, two checkpoints and every type."""
    return golden(tmp_path / "golden")


# --- info ---


def test_info_shows_what_the_reader_sees(path: Path) -> None:
    """The facts of a journal, segments and checkpoints by the names of their fields."""
    shown = ask("info", path, "-o", "json").json
    with JournalReader.open(path) as reader:
        infos, found = reader.segments(), reader.checkpoints()
    assert shown["schema_version"] == shown["format_version"] == 1
    assert shown["path"] == str(path)
    assert shown["journal_id"] == found[0].journal_id
    assert shown["application"] == "golden/1"
    assert shown["epochs"] == [1, 2, 3, 4]
    assert (shown["first_lsn"], shown["last_lsn"], shown["durable_lsn"]) == (9, 60, 60)
    assert shown["writer_pid"] is None
    assert shown["disk_bytes"] == sum(f.stat().st_size for f in path.glob("*[gn]"))
    for info, told in zip(infos, shown["segments"], strict=True):
        assert told == {"schema_version": 1} | {
            name: getattr(info, name) for name in type(info).__dataclass_fields__
        }
    assert [told["lsn"] for told in shown["checkpoints"]] == list(reversed(CHECKPOINTS))
    for checkpoint in found:
        checkpoint.close()


def test_info_as_text_aligns(path: Path) -> None:
    """Each column begins where its header does, or ends there; names and states are told."""
    lines = ask("info", path).lines
    assert "recovery      replays 5 records after LSN 55" in lines
    assert "writer        none" in lines
    begin = next(n for n, line in enumerate(lines) if line.startswith("SEGMENT"))
    table = lines[begin : begin + 6]
    states = ["sealed", "sealed", "sealed", "torn", "sealed"]
    assert [line.split()[1] for line in table] == ["STATE", *states]
    begins = table[0].index("STATE")
    assert [line[begins:].split()[0] for line in table[1:]] == states
    ends = table[0].index("FIRST LSN") + len("FIRST LSN")
    assert [line[:ends].split()[-1] for line in table[1:]] == ["9", "45", "54", "58", "59"]


def test_info_of_a_live_journal_tells_its_writer(tmp_path: Path) -> None:
    """A live writer's pid; its last segment is active."""
    with open_journal(tmp_path / "j") as journal:
        put(journal, 1, 2)
        shown = ask("info", tmp_path / "j", "-o", "json").json
    assert shown["writer_pid"] == os.getpid()
    assert [segment["state"] for segment in shown["segments"]] == ["active"]
    assert shown["durable_lsn"] >= 1


@pytest.mark.parametrize("amid", ["segments", "checkpoints"])
@pytest.mark.parametrize("verb", ["info", "report"])
def test_a_compaction_during_info_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, amid: str
) -> None:
    """P4: a checkpoint newer than the segments that were looked at does not reach behind the log,
    nor is anything missing behind one that two newer ones replace meanwhile."""
    renderer = getattr(JournalReader, amid)
    with open_journal(tmp_path / "j") as journal:
        put(journal, 1)
        compact(journal, {"n": 1})

        def looked(reader: JournalReader) -> object:
            found = renderer(reader)
            monkeypatch.setattr(JournalReader, amid, renderer)
            for _ in range(3):
                put(journal, *["x" * 2000] * 4)
                compact(journal, {"n": journal.last_lsn})
            return found

        monkeypatch.setattr(JournalReader, amid, looked)
        if verb == "info":
            answer = ask("info", tmp_path / "j")
            assert (answer.code, answer.err) == (0, "")
            assert "recovery      replays" in answer.out
        else:
            with JournalReader.open(tmp_path / "j") as reader:
                seen = observe(reader)
            assert seen.recovery.refused is None
        assert getattr(JournalReader, amid) is renderer


def test_info_tells_what_a_new_segment_proves(path: Path) -> None:
    """A segment without a record proves that what went before it was durable."""
    os.truncate(segments(path)[-1], 64)
    shown = ask("info", path, "-o", "json").json
    assert (shown["last_lsn"], shown["durable_lsn"]) == (58, 58)


def test_info_of_an_empty_journal(tmp_path: Path) -> None:
    """A journal without a record is one, and says so."""
    answer = ask("info", make(tmp_path / "j", []))
    assert answer.code == 0
    empty = "the journal is empty: no segment, no checkpoint"
    assert f"LSNs          none, durable up to 0; {empty}" in answer.lines
    assert "recovery      replays 0 records" in answer.lines


def damages(path: Path, foreign: Path) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Ways to spoil a journal like the one at `path`, each with its name."""
    for file in (*segments(path), *checkpoints(path)):
        size = file.stat().st_size
        for at in (None, 0, 70, 120, size // 2, size - 2):
            yield f"{file.name} at {at}", partial(spoil_file, file.name, at)
    yield "no segments", lambda where: list(map(Path.unlink, segments(where)))
    yield "foreign checkpoint", lambda where: shutil.copy(checkpoints(foreign)[-1], where)
    yield "only a header", lambda where: os.truncate(segments(where)[-1], 64)


def spoil_file(name: str, at: int | None, where: Path) -> None:
    file = where / name
    if at is None:
        file.unlink()
    else:
        flip(file, min(at, file.stat().st_size - 1))


def opened(path: Path) -> tuple[bool, list[int]]:
    """Whether an open refuses, and the LSNs that it replays, tried on a copy."""
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
    """P4: whatever one file suffers, `info` says refused where an open refuses, `verify` finds
    corruption there, and what is to be replayed is what an open replays."""
    refusals = 0
    foreign = tmp_path / "foreign"
    with open_journal(foreign) as journal:
        put(journal, *range(57))
        compact(journal, "foreign")
    for base in (golden(tmp_path / "two"), golden(tmp_path / "one")):
        if base.name == "one":
            flip(checkpoints(base)[-1], 40)  # then all depends on the older checkpoint
        for name, spoil in damages(base, foreign):
            spoiled = tmp_path / "spoiled"
            shutil.copytree(base, spoiled)
            spoil(spoiled)
            refused, replayed = opened(spoiled)
            info, verify = ask("info", spoiled, "-o", "json"), ask("verify", spoiled)
            recovery = info.json["recovery"]
            assert (recovery["refused"] is not None) == refused, (name, recovery)
            if refused:
                refusals += 1
                assert info.code == verify.code == 3, name
            else:
                assert recovery["records"] == len(replayed), name
            shutil.rmtree(spoiled)
    assert refusals > 10


# --- verify ---


def test_verify_of_a_whole_journal(tmp_path: Path) -> None:
    """Nothing found: the last LSN, exit 0, no message."""
    answer = ask("verify", make(tmp_path / "j"))
    assert (answer.code, answer.out, answer.err) == (0, "last good LSN 3; no findings\n", "")


def test_verify_reports_what_it_checked(tmp_path: Path) -> None:
    """--from-lsn takes whole segments; behind the end of the log the answer is negative."""
    path = make(tmp_path / "j", ["x" * 900] * 6)
    first_lsns = [int(file.name[:20]) for file in segments(path)]
    answer = ask("verify", path, "--from-lsn", first_lsns[1] + 1)
    what = f"last good LSN 6; no findings; checked from LSN {first_lsns[1]}"
    assert (answer.code, answer.lines) == (0, [what])
    answer = ask("verify", path, "--from-lsn", 7)
    assert answer.code == 1
    assert "no record from LSN 7 on; the log ends at LSN 6" in answer.err


def test_verify_of_a_torn_tail(tmp_path: Path) -> None:
    """A negative answer, but nothing that was acknowledged is lost."""
    path = make(tmp_path / "j")
    tear(path)
    answer = ask("verify", path)
    assert answer.code == 1
    assert answer.lines[0].startswith(f"torn_tail       {segments(path)[0]}: offset ")
    assert answer.lines[1] == "last good LSN 3; 1 torn_tail"
    assert "nothing in the journal says that it was acknowledged" in answer.err


def test_verify_of_corruption(tmp_path: Path) -> None:
    """P4: file, offset and LSN of the damage, and the last LSN before it."""
    path = make(tmp_path / "j", [["record", n, "x" * 500] for n in range(30)])
    with JournalReader.open(path) as reader:
        offset = next(entry.offset for entry in reader.entries() if entry.lsn == 5)
    assert offset
    flip(segments(path)[0], offset + 44)  # its payload
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


def test_verify_of_checkpoints_and_strays(tmp_path: Path) -> None:
    """A checkpoint that does not verify is a negative answer; a stray file is only told."""
    path = tmp_path / "j"
    with open_journal(path) as journal:
        put(journal, 1)
        compact(journal, {"item": 1})
        put(journal, 2)
        compact(journal, {"item": 2})
    (path / "stray").touch()
    (path / "checkpoint-00000000000000000009.json.tmp").touch()
    answer = ask("verify", path)
    assert (answer.code, answer.lines[-1]) == (0, "last good LSN 2; 2 stray")
    flip(checkpoints(path)[1], 150)
    answer = ask("verify", path)
    assert (answer.code, answer.lines[-1]) == (1, "last good LSN 2; 1 bad_checkpoint, 2 stray")


def test_verify_tells_when_no_checkpoint_reaches_the_log(path: Path) -> None:
    """P4: each segment is whole, yet what went before them is lost with the checkpoints."""
    for file in checkpoints(path):
        flip(file, 40)
    answer = ask("verify", path, "-o", "json")
    assert answer.code == 3
    (finding,) = [f for f in answer.json["findings"] if f["kind"] == "corruption"]
    assert (finding["path"], finding["lsn"]) == (str(segments(path)[0]), 1)


def test_verify_tells_a_checkpoint_of_another_journal(tmp_path: Path) -> None:
    """P4: a checkpoint that verifies and has another journal's id is corruption."""
    for name in ("a", "b"):
        with open_journal(tmp_path / name) as journal:
            put(journal, name)
            compact(journal, name)
    (file,) = checkpoints(tmp_path / "a")
    shutil.copy(file, tmp_path / "b")
    answer = ask("verify", tmp_path / "b", "-o", "json")
    assert answer.code == 3
    assert [finding["path"] for finding in answer.json["findings"]] == [
        str(tmp_path / "b" / file.name)
    ]
    assert answer.json["last_good_lsn"] == 1


# --- checkpoint ---


def test_checkpoint_shows_the_newest_or_the_one_that_was_asked_for(path: Path) -> None:
    """Its fields, then its items, in each form."""
    for lsn, args in ((CHECKPOINTS[1], []), *((lsn, ["--lsn", lsn]) for lsn in CHECKPOINTS)):
        whole = ask("checkpoint", path, *args, "-o", "json").json
        items = whole.pop("items")
        assert list(whole) == [
            *("schema_version", "lsn", "epoch", "count", "created_at_ms", "application", "path")
        ]
        assert (whole["lsn"], whole["count"]) == (lsn, len(items))
        assert ask("checkpoint", path, *args, "-o", "jsonl").jsonl == [whole, *items]
        lines = ask("checkpoint", path, *args).lines
        assert f"LSN          {lsn}" in lines
        assert [json.loads(line) for line in lines[lines.index("") + 1 :]] == items


def test_checkpoint_passes_over_one_that_does_not_verify(path: Path) -> None:
    """The newest that verifies is what an open would take; the other is no answer."""
    flip(checkpoints(path)[1], 200)
    assert ask("checkpoint", path, "-o", "json").json["lsn"] == CHECKPOINTS[0]
    answer = ask("checkpoint", path, "--lsn", CHECKPOINTS[1])
    assert (answer.code, answer.out) == (1, "")
    assert f"LSNs of checkpoints that verify: {CHECKPOINTS[0]};" in answer.err


def test_checkpoint_without_items(tmp_path: Path) -> None:
    """An empty state is one too, in each form."""
    with open_journal(tmp_path / "j") as journal:
        put(journal, 1)
        compact(journal)
    assert ask("checkpoint", tmp_path / "j", "-o", "json").json["items"] == []
    assert len(ask("checkpoint", tmp_path / "j", "-o", "jsonl").jsonl) == 1


# --- agents ---


def test_agents_shows_the_fleet_of_a_live_manager(tmp_path: Path) -> None:
    """Each agent by the names of its fields, as the manager itself has it."""
    with fleet(tmp_path) as manager:
        shown = ask("agents", manager.path, "-o", "jsonl").jsonl
        agents = manager.agents(include_archived=True)
    assert len(agents) == 6
    for agent, told in zip(agents, shown, strict=True):
        assert list(told) == ["schema_version", *Agent.__dataclass_fields__]
        assert told == {"schema_version": 1} | objects.plain(
            {name: getattr(agent, name) for name in Agent.__dataclass_fields__}
        )


def test_agents_shows_what_the_next_open_would_find(tmp_path: Path) -> None:
    """P6: of a manager that is gone, what another one recovers."""
    with fleet(tmp_path) as manager:
        path = manager.path
    shown = ask("agents", path, "-o", "json").json
    with SubAgentManager.open(tmp_path) as manager:
        found = manager.agents(include_archived=True)
    assert [(told["agent_id"], told["status"], told["reason"]) for told in shown] == [
        (agent.agent_id, agent.status, agent.reason) for agent in found
    ]
    assert {told["status"] for told in shown} >= {"interrupted", "queued", "completed"}


def test_agents_as_text(tmp_path: Path) -> None:
    """A table, and a message that counts them and says up to which LSN."""
    with fleet(tmp_path) as manager:
        answer = ask("agents", manager.path)
        lsn = manager.get("lead").lsn
    header, *rows = answer.lines
    assert header.split()[:4] == ["AGENT", "NAME", "STATUS", "PARENT"]
    assert len(rows) == 6
    assert any("it broke" in row and "failed" in row for row in rows)
    assert f"as of LSN {lsn}" in answer.err
    assert "2 running" in answer.err


def test_agents_of_no_fleet(tmp_path: Path, path: Path) -> None:
    """No agent yet is a negative answer; another program's journal is refused, with its path,
    also if its records look like a manager's."""
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

"""journal-inspect repair --restore: salvaged records are appended to the journal again."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from journal import JournalReader, Options, Tables
from manager import AgentResult, SubAgentManager, read_fleet, read_history
from tests.inspect.damage_support import LAST_LSN, damage_frame, history
from tests.inspect.inspect_support import Answer, ask, check_refused
from tests.inspect.test_inspect_schemas import validate
from tests.manager_support import PATIENT


def fleet(workspace: Path) -> Path:
    """Make a fleet of three agents that have ended, with a commit for each change."""
    workspace.mkdir()
    with SubAgentManager.open(workspace, options=PATIENT) as manager:
        for name in ("one", "two", "three"):
            agent = manager.spawn("work", name=name)
            manager.wait_durable()
            manager.update_from_result(agent.agent_id, AgentResult(name))
            manager.wait_durable()
        return Path(manager.path)


def results(path: Path) -> dict[str, str | None]:
    agents = read_fleet(path).agents(include_archived=True)
    return {agent.name or "": agent.result for agent in agents}


def records(path: Path) -> list[object]:
    with JournalReader.open(path) as reader:
        return [entry.record for entry in reader.entries()]


def test_a_fleet_gets_its_records_back(tmp_path: Path) -> None:
    """P1: --restore appends what a repair has cut off, except for records that build on a lost one,
    and exits with 1 because of these. A second call appends nothing, and the fleet opens."""
    path = fleet(tmp_path / "w")
    damage_frame(path, 4)  # the second agent's spawn
    dry = ask("repair", path, "--restore")
    assert dry.code == 3
    assert f"repair {path} --restore --apply" in dry.err
    done = ask("repair", path, "--restore", "--apply", "-o", "json")
    assert done.code == 1
    (restored,) = done.json["restored"]
    assert (restored["records"], restored["appended"]) == (3, 2)
    assert restored["refused"] == [{"first_lsn": 5, "last_lsn": 5}]
    assert results(path) == {"one": "one", "three": "three"}
    before = records(path)
    again = ask("repair", path, "--restore", "--apply", "-o", "json")
    assert (again.code, again.json["restored"], records(path)) == (0, [], before)
    assert [change.kind for change in read_history(path, "three")] == ["spawn", "result"]
    assert ask("log", path).code == ask("agents", path).code == 0
    with SubAgentManager.open(tmp_path / "w", options=PATIENT) as manager:
        assert manager.spawn("more", name="four").status == "running"
    assert set(results(path)) == {"one", "three", "four"}


def test_a_salvage_can_be_looked_at_first(tmp_path: Path) -> None:
    """P1: A salvage that was not appended yet is found later, listed, and appended."""
    path = fleet(tmp_path / "w")
    damage_frame(path, 5)
    first = ask("repair", path, "--salvage", "--apply")
    assert f"to append them again: journal-inspect repair {path} --apply --restore" in first.err
    dry = ask("repair", path, "--restore")
    assert dry.code == 0
    assert f"2 records of {path}.salvaged-1, which were LSN 6 to 7" in dry.out
    validate("repair", ask("repair", path, "--restore", "-o", "json"))
    done = ask("repair", path, "--restore", "--apply")
    assert done.code == 0
    assert f"2 records of {path}.salvaged-1 appended" in done.out
    assert results(path) == {"one": "one", "two": None, "three": "three"}


def test_tables_get_their_rows_back(tmp_path: Path) -> None:
    """P1: --restore appends the records of tables."""
    path = tmp_path / "j"
    with Tables.open(path, options=Options(flush_interval_s=60)) as app:
        rows = app.table("rows")
        for number in range(5):
            rows[number] = number
            app.sync()
    damage_frame(path, 2)
    assert ask("repair", path, "--restore", "--apply").code == 0
    with Tables.open(path) as app:
        assert dict(app.table("rows").items()) == {0: 0, 2: 2, 3: 3, 4: 4}
    assert ask("get", path, "rows", "3").code == 0


def advised(answer: Answer, words: str) -> list[str]:
    """Return the arguments of the command that the line with `words` advises."""
    (line,) = (line for line in answer.err.splitlines() if words in line)
    return shlex.split(line.partition("journal-inspect ")[2])


@pytest.mark.parametrize("make", [history, lambda path: fleet(path)], ids=["plain", "fleet"])
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_each_advised_command_works(
    make: Callable[[Path], Path], is_elsewhere: bool, tmp_path: Path
) -> None:
    """P1: The commands that a repair advises keep --save-to, and append without marks in a journal
    whose program knows none. So each of them works as it is printed."""
    path = make(tmp_path / "j")
    damage_frame(path, 34 if make is history else 5)
    place = ["--save-to", str(tmp_path / "it's here")] * is_elsewhere
    (tmp_path / "it's here").mkdir()
    first = ask("repair", path, *place)
    salvage = ask(*advised(first, "can be written to a separate journal"))
    done = ask(*advised(salvage, "to repair it"))
    assert done.code == 0
    assert any((tmp_path / "it's here").iterdir()) is is_elsewhere
    again = ask(*advised(done, "to append them again"), "-o", "json")
    assert (again.code, len(again.json["restored"])) == (0, 1)


def test_a_dry_run_keeps_as_is(tmp_path: Path) -> None:
    """P1: The command that a dry run of --restore --as-is advises has --as-is, too."""
    path = history(tmp_path / "j")
    damage_frame(path, 34)
    dry = ask("repair", path, "--restore", "--as-is")
    assert ask(*advised(dry, "to repair it")).code == 0


def test_a_mirrored_journal_is_advised_to_use_its_mirror(tmp_path: Path) -> None:
    """P1: --restore refuses a mirrored journal, so a repair does not advise it."""
    path = fleet(tmp_path / "w")
    (path / "MIRROR").write_text("{}")
    damage_frame(path, 5)
    done = ask("repair", path, "--salvage", "--apply")
    assert "its mirror has the records that were durable; restore it: journal-inspect" in done.err
    assert "--restore" not in done.err


def test_any_other_journal_needs_as_is(tmp_path: Path) -> None:
    """P1: The program of a journal that knows no marks gets the records alone, if it is asked for.
    Without that, nothing is changed."""
    path = history(tmp_path / "j")
    damage_frame(path, 34)
    shutil.copytree(path, tmp_path / "before")
    check_refused(ask("repair", path, "--restore", "--apply"), 4, "--restore --as-is")
    assert not (tmp_path / "j.salvaged-1").exists()
    for name in (tmp_path / "before").iterdir():
        assert (path / name.name).read_bytes() == name.read_bytes()
    for _ in range(2):
        assert ask("repair", path, "--restore", "--as-is", "--apply").code == 0
        with JournalReader.open(path) as reader:
            lsns = [entry.record[0] for entry in reader.entries(30)]
        assert lsns == [*range(31, 34), *range(35, LAST_LSN + 1)]


def test_a_mirrored_journal_is_restored_from_its_mirror(tmp_path: Path) -> None:
    """P1: The mirror has the records, and refuses a directory that was cut."""
    path = fleet(tmp_path / "w")
    (path / "MIRROR").write_text("{}")
    check_refused(ask("repair", path, "--restore"), 4, "has a mirror", "journal-inspect restore")


@pytest.mark.parametrize("options", [["--as-is"], ["--restore", "--cut-at", "3"]])
def test_options_that_contradict_each_other_are_refused(options: list[str], tmp_path: Path) -> None:
    """--as-is is a way to restore, and --restore would undo --cut-at."""
    assert ask("repair", fleet(tmp_path / "w"), *options).code == 2

"""journal-inspect: a request for what is no longer kept is answered with what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal import CompactedError, JournalReader
from manager import SubAgentManager, read_fleet
from tests.inspect.inspect_support import ask, checkpoints, damage_a_fleet, golden, make, segments


def test_a_moment_that_is_not_kept_is_refused_with_the_kept_range(tmp_path: Path) -> None:
    """A moment before the oldest checkpoint, before the first record or after the last is refused.

    The message names the LSNs that are kept, with a command.
    """
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("x", name="lead")
    for _ in range(2):
        with SubAgentManager.open(tmp_path) as manager:
            manager.spawn("y")
            manager.compact()
            path = Path(manager.path)
    oldest = int(checkpoints(path)[0].stem[-20:])
    assert int(segments(path)[0].name[:20]) > 1
    assert ask("agents", path, "--at", oldest).code == 0
    with JournalReader.open(path) as reader:
        last = reader.last_lsn
    kept_range = f"the fleet is known from LSN {oldest} to {last}: "
    kept_range += f"journal-inspect agents {path} --at {oldest}"
    for verb in (["agents"], ["show", "lead"], ["history", "lead"], ["checkpoint"]):
        name, *args = verb
        more = ["--write", "-"] if name == "checkpoint" else []
        answer = ask(name, path, *args, *more, "--at", oldest - 1)
        assert (answer.code, answer.out) == (1, "")
        assert (
            f"{path}: the fleet as of LSN {oldest - 1} is no longer kept; {kept_range}"
            in answer.err
        )
        answer = ask(name, path, *args, *more, "--at", 99)
        assert (answer.code, answer.out) == (1, "")
        assert (
            f"{path}: the log ends at LSN {last}, before LSN 99; {kept_range}; the newest: "
            in answer.err
        )
    answer = ask("diff", path, last, oldest - 1)
    assert (answer.code, answer.out) == (1, "")
    assert kept_range in answer.err
    answer = ask("agents", path, "--at", "2001-01-01", "--utc")
    assert (answer.code, answer.out) == (1, "")
    assert "the log does not reach back to 2001-01-01; the first, LSN" in answer.err
    assert kept_range in answer.err
    answer = ask("show", path, "nobody", "--at", last)
    assert f"all of them: journal-inspect agents {path} --at {last}; " in answer.err
    answer = ask("show", path, "nobody", "--at", "-0s")
    assert f"all of them: journal-inspect agents {path} --at -0s; " in answer.err
    first = ask("history", path, "lead", "-o", "json").json[0]
    assert (first["kind"], first["fields"]["name"]) == (None, {"from": None, "to": "lead"})
    assert "are no longer kept" in ask("history", path, "lead").err
    with pytest.raises(CompactedError) as caught:
        read_fleet(path, at=1)
    assert caught.value.first_lsn == oldest


def test_a_cut_below_the_kept_range_is_refused_with_that_range(tmp_path: Path) -> None:
    """The message names the kept LSNs, and the command for the first possible cut."""
    path = golden(tmp_path / "j")
    answer = ask("repair", path, "--cut-at", 3)
    assert (answer.code, answer.out) == (1, "")
    assert "--cut-at 3 is before what is kept; the journal holds LSN 9 to 60" in answer.err
    assert answer.err.endswith(f"journal-inspect repair {path} --cut-at 12\n")
    assert ask("repair", path, "--cut-at", 12).code == 0


def test_fleet_states_end_before_the_damage(tmp_path: Path) -> None:
    """P4: The states after the damage are not offered."""
    damaged = damage_a_fleet(tmp_path)
    kept_range = f"the fleet is known from LSN 1 to {damaged.lsn - 1}: journal-inspect agents"
    assert kept_range in ask("agents", damaged.path, "--at", "2001-01-01").err


def test_a_moment_of_another_programs_journal_is_refused(tmp_path: Path) -> None:
    """The refusal says that the journal is not a manager's, and offers no other moment."""
    path = golden(tmp_path / "j")
    for at in (3, 99, "2001-01-01"):
        for verb in (["agents"], ["show", "lead"], ["history", "lead"]):
            answer = ask(verb[0], path, *verb[1:], "--at", at)
            assert (answer.code, answer.out) == (4, ""), (verb, at)
            assert f"{path}: not a journal of a manager" in answer.err


def test_a_journal_without_a_checkpoint_is_not_called_damaged(tmp_path: Path) -> None:
    """A journal that has no checkpoint yet is sound, and the message says so."""
    path = make(tmp_path / "j", application="")
    answer = ask("checkpoint", path)
    assert (answer.code, answer.out) == (1, "")
    assert (
        f"the journal has no checkpoint yet; see its entries: journal-inspect log {path}"
        in answer.err
    )

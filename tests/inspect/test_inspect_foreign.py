"""Segments of another journal: every verb and an open give the same verdict and name that file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from journal import CorruptionError, DamageReason, Journal, Options
from manager import SubAgentManager
from tests.inspect.inspect_support import ask, segments

AGENTS, CHECKPOINT = 60, 20


def fleet(workspace: Path) -> Path:
    """Make a journal of several segments, with one checkpoint, and one record an agent."""
    workspace.mkdir()
    options = Options(segment_bytes=4096, checkpoint_min_bytes=1 << 30)
    with SubAgentManager.open(workspace, options=options) as manager:
        for number in range(AGENTS):
            manager.wait_durable(manager.spawn("x" * 200, name=f"n{number}", queued=True).lsn)
            if number == CHECKPOINT:
                manager.compact()
        return Path(manager.path)


def own_and_foreign(tmp_path: Path) -> tuple[Path, list[Path]]:
    path = fleet(tmp_path / "own")
    other = fleet(tmp_path / "other")
    return path, segments(other)


# Where the segment of the other journal is: the index of its place, whether an open needs that
# place, and whether it replaces a segment of the log.
PLACES: dict[str, tuple[int | None, bool, bool]] = {
    "first": (0, False, True),
    "middle": (3, True, True),
    "last": (-1, True, True),
    "same name": (2, True, True),
    "after the end": (None, True, False),
}


def place(path: Path, foreign: list[Path], where: str) -> Path:
    """Copy a segment of the other journal to its place, and return the file."""
    index, *_ = PLACES[where]
    file = foreign[2]
    if index is None:
        return Path(shutil.copy(file, path / f"{2952:020d}-{1:010d}.seg"))
    name = segments(path)[index].name
    same = [each for each in foreign if each.name == name and where in ("first", "same name")]
    return Path(shutil.copy(same[0] if same else file, path / name))


def lost_words(where: str, cut_lsn: int) -> str:
    """Return what is lost. Nothing says how many records the last segment had before it was
    replaced."""
    if where == "last":
        return f"any records after LSN {cut_lsn}"
    return "none" if where == "after the end" else f"LSN {cut_lsn + 1} to"


@pytest.mark.parametrize("where", PLACES)
def test_every_verb_names_a_segment_of_another_journal(tmp_path: Path, where: str) -> None:
    """P1, P4: open, info, verify, repair and agents agree on whether the journal opens, and blame
    the segment of the other journal. The file proves nothing. If it has the name of the log's last
    segment, records of the log may be lost with that one."""
    _, is_needed, is_replaced = PLACES[where]
    path, foreign = own_and_foreign(tmp_path)
    last_lsn = AGENTS + 1
    culprit = place(path, foreign, where)
    cut_lsn = int(culprit.name[:20]) - 1 if is_replaced else last_lsn
    words = f"{culprit}: offset 16: this is a segment of another journal"
    verify, dry, info = ask("verify", path), ask("repair", path), ask("info", path)
    agents = ask("agents", path, "-o", "json")
    assert verify.lines[1].startswith(f"  corruption      {culprit.name} at 16: ")
    assert "segment of another journal" in verify.lines[1]
    assert not any("a checkpoint of another journal" in each for each in verify.lines)
    assert sum(line.startswith("  corruption ") for line in verify.lines) == 1
    if not is_needed:
        assert (verify.code, dry.code, info.code, agents.code) == (1, 0, 1, 0)
        assert len(agents.json) == AGENTS
        with Journal.open(path) as journal:
            assert journal.last_lsn == last_lsn
        return
    assert (verify.code, dry.code, info.code, agents.code) == (3, 3, 3, 3)
    assert words in agents.err
    assert f"problem      {words}" in dry.out
    assert f"recovery      refuses: {culprit} is a segment of another journal" in info.lines
    assert f"repair        would keep everything up to LSN {cut_lsn}" in info.lines
    [of_repair] = [line for line in dry.lines if line.startswith("lost ")]
    assert of_repair.split(None, 1)[1].startswith(lost_words(where, cut_lsn))
    of_verify = [line for line in verify.lines if line.startswith("  lost ")]
    assert len(of_verify) == (where != "after the end")
    assert all(lost_words(where, cut_lsn) in line for line in of_verify)
    assert ("no record is lost" in verify.err) == (where == "after the end")
    with pytest.raises(CorruptionError) as error:
        Journal.open(path)
    assert (error.value.reason, error.value.path) == (DamageReason.FOREIGN, str(culprit))
    assert ask("repair", path, "--apply").code == 0
    assert not culprit.exists() or culprit.read_bytes() != foreign[2].read_bytes()
    with Journal.open(path) as journal:
        assert journal.last_lsn == cut_lsn

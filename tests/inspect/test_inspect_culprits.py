"""Damage is described with its file, its whole range and no Python."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _journal_console import text
from _journal_console.text import local_time
from hypothesis import example, given
from hypothesis import strategies as st
from journal_inspect.rendering.messages import command
from journal_inspect.rendering.objects import encoder
from journal_inspect.rendering.renderer import Renderer

from journal import CorruptionError, DamageReason, Journal
from tests.inspect.damage_support import (
    add_foreign,
    copy_as,
    damage_frame,
    history,
    segment,
    swap,
)
from tests.inspect.inspect_support import (
    ask,
    checkpoints,
    compact,
    flip,
    open_journal,
    put,
    segments,
)


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "j"))


def test_a_copy_that_begins_inside_a_frame_is_the_culprit(path: Path) -> None:
    """P1: A frame spans the LSN at which the copy claims to begin. No verb blames the segment that
    holds the frame, and no range ends before it begins."""
    culprit = copy_as(segment(path, 37), 44, 3)
    with pytest.raises(CorruptionError) as caught:
        Journal.open(path)
    assert (caught.value.path, caught.value.reason) == (str(culprit), DamageReason.OUT_OF_PLACE)
    words = f"does not belong here: LSN 44 is in {segment(path, 37).name}"
    assert words in str(caught.value)
    assert f"{culprit}: offset 0, LSN 44: the file {words}" in ask("repair", path).out
    assert f"refuses: {culprit} does not belong to this log" in ask("info", path).out
    assert ask("verify", path).lines[1].startswith(f"  corruption      {culprit.name} at 0: ")


def test_a_checkpoint_under_a_later_name_is_the_culprit(path: Path) -> None:
    """P4: No verb blames the last segment, or calls what is known to be whole damaged. Nobody knows
    whether the log ever reached the LSN in the name, so none says that no record is lost."""
    culprit = checkpoints(path)[1].rename(path / f"checkpoint-{99:020d}.json")
    shutil.copy(culprit, path / f"checkpoint-{20:020d}.json")
    with pytest.raises(CorruptionError) as caught:
        Journal.open(path)
    assert (caught.value.path, caught.value.reason) == (str(culprit), DamageReason.MISNAMED)
    words = "the file states LSN 20, but its name states LSN 99, and the log ends before LSN 46"
    assert words in str(caught.value)
    assert f"{culprit}: offset 0: {words}" in ask("repair", path).out
    info = ask("info", path)
    assert f"refuses: {culprit} has the name of another file" in info.out
    assert " damaged " not in info.out
    verify = ask("verify", path)
    damage = [line for line in verify.lines if line.startswith(("  corruption", "  bad_"))]
    assert damage == [f"  corruption      {culprit.name} at 0: {words}"]
    assert "if it is a copy or was renamed, a repair loses nothing" in verify.err
    assert words in ask("log", path).err
    assert [ask(verb, path).code for verb in ("verify", "info", "repair", "log")] == [3, 3, 3, 3]
    assert ask("repair", path, "--apply").code == 0
    assert ask("verify", path).code == 0
    Journal.open(path).close()


# Each damage below the checkpoint at LSN 20, with the records that can't be read.
COVERED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a header": (lambda p: flip(segment(p, 7), 30), "LSN 7 to 15 (9 records)"),
    "a removed segment": (lambda p: segment(p, 7).unlink(), "LSN 9 to 15 (7 records)"),
    "all segments": (lambda p: [*map(Path.unlink, segments(p))], "LSN 1 to 20 (20 records)"),
    "a frame": (lambda p: damage_frame(p, 18), "LSN 18 (1 record)"),
}


def beginning_gone(path: Path) -> None:
    for file in checkpoints(path):
        flip(file, 30)


def two_damages(path: Path) -> None:
    """Damage the last segment, and give the newest checkpoint another journal's id."""
    copy_as(segment(path, 37), 50, 4)
    add_foreign(path, lambda other: checkpoints(other)[1])


def foreign_checkpoints(path: Path) -> None:
    add_foreign(path, lambda other: checkpoints(other)[0])
    shutil.copy(checkpoints(path.with_name("other"))[1], path)


# Each damage, for which the facts of segments and checkpoints alone would name no file or another.
BLAMED: dict[str, Callable[[Path], Any]] = {
    "the end": lambda p: damage_frame(p, 45),
    "no beginning": beginning_gone,
    "a copy and a foreign checkpoint": two_damages,
    "two checkpoints of another journal": foreign_checkpoints,
    "swapped checkpoints": lambda p: swap(*checkpoints(p)),
}


@pytest.mark.parametrize("case", BLAMED)
def test_info_names_the_file_that_an_open_names(path: Path, case: str) -> None:
    """P4: With several damages, too, `info`, `verify` and an open name the same file."""
    BLAMED[case](path)
    with pytest.raises(CorruptionError) as caught:
        Journal.open(path)
    culprit = Path(caught.value.path)
    [refused] = [line for line in ask("info", path).lines if line.startswith("recovery ")]
    assert f"refuses: {culprit}" in refused
    assert any(f"  corruption      {culprit.name} at" in line for line in ask("verify", path).lines)


def test_the_verdict_escapes_the_path(whole: Path, tmp_path: Path) -> None:
    """No byte of a directory's name reaches the terminal raw, and none stops the command."""
    path = shutil.copytree(whole, tmp_path / os.fsdecode(b"a\n\x1b[2J\xff"))
    verdict, *_ = ask("verify", path).lines
    assert verdict == f"{tmp_path}/a\\n\\u001b[2J\\udcff: whole."


@pytest.mark.parametrize("case", COVERED)
def test_verify_names_all_records_that_a_checkpoint_covers(path: Path, case: str) -> None:
    """The line `history` has the whole range, also if damage hides where it ends."""
    damage, lsns = COVERED[case]
    damage(path)
    [line] = [line for line in ask("verify", path).lines if line.startswith("  history ")]
    assert line.split(None, 1)[1].startswith(f"{lsns} can't be read. No state is lost")


def test_a_gap_is_no_part_of_a_foreign_checkpoint(path: Path) -> None:
    """A missing segment is named as a gap, also beside a checkpoint of another journal at its LSN:
    only a foreign segment can have taken its place."""
    other = path.with_name("other")
    with open_journal(other) as journal:
        put(journal, *range(22))
        compact(journal)
    shutil.copy(checkpoints(other)[-1], path / f"checkpoint-{22:020d}.json")
    segment(path, 22).unlink()
    damage = [line for line in ask("verify", path).lines if line.startswith("  corruption")]
    assert [line.split()[1] for line in damage] == [
        segment(path, 16).name,
        f"checkpoint-{22:020d}.json",
    ]
    assert "LSN 22 to 30 (9 records) can't be read" in damage[0]
    assert "can't be read" not in damage[1]


def test_damage_beside_a_foreign_segment_of_the_same_lsn_is_named(path: Path) -> None:
    """A segment whose first frame is damaged is named, although a segment of another journal begins
    at the same LSN."""
    damage_frame(path, 22)
    other = history(path.with_name("other"))
    shutil.copy(segment(other, 22), path / f"{22:020d}-{3:010d}.seg")
    damage = [line for line in ask("verify", path).lines if line.startswith("  corruption")]
    assert [line.split()[1][19:31] for line in damage] == ["2-0000000003", "2-0000000002"]
    assert "can't be read" in damage[1]
    assert "can't be read" not in damage[0]


def test_info_says_that_records_may_follow_damage_without_an_end(path: Path) -> None:
    """Nothing says how many records the last segment held if its header is damaged."""
    file = segment(path, 37)
    flip(file, 30)
    os.truncate(file, 100)
    assert "unreadable: 37 (1 record) and any records after it, durable" in ask("info", path).out
    shutil.copy(segment(path, 31), file)
    flip(file, 30)
    flip(segment(path, 22), 30)
    assert "unreadable: 22 to 30, 37 (10 records) and any" in ask("info", path).out


def test_a_bad_checkpoint_is_described_without_its_bytes(path: Path) -> None:
    """A message says what is wrong with the last line, and quotes no Python."""
    flip(checkpoints(path)[-1], 30)
    out = ask("verify", path).out
    assert "the count and the checksum in the last line do not match the content" in out
    assert "b'" not in out


def test_a_warning_names_one_record_as_one(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An open that passes over the damage of one record does not name a range."""
    damage_frame(path, 18)
    with caplog.at_level(logging.WARNING):
        Journal.open(path).close()
    assert "LSN 18 can't be read, because the segment is damaged" in caplog.text


def test_messages_fit_a_terminal_and_leave_commands_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, a message is wrapped between words and commands, and the purpose of a command
    is above it if both do not fit on a line. Elsewhere, each is one line."""
    damage_frame(path, 30)
    plain = ask("verify", path).err
    assert f"  cp -a {path} {path}.damaged " in plain
    monkeypatch.setattr("_journal_console.text.terminal_width", lambda stream=None: 60)
    monkeypatch.setattr("journal_inspect.rendering.messages.terminal_width", lambda stream: 60)
    lines = ask("verify", path).err.splitlines()
    assert f"  cp -a {path} {path}.damaged" in lines
    assert "  # keep it as it is" in lines
    lines = ask("repair", path).err.splitlines()
    assert f"  journal-inspect repair {path} --apply" in lines
    assert all(len(line) <= 60 or str(path) in line for line in lines)
    message = f"{path}: gone; the newest: journal-inspect agents 'a  b'; for one: journal-inspect x"
    assert text._message_lines(message, 30)[-2:] == [
        "  journal-inspect agents 'a  b';",
        "  for one: journal-inspect x",
    ]
    assert text._message_lines(message, None) == [message]
    odd = command("log", "/it's a; journal")
    lines = text._message_lines(f"journal-inspect: it's damaged: {odd}; or: {odd}", 30)
    assert lines.count(f"  {odd};") == lines.count(f"  {odd}") == 1


@example([0, 999_999_999, -1, 10**30, 0])
@example([26_213_023_705_103_000_000])  # a float of these seconds is 0.1 us too small
@given(st.lists(st.integers(-(10**18), 10**20), min_size=1, max_size=5))
def test_a_time_does_not_depend_on_those_before_it(times_ns: list[int]) -> None:
    """A renderer gives each time the text that `local_time` does."""
    renderer = Renderer(utc=True)
    for unix_ns in (each for time_ns in times_ns for each in (time_ns, time_ns + 10**7)):
        assert renderer.time(unix_ns) == local_time(unix_ns, utc=True)


def test_the_encoder_writes_what_json_does() -> None:
    """JSON of any value equals the standard library's, with the same separators."""
    values: list[Any] = [
        '\u2028\x7f"\\ü',
        1e300,
        True,
        None,
        [],
        {},
        [{"a": [1, "b", 2.5]}, {"": None}],
    ]
    for value in [*values, values, {1: 2, None: 3}]:
        assert encoder()(value) in (json.dumps(value), json.dumps(value, ensure_ascii=False))
    with pytest.raises(TypeError, match="not JSON serializable"):
        encoder()([b"x"])

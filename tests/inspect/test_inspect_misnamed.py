"""journal-inspect and files with each other's names: the advised commands restore them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.inspect.damage_support import first_lsn, history, segment, swap
from tests.inspect.inspect_support import ask, contents, flip, segments


@pytest.mark.parametrize("lsns", [(22, 31), (31, 37), (7, 16), (22, 31, 37), (31, 99), (31, 25)])
def test_a_repair_restores_swapped_names(tmp_path: Path, lsns: tuple[int, ...]) -> None:
    """P4: verify advises a repair, which gives the segments the names in their headers. Nothing is
    lost, and the files as they were are kept."""
    path = history(tmp_path / "it's a j")
    before = {name: data for name, (data, *_) in contents(path).items()}
    swapped = [file for file in segments(path) if first_lsn(file) in lsns]
    data = [file.read_bytes() for file in swapped]
    for file, other in zip(swapped, [*data[1:], data[0]], strict=True):
        file.write_bytes(other)
    if len(swapped) == 1:  # an unused name, after the end or inside another segment
        swapped[0].rename(swapped[0].with_name(f"{lsns[1]:020d}-{3:010d}.seg"))
    verify = ask("verify", path)
    assert verify.code == 3
    fixes = 1 if 99 in lsns or 25 in lsns else len(swapped)
    assert f"  fixable         {fixes} file" in verify.out
    assert f"journal-inspect repair '{path}'".replace("'s", "'\"'\"'s") in verify.err
    dry = ask("repair", path)
    assert dry.code == 3
    assert sum(line.startswith("rename ") for line in dry.lines) == fixes
    assert "lost         none" in dry.lines
    done = ask("repair", path, "--apply", "-o", "json")
    assert (done.code, len(done.json["renamed"])) == (0, fixes)
    assert {name: data for name, (data, *_) in contents(path).items()} == before
    assert ask("verify", path).code == 0


@pytest.mark.parametrize("lsns", [(20, 99), (8, 99), (20, 8)])
def test_a_repair_restores_names_of_checkpoints(tmp_path: Path, lsns: tuple[int, int]) -> None:
    """P4: A repair gives a checkpoint whose name keeps the journal from opening the name of the LSN
    that it states, and two swapped ones each other's names. Nothing is lost."""
    path = history(tmp_path / "j")
    before = {name: data for name, (data, *_) in contents(path).items()}
    one, other = (path / f"checkpoint-{lsn:020d}.json" for lsn in lsns)
    if other.exists():
        swap(one, other)
    else:
        one.rename(other)
    fixes = 2 if one.exists() else 1
    verify = ask("verify", path)
    assert verify.code == 3
    assert f"  fixable         {fixes} file" in verify.out
    assert "a repair fixes wrong names of files" in verify.err
    done = ask("repair", path, "--apply", "-o", "json")
    assert (done.code, len(done.json["renamed"])) == (0, fixes)
    assert {name: data for name, (data, *_) in contents(path).items()} == before
    assert ask("verify", path).code == 0


def test_a_copy_of_another_file_is_not_renamed(tmp_path: Path) -> None:
    """P4: A copy is not renamed, because the name in its header belongs to the original."""
    path = history(tmp_path / "j")
    one, other = segment(path, 22), segment(path, 31)
    other.write_bytes(one.read_bytes())
    for verb in ("verify", "repair"):
        message = ask(verb, path).err
        assert f"{other.name} is a copy of {one.name}, so the records" in message
    flip(other, 300)
    for verb in ("verify", "repair"):
        message = ask(verb, path).err
        assert f"{other.name} has the header of {one.name}, which exists too, but other" in message
    shutil.copy(one, segment(path, 37))  # two equal copies are no swap
    assert "fixable" not in ask("verify", path).out

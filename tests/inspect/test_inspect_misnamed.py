"""journal-inspect where files have each other's names: what to type gives them back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.inspect.damage_support import first_lsn, history, segment
from tests.inspect.inspect_support import ask, contents, flip, segments


def typed(said: str) -> str:
    """The commands that give names back, as a person would type them."""
    return said[said.index("mv -n ") :].partition("; then check")[0].partition("\n")[0]


@pytest.mark.parametrize("lsns", [(22, 31), (31, 37), (7, 16), (22, 31, 37), (31, 99), (31, 25)])
def test_files_whose_names_were_swapped_get_them_back(
    tmp_path: Path, lsns: tuple[int, ...]
) -> None:
    """P4: nothing of them is lost. What verify and repair say to type is all that is needed, on a
    path that a shell would take apart, too."""
    path = history(tmp_path / "it's a j")
    before = {name: data for name, (data, *_) in contents(path).items()}
    at = [file for file in segments(path) if first_lsn(file) in lsns]
    data = [file.read_bytes() for file in at]
    for file, other in zip(at, [*data[1:], data[0]], strict=True):
        file.write_bytes(other)
    if len(at) == 1:  # a name that nobody had, behind the end or in the middle of another
        at[0].rename(at[0].with_name(f"{lsns[1]:020d}-{3:010d}.seg"))
    verify = ask("verify", path)
    assert verify.code == 3
    assert "journal-inspect repair" not in verify.err
    moves = typed(verify.err)
    assert moves == typed(ask("repair", path).err)
    subprocess.run(["sh", "-c", moves], check=True)
    assert {name: data for name, (data, *_) in contents(path).items()} == before
    assert ask("verify", path).code == 0


def test_a_copy_of_another_file_needs_no_name_back(tmp_path: Path) -> None:
    """P4: the name that it says is taken by the file that it is a copy of."""
    path = history(tmp_path / "j")
    one, other = segment(path, 22), segment(path, 31)
    other.write_bytes(one.read_bytes())
    for verb in ("verify", "repair"):
        said = ask(verb, path).err
        assert f"{other.name} is a copy of {one.name}, so the records" in said
        assert "mv -n" not in said
    flip(other, 300)
    for verb in ("verify", "repair"):
        said = ask(verb, path).err
        assert f"{other.name} has the header of {one.name}, which exists too, but other" in said
    shutil.copy(one, segment(path, 37))  # two that are the same are no swap
    assert "mv -n" not in ask("verify", path).err

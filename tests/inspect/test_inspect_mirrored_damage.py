"""journal-inspect on a damaged journal with a mirror, which replaces the damaged bytes."""

from __future__ import annotations

from pathlib import Path

from journal import Journal
from tests.inspect.damage_support import damage_frame
from tests.inspect.inspect_support import ask, put, segments
from tests.inspect.report_support import report
from tests.inspect.test_inspect_mirrors import mirror_at
from tests.installed import import_package


def damaged(place: Path) -> Path:
    """Make a mirrored journal whose third record is damaged."""
    path = place / "j"
    with Journal.open(path, mirror=mirror_at(place)) as journal:
        put(journal, *range(5))
        journal.wait_mirrored(5)
    damage_frame(path, 3)
    return path


def test_an_open_with_the_mirror_is_the_first_step(tmp_path: Path) -> None:
    """P4: verify, info and repair say that only an open without the mirror refuses, and advise one
    with it before a repair, which makes the directory diverge. That open keeps every record."""
    path = damaged(tmp_path)
    first = f"open it with its mirror first, file://{tmp_path}/mirror, which replaces"
    verify, info, repair = ask("verify", path), ask("info", path), ask("repair", path)
    assert {verify.code, info.code, repair.code} == {3}
    assert "An open without its mirror will refuse" in " ".join(verify.out.split())
    assert f"{path}: {first} what is damaged; if that refuses, too: restore a backup" in verify.err
    assert f"refuses without its mirror: {segments(path)[0]}: the log ends before LSN 3" in info.out
    assert f"{first} what is damaged; a repair makes the directory diverge from it" in repair.err
    with Journal.open(path, mirror=mirror_at(tmp_path)) as journal:
        assert journal.last_lsn == 5
    for verb in ("verify", "info", "repair"):
        told = ask(verb, path)
        assert (told.code, "its mirror" in told.out + told.err) == (0, False)


def test_an_open_with_the_mirror_refuses_an_unsafe_directory_too(tmp_path: Path) -> None:
    """If others can write to the directory, no sentence says that only an open without the mirror
    refuses."""
    path = damaged(tmp_path)
    path.chmod(0o777)
    for verb in ("verify", "info"):
        told = ask(verb, path)
        assert (told.code, "without its mirror" in told.out) == (4, False), told


def test_a_report_names_the_mirror(tmp_path: Path) -> None:
    """P4: The page names the mirror. While the directory is damaged, it says that an open with the
    mirror replaces what is damaged, and advises a repair only if that fails."""
    import_package("jinja2")
    path = damaged(tmp_path)
    url = f"file://{tmp_path}/mirror"
    told = report(path)
    assert told.code == 3
    assert f"With its mirror, {url}, it first replaces what is damaged." in told.words
    assert "Without its mirror, it refuses the journal and changes nothing: " in told.words
    repair = f"this command shows what a repair would keep: journal-inspect repair {path}"
    assert f"If both refuse, {repair}" in told.words
    with Journal.open(path, mirror=mirror_at(tmp_path)):
        pass
    whole = report(path).words
    assert url in whole
    assert "With its mirror" not in whole


def test_without_a_mirror_the_next_open_refuses(tmp_path: Path) -> None:
    """P4: A journal without a mirror is described as before, and so is one whose file MIRROR can't
    be read."""
    path = damaged(tmp_path)
    for marker in (b"", None):
        (path / "MIRROR").unlink()
        if marker is not None:
            (path / "MIRROR").write_bytes(marker)
        assert "The next open will refuse" in ask("verify", path).out
        assert "refuses: " in ask("info", path).out
        assert "open it with its mirror first" not in ask("repair", path).err

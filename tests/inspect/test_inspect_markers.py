"""journal-inspect on a journal whose file MIRROR is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal import Journal, MirrorError
from tests.inspect.damage_support import damage_frame, history
from tests.inspect.inspect_support import ask
from tests.inspect.test_inspect_mirrors import mirror_at, write

MARKERS = {
    "empty": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "a key is missing": b'{"url": "file:///m"}',
    "too deep": b"[" * 60_000,
}


@pytest.mark.parametrize("marker", MARKERS)
def test_a_damaged_marker_is_reported(marker: str, tmp_path: Path) -> None:
    """P4: An open refuses the directory, so `verify` and `info` say that, and what to do."""
    path = write(tmp_path)
    (path / "MIRROR").write_bytes(MARKERS[marker])
    for mirror in (None, False, mirror_at(tmp_path)):
        with pytest.raises(MirrorError, match="the marker of the mirror can't be read"):
            Journal.open(path, mirror=mirror)
    found = ask("verify", path, "-o", "json")
    (finding,) = found.json["findings"]
    assert (found.code, finding["path"]) == (3, str(path / "MIRROR"))
    told = ask("verify", path)
    assert "The next open will refuse" in told.out
    assert "only the file MIRROR keeps it from opening" in told.err
    told = ask("info", path)
    assert (told.code, f"refuses: {path}/MIRROR is damaged" in told.out) == (3, True)
    assert "would not help" in told.out


@pytest.mark.parametrize("options", [(), ("--apply",)])
def test_a_repair_does_not_mend_a_marker(options: tuple[str, ...], tmp_path: Path) -> None:
    """P4: The repair says that the next open refuses the directory, and what to do."""
    path = write(tmp_path)
    (path / "MIRROR").write_bytes(b"")
    told = ask("repair", path, *options)
    assert (told.code, f"problem      {path}/MIRROR: offset 0" in told.out) == (3, True)
    assert "only the file MIRROR keeps it from opening" in told.err
    told = ask("repair", path, *options, "-o", "json")
    problem = f"{path}/MIRROR: offset 0: the marker of the mirror can't be read"
    assert (told.code, told.json["problem"].startswith(problem)) == (3, True)


@pytest.mark.parametrize("marker", [b"x", b"{"])
def test_a_repair_of_the_log_reports_a_damaged_marker(marker: bytes, tmp_path: Path) -> None:
    """P4: After a repair, the next open still refuses because of the marker. So the repair exits
    with 3, and says what to do."""
    path = history(tmp_path / "j")
    damage_frame(path, 34)
    (path / "MIRROR").write_bytes(marker)
    for options in ((), ("--apply", "-o", "json")):
        told = ask("repair", path, *options)
        assert told.code == 3
    assert told.json["applied"]
    assert "repaired; check it again" in told.err
    assert "only the file MIRROR keeps it from opening" in told.err
    (path / "MIRROR").unlink()
    assert ask("repair", path).code == 0


def test_a_report_on_a_damaged_marker_does_not_blame_the_records(tmp_path: Path) -> None:
    """P4: The page says that the file MIRROR is damaged, and nothing else."""
    path, page = write(tmp_path), tmp_path / "report.html"
    (path / "MIRROR").write_bytes(b"")
    assert ask("report", path, "-o", page).code == 3
    words = page.read_text()
    assert "Acknowledged records are damaged" not in words
    assert "The file MIRROR is damaged" in words


def test_a_damaged_marker_of_a_live_journal_is_reported(tmp_path: Path) -> None:
    """P4: The next open refuses it, whatever its present writer does."""
    with Journal.open(tmp_path / "j", mirror=mirror_at(tmp_path)) as journal:
        journal.append_and_wait(1)
        (tmp_path / "j" / "MIRROR").write_bytes(b"")
        assert ask("verify", tmp_path / "j").code == 3

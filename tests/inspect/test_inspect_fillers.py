"""journal-inspect: a filler is shown as such, and a trimmed journal with the first LSN kept."""

from __future__ import annotations

from pathlib import Path

from journal import DurableState, Journal, Options
from manager import SubAgentManager, read_fleet, read_history
from tests.inspect.inspect_support import ask
from tests.support import Table

SMALL = Options(segment_bytes=4096)


def filled(path: Path) -> None:
    """Make a journal whose first kept record, LSN 10, is a filler."""
    with DurableState.open(path, Table(), options=SMALL) as state:
        for n in range(9):
            state.update_batch(lambda _, n=n: [["a", str(n) * 3000]])  # type: ignore[misc]
            state.wait_durable()
        state.compact().close()
        state.update(lambda _: ["b", 1])


def test_a_filler_is_shown_as_such(tmp_path: Path) -> None:
    """`log` calls a filler `(filler)`, and in JSON it has `is_filler`."""
    filled(tmp_path)
    lines = ask("log", tmp_path).out.splitlines()
    assert [line.split()[0] for line in lines] == ["10", "11"]
    assert lines[0].endswith("(filler)")
    for payload in ("none", "short", "full"):
        assert ask("log", tmp_path, "--payload", payload).out.splitlines()[0].endswith("(filler)")
    first, second = ask("log", tmp_path, "-o", "json").json
    assert (first["record"], first["is_filler"]) == (None, True)
    assert second["is_filler"] is False
    assert ask("verify", tmp_path).code == 0


def test_a_trimmed_journal_is_shown_with_the_first_lsn_kept(tmp_path: Path) -> None:
    """`info` and `log` of a trimmed journal name the first LSN that is kept."""
    with Journal.open(tmp_path, options=SMALL) as journal:
        for n in range(8):
            journal.wait_durable(journal.append([n, "x" * 3000]))
        assert journal.trim(6) == 5
    assert "5 to 8, durable up to 8" in ask("info", tmp_path).out
    assert ask("info", tmp_path, "-o", "json").json["first_lsn"] == 5
    answer = ask("log", tmp_path, "--from-lsn", 2)
    assert answer.code == 1
    assert "LSN 2 is no longer kept; the first LSN that is kept is 5" in answer.err
    assert ask("verify", tmp_path).code == 0


def test_a_fleet_with_a_filler_is_read(tmp_path: Path) -> None:
    """Everything that reads a fleet passes over a filler."""
    with SubAgentManager.open(tmp_path, options=SMALL) as manager:
        path = Path(manager.path)
        for n in range(40):
            agent_id = manager.spawn("x" * 2000, name=f"a{n}", queued=True).agent_id
            manager.cancel(agent_id)
            manager.wait_durable()
        manager.cleanup(0)
        manager.compact()
        manager.spawn("last", name="last")
    with Journal.open(path, options=SMALL) as journal:
        fillers = [entry.lsn for entry in journal.replay(journal.first_lsn - 1) if entry.is_filler]
    assert fillers
    assert len(read_fleet(path).agents()) == 1
    assert len(read_history(path, "last")) == 1
    for verb in ("agents", "log", "stats", "verify"):
        assert ask(verb, path).code == 0, verb
    assert ask("report", path, "-o", tmp_path / "report.html").code == 0

"""journal-inspect's messages: true, of use, and with nothing in them that was to be left out."""

from __future__ import annotations

from pathlib import Path

from tests.inspect_support import ask, damage_a_fleet, fleet, make


def test_messages_quote_no_record(tmp_path: Path) -> None:
    """What --redact leaves out stands in no error either, nor an exception of Python."""
    secret = {"password": "hunter2"}
    for number, record in enumerate((["spawn", "hunter2"], ["no such", secret], secret)):
        path = make(tmp_path / f"j{number}", [["boot", "subagents/1", "b", 1, 1], record])
        for verb in ("agents", "show", "history"):
            answer = ask(verb, path, *["hunter"] * (verb != "agents"), "--redact", "password")
            assert answer.code == 4
            assert "hunter2" not in answer.err
            assert "Error(" not in answer.err
            assert f"what is in it: journal-inspect log {path}" in answer.err


def test_a_decoders_error_is_not_quoted(tmp_path: Path) -> None:
    """It may quote what was to be left out."""
    path = make(tmp_path / "j", ["hunter2"])
    answer = ask("log", path, "--decoder", "builtins:int", "--redact", "x")
    assert "refused them; the first time: ValueError\n" in answer.err


def test_a_moment_may_be_how_long_ago(tmp_path: Path) -> None:
    """`diff PATH -1h now` needs no `--`; no range is named that there is none of."""
    with fleet(tmp_path) as manager:
        path = manager.path
    assert "nothing is kept that was written by -1h" in ask("diff", path, "-1h", "now").err
    assert ask("diff", path, 2, "-0s", "-o", "json").code == 1
    assert ask("diff", path, "--", 2, "now").code == 1
    same = ask("diff", path, 3, 3)
    assert (same.code, "--from-lsn" in same.err) == (0, False)
    assert "--from-lsn 3 --to-lsn 4" in ask("diff", path, 2, 4).err


def test_an_applied_repair_does_not_say_that_nothing_was_changed(tmp_path: Path) -> None:
    """As JSON too."""
    damaged = damage_a_fleet(tmp_path)
    answer = ask("repair", damaged.path, "--apply", "-o", "json")
    assert answer.json["applied"]
    assert answer.json["problem"]
    assert "nothing was changed" not in answer.out

"""journal-inspect's messages: they are true and useful, and contain nothing redacted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.inspect.inspect_support import (
    ask,
    checkpoints,
    damage_a_fleet,
    fleet,
    golden,
    make,
    segments,
)


def test_messages_quote_no_record(tmp_path: Path) -> None:
    """Redacted text is in no error message, not even in that of a Python exception."""
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
    """The error of a decoder is not quoted, because it may quote redacted text."""
    path = make(tmp_path / "j", ["hunter2"])
    answer = ask("log", path, "--decoder", "builtins:int", "--redact", "x")
    assert "shown undecoded; first error: ValueError\n" in answer.err


def test_a_moment_may_be_a_relative_time(tmp_path: Path) -> None:
    """`diff PATH -1h now` needs no `--`, and no range is advised if nothing differs."""
    with fleet(tmp_path) as manager:
        path = manager.path
    assert "the log does not reach back to -1h" in ask("diff", path, "-1h", "now").err
    assert ask("diff", path, 2, "-0s", "-o", "json").code == 1
    assert ask("diff", path, "--", 2, "now").code == 1
    same = ask("diff", path, 3, 3)
    assert (same.code, "--from-lsn" in same.err) == (0, False)
    assert "--from-lsn 3 --to-lsn 4" in ask("diff", path, 2, 4).err


def test_an_applied_repair_does_not_say_that_nothing_was_changed(tmp_path: Path) -> None:
    """The JSON of an applied repair does not say that nothing was changed."""
    damaged = damage_a_fleet(tmp_path)
    answer = ask("repair", damaged.path, "--apply", "-o", "json")
    assert answer.json["applied"]
    assert answer.json["problem"]
    assert "nothing was changed" not in answer.out


def test_commands_that_verify_suggests_work(tmp_path: Path) -> None:
    """If neither a checkpoint nor the log's beginning exists, no repair is advised.

    A command for the log up to LSN 0 is not advised either.
    """
    path = golden(tmp_path / "j")
    for file in checkpoints(path):
        file.unlink()
    answer = ask("verify", path)
    assert answer.code == 3
    assert ask("repair", path).code == 3
    assert "journal-inspect repair" not in answer.err
    assert "before the damage" not in answer.err
    assert re.search(rf"journal-inspect log {path} +# what is left\n", answer.err)
    assert ask("log", path).out


def test_loss_in_an_unreadable_last_segment_is_open_ended(tmp_path: Path) -> None:
    """P4: If the last segment is unreadable, the loss has no known end."""
    path = make(tmp_path / "j", ["x" * 900] * 6)
    with segments(path)[-1].open("r+b") as file:
        file.write(b"\xff" * 120)  # the first frame can't help either
    assert ask("verify", path).code == 3
    for verb in ("verify", "repair"):
        [line] = [each for each in ask(verb, path).lines if each.strip().startswith("lost")]
        assert "any records after LSN 4" in line


def test_report_names_its_file_and_the_reason_for_exit_code_3(tmp_path: Path) -> None:
    """The message on stderr names the file, what it replaced, and why it can't be written."""
    damaged, out = damage_a_fleet(tmp_path), tmp_path / "r.html"
    answer = ask("report", damaged.path, "-o", out)
    assert answer.code == 3
    assert f"{out}: written; " in answer.err
    assert f"damaged; look closer with: journal-inspect verify {damaged.path}\n" in answer.err
    path = make(tmp_path / "j")
    answer = ask("report", path, "-o", out)
    assert (answer.code, answer.err.count("\n")) == (0, 1)
    assert f"{out}: written, replacing the old file; " in answer.err
    for wrong, words in (
        (tmp_path / "none" / "r.html", "does not exist"),
        (tmp_path, "name of a file"),
    ):
        answer = ask("report", path, "-o", wrong)
        assert answer.code == 4
        assert words in answer.err


def test_an_error_for_a_wrong_path_suggests_the_journal(tmp_path: Path) -> None:
    """A workspace's journal is suggested; for other paths the message says what a journal is."""
    (tmp_path / "ws").mkdir()
    fleet(tmp_path / "ws").close()
    (tmp_path / "empty").mkdir()
    assert f"journal-inspect info {tmp_path}/ws/.subagents\n" in ask("info", tmp_path / "ws").err
    assert (
        "give the directory that contains the *.seg files; a manager's is WORKSPACE"
        in ask("info", tmp_path / "empty").err
    )


def test_a_cut_is_named_by_its_option(tmp_path: Path) -> None:
    """The message names the option, not the argument of the function."""
    answer = ask("repair", make(tmp_path / "j"), "--cut-at", 99)
    assert answer.code == 2
    assert "--cut-at 99 is not between two batches" in answer.err


def test_a_backups_error_names_the_wrong_path(tmp_path: Path) -> None:
    """The message names the path that is wrong, here the source."""
    file = tmp_path / "file"
    file.touch()
    answer = ask("backup", file, tmp_path / "copy")
    assert (answer.code, answer.out) == (4, "")
    assert f"{file}: Not a directory; a journal is a directory" in answer.err
    assert not (tmp_path / "copy").exists()


def test_redacted_fields_of_a_new_agent_have_no_old_value(tmp_path: Path) -> None:
    """The old value of a new agent's field is shown as missing, not as redacted."""
    with fleet(tmp_path) as manager:
        path = manager.path
    answer = ask("diff", path, 1, 2, "--redact", "prompt")
    assert 'prompt: "[redacted]",' in answer.out
    agent = ask("diff", path, 1, 2, "--redact", "prompt", "-o", "json").json["agents"][0]
    assert agent["fields"]["prompt"] == {"from": None, "to": "[redacted]"}


def test_an_error_of_write_names_the_missing_directory(tmp_path: Path) -> None:
    """The message is about the file to write, not about the journal."""
    with fleet(tmp_path) as manager:
        path = manager.path
    answer = ask("checkpoint", path, "--write", tmp_path / "none" / "state")
    assert (answer.code, answer.out) == (4, "")
    assert "its directory does not exist; create that first" in answer.err


def test_a_broken_decoder_is_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that can't be imported gives exit code 2, and is not reported as a defect."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_decoder.py").write_text("1 / 0")
    answer = ask("log", make(tmp_path / "j"), "--decoder", "broken_decoder:f")
    assert (answer.code, answer.out) == (2, "")
    assert "broken_decoder can't be imported: ZeroDivisionError" in answer.err


def test_a_journal_with_only_a_lock_file_is_empty(tmp_path: Path) -> None:
    """A journal without files is sound, and the text says that it is empty."""
    path = make(tmp_path / "j")
    empty = "; the journal is empty: it has no segment"
    for verb in ("verify", "info"):
        assert "is empty" not in ask(verb, path).out
    segments(path)[0].unlink()
    verify, info = ask("verify", path), ask("info", path)
    assert (verify.code, verify.lines) == (
        0,
        [
            f"{path}: whole. The journal is empty: it has no segment.",
            "  good            up to LSN 0",
        ],
    )
    assert info.code == 0
    assert f"LSNs          none, durable up to 0{empty}" in info.lines
    assert "is empty" not in ask("verify", path, "-o", "json").out

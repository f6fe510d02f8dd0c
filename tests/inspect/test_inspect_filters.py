"""journal-inspect log: its filters, the length of a record, and redaction."""

from __future__ import annotations

import json
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from journal_inspect.commands.moments import parse_moment, parse_time

from journal import JournalReader
from manager import AgentResult, SubAgentManager
from tests.golden.journal_v1 import LOG
from tests.inspect.inspect_support import (
    ask,
    fleet,
    flip,
    golden,
    make,
    open_journal,
    put,
    running,
    segments,
)

DECODER = """
def shout(record):
    return {"kind": record[0].upper(), "secret": "s", "prompt": record[-1]}

def one_word(record):
    return f"word: {record[1]}"

def picky(record):
    if record[0] == "b":
        raise ValueError("not a b")
    return object
"""


@pytest.fixture
def managed(tmp_path: Path) -> Path:
    """Return a manager's journal with eleven records of six agents."""
    with fleet(tmp_path) as manager:
        return Path(manager.path)


def lsns(*args: object) -> list[int]:
    return [entry["lsn"] for entry in ask("log", *args, "-o", "jsonl").jsonl]


def ids(path: Path) -> dict[str, str]:
    """Return the agents' ids by their prompts."""
    return {agent["prompt"]: agent["agent_id"] for agent in ask("agents", path, "-o", "json").json}


# --- which entries ---


def test_log_by_agent_takes_an_id_or_a_name(managed: Path) -> None:
    """--agent takes an id or a name, even a name that only a checkpoint contains."""
    of_lead = lsns(managed, "-a", "lead")
    assert of_lead == lsns(managed, "-a", ids(managed)["lead"]) == [2, 11]
    assert lsns(managed, "-a", "done") == [5, 6]
    assert lsns(managed, "-a", "lead", "-a", "done") == [2, 5, 6, 11]
    assert lsns(managed, "-a", "lead", "--from-lsn", 5) == [11]
    assert ask("log", managed, "-a", "nobody").code == 1


def test_log_by_a_name_that_only_a_checkpoint_contains(tmp_path: Path) -> None:
    """The records of an agent are found by name even if its spawn was compacted away."""
    with SubAgentManager.open(tmp_path) as manager:
        agent = manager.spawn("x", name="old")
    with SubAgentManager.open(tmp_path) as manager:
        manager.compact()
        manager.resume("old")
        manager.compact()
        manager.update_from_result("old", AgentResult("done"))
        manager.wait_durable()
        place = Path(manager.path)
    for segment in segments(place)[:-1]:
        segment.unlink(missing_ok=True)
    kinds = [entry["record"][0] for entry in ask("log", place, "-a", "old", "-o", "jsonl").jsonl]
    assert kinds == ["interrupt", "resume", "result"]
    assert lsns(place, "-a", agent.agent_id) == lsns(place, "-a", "old")


def test_log_filters_by_kind(managed: Path, tmp_path: Path) -> None:
    """A record's kind is its first string, its kind or type, or else its msgpack type."""
    assert lsns(managed, "-k", "result") == [6, 8]
    assert lsns(managed, "-k", "cancel", "-k", "boot") == [1, 10]
    records = [{"kind": "a"}, {"type": "b"}, ["c"], 7, None, b"", "text", {}, []]
    path = make(tmp_path / "j", records)
    kinds = ["a", "b", "c", "(int)", "(nil)", "(bin)", "(str)", "(map)", "(array)"]
    for lsn, kind in enumerate(kinds, 1):
        assert lsns(path, "-k", kind) == [lsn], kind


def test_log_filters_by_content(managed: Path) -> None:
    """--grep matches the text of a record as it is shown, so redacted parts do not match."""
    assert lsns(managed, "-g", "it br.ke") == [8]
    assert lsns(managed, "-g", '"status": "queued"') == [4, 9]
    assert lsns(managed, "-g", "it broke", "--redact", "reason") == []
    assert 8 in lsns(managed, "-g", "redacted", "--redact", "reason")
    assert lsns(managed, "-k", "spawn", "-g", "lead") == [2]


@pytest.mark.parametrize("reverse", [[], ["-r"]])
def test_log_counts_matching_entries(managed: Path, reverse: list[str]) -> None:
    """-n with a filter shows the last matching entries, in either order."""
    for count in range(7):
        output_lsns = lsns(managed, "-k", "spawn", "-n", count, *reverse)
        expected = [2, 3, 4, 5, 7, 9][6 - count :]
        assert output_lsns == (expected[::-1] if reverse else expected)
    assert sorted(lsns(managed, "-k", "spawn", "-n", 2, "--to-lsn", 6, *reverse)) == [4, 5]


def test_log_filters_by_time(path: Path) -> None:
    """--since and --until include the time that they name, in any zone."""
    with JournalReader.open(path) as reader:
        times = {entry.lsn: entry.written_at_ns for entry in reader.entries()}
    for lsn in (9, 10, 44, 45, 54, 58, 60):
        clock = datetime.fromtimestamp(times[lsn] / 1e9, UTC)
        later = [n for n, at in times.items() if at >= times[lsn]]
        until = [n for n, at in times.items() if at <= times[lsn]]
        naive = clock.replace(tzinfo=None).isoformat()
        for words in ([clock.isoformat()], [f"{naive}Z"], [naive, "--utc"]):
            assert lsns(path, "-S", *words) == later, (lsn, words)
            assert lsns(path, "--until", *words) == until, (lsn, words)
        assert lsns(path, "-r", "-S", clock.isoformat()) == later[::-1]
        assert lsns(path, "-n", 2, "-U", clock.isoformat()) == until[-2:]
    assert ask("log", path, "-S", "now").code == 1
    assert ask("log", path, "-U", "2025-12-31").code == 1
    assert lsns(path, "-S", "2025-12-31", "-U", "now") == list(times)


def test_times_are_iso_8601_relative_or_now() -> None:
    """A time is ISO 8601, a relative time, or now; other text is refused with these forms."""
    for text, seconds in {"-90s": 90, "-1h30m": 5400, "-2d": 172_800, "-1.5min": 90}.items():
        assert parse_time(text).ago_s == seconds
    assert parse_time("2026-01-31T10:00+02:00").unix_ns(utc=False) == 1_769_846_400 * 10**9
    assert parse_time("2026-01-31").unix_ns(utc=True) == 1_769_817_600 * 10**9
    assert parse_moment("17") == 17
    for text in ("-", "-1", "-1y", "1h", "soon", "", "99999-01-01", "-h"):
        with pytest.raises(ValueError, match=r"ISO 8601"):
            parse_time(text)
        with pytest.raises(ValueError, match=r"neither an LSN nor a time"):
            parse_moment(text)


def test_log_reads_backward_over_damage(path: Path) -> None:
    """P4: Matching entries are found before and after damage, with exit code 3."""
    with JournalReader.open(path) as reader:
        offset = next(entry.offset for entry in reader.entries() if entry.lsn == 40)
    assert offset
    flip(segments(path)[0], offset + 44)
    expected = [n for n in range(9, 61) if n != 40 and isinstance(LOG[n - 1][1], list)]
    for args in (["-n", 30], ["-n", 30, "-r"]):
        answer = ask("log", path, "-g", r"^\[", *args, "-o", "jsonl")
        output_lsns = sorted(entry["lsn"] for entry in answer.jsonl)
        assert output_lsns == expected[-30:]
        assert answer.code == 3
        assert "LSN 40" in answer.err
    assert ask("log", path, "-g", r"^\[", "-n", 1).code == 0  # it did not read that far
    newest = golden(path.with_name("newest"))
    flip(segments(newest)[-1], 64 + 44 + 20)  # LSN 59, which evidence after it proves durable
    for words in ("-r", "-r -n 5", "-n 5 -k filler"):
        options = words.split()
        answer = ask("log", newest, *options, "-o", "jsonl")
        assert (answer.code, answer.jsonl[0]["lsn"]) == (3, 9 if "-k" in options else 58), words


# --- following ---


def test_following_ends_with_the_matching_entry(tmp_path: Path) -> None:
    """--until-match shows the matching entry and exits with 0."""
    path = make(tmp_path / "j")
    with running("log", path, "-f", "--until-match", "the [Ee]nd", "-o", "jsonl") as child:
        for _ in range(3):
            child.line()
        with open_journal(path) as journal:
            put(journal, "not yet", "the end", "too late")
            records = [json.loads(child.line())["record"] for _ in range(2)]
            answer = child.end()
    assert records == ["not yet", "the end"]
    assert (answer.code, answer.out, answer.err) == (0, "", "")


def test_following_filters_new_entries(tmp_path: Path) -> None:
    """-f applies the filters to old and new entries, even for a name given meanwhile."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.wait_durable(manager.spawn("a", name="early").lsn)
        with running("log", manager.path, "-f", "-a", "late", "-n", 2, "-o", "jsonl") as child:
            with running("log", manager.path, "-f", "-k", "spawn", "-o", "jsonl") as other:
                assert json.loads(other.line())["record"][7] == "early"
                manager.wait_durable(manager.spawn("b", name="late").lsn)
                lsn = manager.update_from_result("late", AgentResult("x")).lsn
                manager.wait_durable(lsn)
                assert json.loads(other.line())["record"][7] == "late"
            assert [json.loads(child.line())["record"][0] for _ in range(2)] == ["spawn", "result"]
            assert child.end(signal.SIGINT).code == 130


def test_following_ends_in_time(path: Path) -> None:
    """-f shows nothing later than --until, and ends after --to-lsn."""
    assert lsns(path, "-f", "--until", "2026-01-01T00:00:12Z", "--from-lsn", 9)[0] == 9
    ended = ask("log", path, "-f", "--until", "2025-01-01", "--from-lsn", 9)
    assert (ended.code, ended.out) == (1, "")


# --- how much of an entry ---


def test_payload_chooses_none_part_or_all_of_a_record(managed: Path, tmp_path: Path) -> None:
    """--payload shows kind and agent only, one line of the record, or all of it."""
    lines = ask("log", managed, "--payload", "none").lines
    assert lines[1].split()[3:] == ["spawn", ids(managed)["lead"]]
    assert all("{" not in line for line in lines)
    path = make(tmp_path / "j", [["k", "x" * 500], 7, {"a": "y" * 81}])
    assert [line.split()[-1] for line in ask("log", path, "--payload", "none").lines] == [
        "k",
        "(int)",
        "(map)",
    ]
    short = ask("log", path, "--payload", "short")
    assert len(short.lines[0]) == 120
    assert short.lines[0].endswith("x...")
    assert ask("log", path, "--payload", "full").lines == ask("log", path).lines
    for form in ("json", "jsonl"):
        first, *_, last = json.loads(
            ask("log", path, "--payload", "short", "-o", "json").out
            if form == "json"
            else f"[{','.join(ask('log', path, '--payload', 'short', '-o', 'jsonl').lines)}]"
        )
        assert first["record"] == ["k", "x" * 80 + "..."]
        assert last["record"] == {"a": "y" * 80 + "..."}
    assert all(
        "record" not in entry for entry in ask("log", path, "--payload", "none", "-o", "json").json
    )


def test_a_managers_records_have_names(managed: Path, tmp_path: Path) -> None:
    """Text shows a manager's record with field names, and JSON the record as it is.

    A record that only looks like a manager's is shown as it is.
    """
    line = ask("log", managed, "-n", 1).lines[0]
    *_, kind, agent, fields = line.split(maxsplit=5)
    assert (kind, agent) == ("checkpoint", ids(managed)["lead"])
    assert json.loads(fields)["steps_taken"] == 3
    record = ask("log", managed, "-n", 1, "-o", "json").json[0]["record"]
    assert record[:2] == ["checkpoint", agent]
    for number, record in enumerate((["start", "x", 1, "y"], ["remove", "x"])):
        path = make(tmp_path / str(number), [record])
        assert json.loads(ask("log", path).lines[0].split(maxsplit=3)[3]) == record
    newer = make(
        tmp_path / "newer", [["boot", "subagents/1", "b", 1, 2], ["start", "a", 1, "b", 9]]
    )
    assert json.loads(ask("log", newer, "-n", 1).lines[0].split(maxsplit=3)[3])[-1] == 9


def test_redact_hides_a_field_everywhere(tmp_path: Path) -> None:
    """A field is hidden in a manager's records and in maps, in every command and format."""
    secret = "a secret"
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn(secret, name="lead", metadata={"deep": [{"prompt": secret}]})
        manager.compact()
        manager.update_checkpoint("lead", {"prompt": secret}, steps_taken=1)
        manager.interrupt("lead", "why", needs_input={"prompt": secret})
        manager.wait_durable()
        path = manager.path
        lines: list[list[object]] = [
            ["log", path],
            ["log", path, "--frames", "--payload", "full"],
            ["agents", path],
            ["show", path, "lead"],
            ["history", path, "lead"],
            ["diff", path, 0, 4],
            ["checkpoint", path],
            ["checkpoint", path, "--write", "-"],
            ["stats", path],
        ]
        for line in lines:
            for form in ("text", "json", "jsonl"):
                clear = ask(*line, "-o", form)
                hidden = ask(*line, "-o", form, "--redact", "prompt")
                assert secret not in hidden.out + hidden.err, (line, form)
                assert hidden.code == clear.code
                if secret in clear.out:
                    assert "[redacted]" in hidden.out
    place = make(tmp_path / "j", [{1: [{"key": secret}], "key": 2}, {"map": [[1, 2, 3]]}])
    entries = ask("log", place, "--redact", "key", "--redact", "other", "-o", "json").json
    assert entries[0]["record"] == {"map": [[1, [{"key": "[redacted]"}]], ["key", "[redacted]"]]}
    assert entries[1]["record"] == {"map": [[1, 2, 3]]}


def test_decoder_shows_the_output_of_a_users_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder is imported from the current directory, last on the path.

    A record that it refuses is shown as it is, with a message.
    """
    (tmp_path / "my_decoder.py").write_text(DECODER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = make(tmp_path / "j", [["a", 1], ["b", 2]])

    def bodies(function: str, *args: object) -> list[str]:
        answer = ask("log", path, "--decoder", f"my_decoder:{function}", *args)
        assert answer.code == 0
        return [line.split(maxsplit=3)[3] for line in answer.lines]

    assert bodies("one_word") == ["word: 1", "word: 2"]
    assert json.loads(bodies("shout")[0]) == {"kind": "A", "secret": "s", "prompt": 1}
    assert json.loads(bodies("shout", "--redact", "secret")[0])["secret"] == "[redacted]"
    assert bodies("shout", "-g", '"A"')[0]
    picky = ask("log", path, "--decoder", "my_decoder:picky")
    assert "<class 'object'>" in picky.lines[0]
    assert json.loads(picky.lines[1].split(maxsplit=3)[3]) == ["b", 2]
    assert "shown undecoded; first error: ValueError('not a b')" in picky.err
    decoded = ask("log", path, "--decoder", "my_decoder:one_word", "-o", "json").json
    assert [(entry["record"], entry["decoded"]) for entry in decoded] == [
        (["a", 1], "word: 1"),
        (["b", 2], "word: 2"),
    ]
    assert sys.path[-1] == str(tmp_path)

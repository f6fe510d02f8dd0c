"""journal-inspect log: its filters, how much of a record it shows, what it leaves out."""

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
def path(tmp_path: Path) -> Path:
    return golden(tmp_path / "golden")


@pytest.fixture
def managed(tmp_path: Path) -> Path:
    """Of a manager: eleven records, six agents."""
    with fleet(tmp_path) as manager:
        return Path(manager.path)


def lsns(*args: object) -> list[int]:
    return [entry["lsn"] for entry in ask("log", *args, "-o", "jsonl").jsonl]


def ids(path: Path) -> dict[str, str]:
    """The agents' by what they were told."""
    return {agent["prompt"]: agent["agent_id"] for agent in ask("agents", path, "-o", "json").json}


# --- which ---


def test_log_by_agent_takes_an_id_or_a_name(managed: Path) -> None:
    """All records about it, and no others; a name that a checkpoint alone tells counts too."""
    of_lead = lsns(managed, "-a", "lead")
    assert of_lead == lsns(managed, "-a", ids(managed)["lead"]) == [2, 11]
    assert lsns(managed, "-a", "done") == [5, 6]
    assert lsns(managed, "-a", "lead", "-a", "done") == [2, 5, 6, 11]
    assert lsns(managed, "-a", "lead", "--from-lsn", 5) == [11]
    assert ask("log", managed, "-a", "nobody").code == 1


def test_log_by_the_name_of_one_that_only_a_checkpoint_knows(tmp_path: Path) -> None:
    """What names an agent may be compacted away; its later records are found all the same."""
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


def test_log_by_kind(managed: Path, tmp_path: Path) -> None:
    """A list's first string, a map's kind or type; what has none by what it is made of."""
    assert lsns(managed, "-k", "result") == [6, 8]
    assert lsns(managed, "-k", "cancel", "-k", "boot") == [1, 10]
    records = [{"kind": "a"}, {"type": "b"}, ["c"], 7, None, b"", "text", {}, []]
    path = make(tmp_path / "j", records)
    kinds = ["a", "b", "c", "(int)", "(nil)", "(bin)", "(str)", "(map)", "(array)"]
    for lsn, kind in enumerate(kinds, 1):
        assert lsns(path, "-k", kind) == [lsn], kind


def test_log_filters_by_content(managed: Path) -> None:
    """A regular expression over what is shown of a record; what is redacted can't be found."""
    assert lsns(managed, "-g", "it br.ke") == [8]
    assert lsns(managed, "-g", '"status": "queued"') == [4, 9]
    assert lsns(managed, "-g", "it broke", "--redact", "reason") == []
    assert lsns(managed, "-k", "spawn", "-g", "lead") == [2]


@pytest.mark.parametrize("turn", [[], ["-r"]])
def test_log_counts_matching_entries(managed: Path, turn: list[str]) -> None:
    """-n with a filter is so many of those, the last ones, whichever way they are shown."""
    for count in range(7):
        shown = lsns(managed, "-k", "spawn", "-n", count, *turn)
        wanted = [2, 3, 4, 5, 7, 9][6 - count :]
        assert shown == (wanted[::-1] if turn else wanted)
    assert sorted(lsns(managed, "-k", "spawn", "-n", 2, "--to-lsn", 6, *turn)) == [4, 5]


def test_log_by_time(path: Path) -> None:
    """--since and --until take all that was written from then on, and up to then, in any zone."""
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


def test_times_as_people_type_them() -> None:
    """ISO 8601, how long ago, or now; anything else says which forms there are."""
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
    """P4: the last ones that match are found behind and before the damage; it exits with 3."""
    with JournalReader.open(path) as reader:
        offset = next(entry.offset for entry in reader.entries() if entry.lsn == 40)
    assert offset
    flip(segments(path)[0], offset + 44)
    wanted = [n for n in range(9, 61) if n not in range(40, 45) and isinstance(LOG[n - 1][1], list)]
    for args in (["-n", 30], ["-n", 30, "-r"]):
        answer = ask("log", path, "-g", r"^\[", *args, "-o", "jsonl")
        shown = sorted(entry["lsn"] for entry in answer.jsonl)
        assert shown == wanted[-30:]
        assert answer.code == 3
        assert "LSN 40" in answer.err
    assert ask("log", path, "-g", r"^\[", "-n", 1).code == 0  # it did not come that far
    newest = golden(path.with_name("newest"))
    flip(segments(newest)[-1], 64 + 44 + 20)  # LSN 59: what follows says that it was durable
    for words in ("-r", "-r -n 5", "-n 5 -k filler"):
        options = words.split()
        answer = ask("log", newest, *options, "-o", "jsonl")
        assert (answer.code, answer.jsonl[0]["lsn"]) == (3, 9 if "-k" in options else 58), words


# --- how long ---


def test_following_ends_with_the_entry_that_was_waited_for(tmp_path: Path) -> None:
    """--until-match shows that entry too, then ends with 0."""
    path = make(tmp_path / "j")
    with running("log", path, "-f", "--until-match", "the [Ee]nd", "-o", "jsonl") as child:
        for _ in range(3):
            child.line()
        with open_journal(path) as journal:
            put(journal, "not yet", "the end", "too late")
            shown = [json.loads(child.line())["record"] for _ in range(2)]
            answer = child.end()
    assert shown == ["not yet", "the end"]
    assert (answer.code, answer.out, answer.err) == (0, "", "")


def test_following_filters_what_comes(tmp_path: Path) -> None:
    """With -f the filters hold for the entries that it begins with, and for those to come: an
    agent's name too that was given meanwhile."""
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
    """With -f nothing later than --until is shown, and --to-lsn ends it."""
    assert lsns(path, "-f", "--until", "2026-01-01T00:00:12Z", "--from-lsn", 9)[0] == 9
    ended = ask("log", path, "-f", "--until", "2025-01-01", "--from-lsn", 9)
    assert (ended.code, ended.out) == (1, "")


# --- how much ---


def test_payload_none_short_full(managed: Path, tmp_path: Path) -> None:
    """Nothing of a record but its kind and agent; a line's length of it; all of it."""
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
        "record" not in it for it in ask("log", path, "--payload", "none", "-o", "json").json
    )


def test_a_managers_records_have_names(managed: Path, tmp_path: Path) -> None:
    """Text shows kind, agent and fields by name; JSON the record as it is; what only looks like
    a manager's is plain."""
    line = ask("log", managed, "-n", 1).lines[0]
    *_, kind, agent, fields = line.split(maxsplit=5)
    assert (kind, agent) == ("checkpoint", ids(managed)["lead"])
    assert json.loads(fields)["steps_taken"] == 3
    record = ask("log", managed, "-n", 1, "-o", "json").json[0]["record"]
    assert record[:2] == ["checkpoint", agent]
    for number, looks in enumerate((["start", "x", 1, "y"], ["remove", "x"])):
        path = make(tmp_path / str(number), [looks])
        assert json.loads(ask("log", path).lines[0].split(maxsplit=3)[3]) == looks
    newer = make(
        tmp_path / "newer", [["boot", "subagents/1", "b", 1, 2], ["start", "a", 1, "b", 9]]
    )
    assert json.loads(ask("log", newer, "-n", 1).lines[0].split(maxsplit=3)[3])[-1] == 9


def test_redact_leaves_a_field_out_wherever_it_stands(tmp_path: Path) -> None:
    """By place in a manager's records, by name in maps however deep, in every verb and form."""
    secret = "tell nobody"
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
    shown = ask("log", place, "--redact", "key", "--redact", "other", "-o", "json").json
    assert shown[0]["record"] == {"map": [[1, [{"key": "[redacted]"}]], ["key", "[redacted]"]]}
    assert shown[1]["record"] == {"map": [[1, 2, 3]]}


def test_decoder_shows_what_a_users_function_makes_of_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the present directory, last on the path; what it refuses is shown as it is, and said."""
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
    assert [(it["record"], it["decoded"]) for it in decoded] == [
        (["a", 1], "word: 1"),
        (["b", 2], "word: 2"),
    ]
    assert sys.path[-1] == str(tmp_path)

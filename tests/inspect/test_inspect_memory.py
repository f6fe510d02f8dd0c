"""Memory: a record that would take much of it as objects is checked, counted, named and skipped."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from journal import Journal, Options
from tests.inspect.inspect_support import ask, check_refused, put

MAPS = 1 << 19  # empty maps of a byte each: 36 MiB as objects
MEMORY_MAX = 1 << 25


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a journal of two segments, with a record that takes more memory than is allowed at the
    least."""
    path = tmp_path_factory.mktemp("memory") / "j"
    with Journal.open(path) as journal:
        put(journal, ["small", 1])
    with Journal.open(path, options=Options(record_bytes_max=1 << 21)) as journal:
        put(journal, ["large", *({} for _ in range(MAPS))])
        put(journal, ["small", 2])
    return path


def peak_of(*args: object) -> int:
    """Run a command, and return the most memory that it took at a time."""
    tracemalloc.start()
    try:
        assert ask(*args).code == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak


@pytest.mark.parametrize("verb", ["verify", "info", "stats", "repair"])
def test_verbs_that_show_no_record_make_no_large_one(path: Path, verb: str) -> None:
    """P9: verify, info, stats and repair take four times the frame and a little more."""
    ask(verb, path)  # imports
    assert peak_of(verb, path) < 4 * MAPS + (4 << 20)


def test_stats_count_what_they_do_not_make(path: Path) -> None:
    """A record that is not made is counted under its kind, with its size."""
    kinds = {each["kind"]: each for each in ask("stats", path, "-o", "json").json["kinds"]}
    assert kinds["large"]["records"] == 1
    assert MAPS < kinds["large"]["bytes"] < MAPS + 100
    assert kinds["small"]["records"] == 2


@pytest.mark.parametrize("options", [[], ["-r"], ["-n", "3"], ["-k", "small"], ["--frames"]])
def test_log_names_and_skips_a_record_over_the_limit(path: Path, options: list[str]) -> None:
    """P9: log names the LSN of the record that would take more memory than --memory-max, on stderr,
    and shows the others. With --frames it shows no records, so it names none."""
    answer = ask("log", path, "--memory-max", "32M", "-o", "jsonl", *options)
    assert answer.code == 0
    if options == ["--frames"]:
        assert answer.err == ""
        return
    assert sorted(each["record"][1] for each in answer.jsonl) == [1, 2]
    assert answer.err.count("LSN 2 is left out: its record of 512.0 KiB would take 36.0 MiB") == 1


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--from-lsn", "2", "--to-lsn", "2"], 0, "LSN 2 is left out"),
        (["-f", "--from-lsn", "2", "--to-lsn", "2", "--timeout-s", "30"], 0, "LSN 2 is left out"),
        (["-k", "large"], 0, "LSN 2 is left out"),
        (["-k", "large", "-g", "x"], 0, "LSN 2 is left out"),
        (["-k", "other"], 1, "no kind 'other'; there are large, small"),
        (["-a", "nobody"], 1, "no agent 'nobody'"),
    ],
)
def test_a_record_over_the_limit_may_be_the_only_match(
    path: Path, options: list[str], code: int, said: str
) -> None:
    """P9: If log leaves out the only entry that may match, it does not say that none matches."""
    answer = ask("log", path, "--memory-max", "32M", *options)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert "no entry matches" not in answer.err


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["-n", "2"], [3]),
        (["-r", "-n", "2"], [3]),
        (["-r", "-n", "3"], [3, 1]),
        (["-r", "-n", "2", "--to-lsn", "2"], [1]),
        (["-n", "2", "--to-lsn", "2"], [1]),
    ],
)
def test_a_record_over_the_limit_is_one_of_the_last(
    path: Path, options: list[str], shown: list[int]
) -> None:
    """P9: -n counts the record that is left out, in both orders. No earlier one is shown for it."""
    answer = ask("log", path, "--memory-max", "32M", "-o", "jsonl", *options)
    assert [each["lsn"] for each in answer.jsonl] == shown
    assert answer.err.count("LSN 2 is left out") == 1


@pytest.mark.parametrize("options", [[], ["-o", "json"]])
def test_frames_describe_a_record_over_the_limit(path: Path, options: list[str]) -> None:
    """P9: With --payload, --frames describes the record in its place."""
    answer = ask("log", path, "--frames", "--payload", "full", "--memory-max", "32M", *options)
    assert answer.code == 0
    assert "<LargeRecord of 5242" in answer.out


def test_log_shows_the_record_within_the_limit(path: Path) -> None:
    """A larger --memory-max shows the record."""
    answer = ask("log", path, "-k", "large", "-o", "jsonl", "--memory-max", "64M")
    assert (len(answer.jsonl[0]["record"]), answer.err) == (MAPS + 1, "")


def test_report_names_and_skips_a_record_over_the_limit(path: Path, tmp_path: Path) -> None:
    """P9: report names the record on stderr, and the page has the others."""
    answer = ask("report", path, "-o", tmp_path / "r.html", "--memory-max", "32M")
    assert answer.code == 0
    assert "LSN 2 is left out" in answer.err


@pytest.mark.parametrize("size", ["1M", "much", "-1G", "1.5G"])
def test_a_wrong_size_is_refused(path: Path, size: str) -> None:
    """--memory-max is a whole number of bytes, KiB, MiB, GiB or TiB, and 32 MiB at the least."""
    assert ask("log", path, "--memory-max", size).code == 2


def test_a_reader_refuses_too_low_a_limit(path: Path) -> None:
    """`memory_max_bytes` is 32 MiB at the least, because small frames are decoded whole."""
    from journal import JournalReader

    with pytest.raises(ValueError, match="at least"):
        JournalReader.open(path, memory_max_bytes=MEMORY_MAX - 1)
    check_refused(ask("log", path / "nothing"), 4)

"""journal-inspect changes nothing, and prints nothing that a terminal would obey."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest
from _journal_console import text

from journal import Options, Tables
from manager import SubAgentManager
from tests.inspect.inspect_support import (
    ARGS,
    COMMAND,
    DIFFER,
    TABLE_VERBS,
    TIMEOUT_S,
    VERBS,
    ask,
    ask_child,
    ask_verb,
    contents,
    environment,
    fleet,
    flip,
    make,
    segments,
    tables,
)
from tests.installed import find_command
from tests.support import until

HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x9b2J\x7f\r\n\t\u202eesrever\u2028\ud83d\ude00é"


# --- changes ---


def test_no_file_of_a_journal_is_changed(tmp_path: Path, path: Path) -> None:
    """No command changes contents, times or modes of a journal, whole or damaged."""
    damaged = make(tmp_path / "damaged")
    flip(segments(damaged)[0], 70)
    (damaged / "x.tmp").touch()
    places = product((path, damaged, tables(tmp_path / "tables")), VERBS + TABLE_VERBS)
    for (place, verb), form in product(places, ("text", "jsonl")):
        place.chmod(0o755)
        before = contents(place)
        ask_verb(verb, place, "-o", form)
        assert contents(place) == before
        assert place.stat().st_mode & 0o777 == 0o755


BUSY = {"diff": 1}  # the LSN that it is given is no longer kept


def test_a_busy_writer_is_no_damage(tmp_path: Path) -> None:
    """P4: Every command succeeds while segments roll and compaction removes them.

    Unfinished files are no finding.
    """
    options = Options(segment_bytes=4096, checkpoint_min_bytes=4096, checkpoint_growth=0.1)
    with SubAgentManager.open(tmp_path, options=options) as manager:
        manager.spawn("stays", name="lead", queued=True)
        over = threading.Event()

        def write() -> None:
            while not over.wait(0.001):
                agent = manager.spawn("x" * 100, queued=True)
                manager.wait_durable(manager.cancel(agent.agent_id).lsn)

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            try:
                until(lambda: manager.stats().compactions, "a compaction")
                compactions = manager.stats().compactions
                while manager.stats().compactions < compactions + 3 and not writing.done():
                    for verb in VERBS:
                        answer = ask_verb(verb, manager.path, "-o", "jsonl")
                        assert answer.code == BUSY.get(verb, 0), answer
                        assert verb != "verify" or len(answer.lines) == 1, answer
            finally:
                over.set()
            writing.result(TIMEOUT_S)


def test_a_busy_writer_of_tables_is_no_damage(tmp_path: Path) -> None:
    """P4: The commands for tables succeed while compaction removes segments."""
    options = Options(segment_bytes=4096, checkpoint_min_bytes=4096, checkpoint_growth=0.1)
    with Tables.open(tmp_path / "j", options=options) as app:
        users = app.table("users")
        users["lead"] = "stays"
        app.sync(timeout_s=TIMEOUT_S)
        app.compact()
        over = threading.Event()

        def write() -> None:
            for number in count():
                if over.wait(0.001):
                    return
                users["key", number % 9] = "x" * 100
                app.sync(timeout_s=TIMEOUT_S)

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            try:
                compactions = app.stats().compactions
                while app.stats().compactions < compactions + 3 and not writing.done():
                    for verb in TABLE_VERBS:
                        assert ask_verb(verb, tmp_path / "j", "-o", "jsonl").code == 0
            finally:
                over.set()
            writing.result(TIMEOUT_S)


CHANGES = {
    *("write", "pwrite64", "writev", "pwritev", "pwritev2", "copy_file_range", "sendfile"),
    *("truncate", "ftruncate", "fallocate", "fsync", "fdatasync", "sync_file_range"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "link", "linkat", "symlink"),
    *("symlinkat", "mkdir", "mkdirat", "rmdir", "mknod", "mknodat", "utimensat", "futimesat"),
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"),
    *("setxattr", "fsetxattr", "lsetxattr", "removexattr", "fremovexattr", "lremovexattr"),
}
OPENS = {"open", "openat", "openat2", "creat"}
LOCKS = {"flock", "fcntl"}


def calls_of(path: Path, log: Path, command: list[str]) -> tuple[list[str], list[str]]:
    """Return a command's system calls below `path`, and those of them that lock or write."""
    traced = ",".join(f"?{name}" for name in (*CHANGES, *OPENS, *LOCKS, "mmap"))
    done = subprocess.run(
        ["strace", "-f", "-y", "-s", "0", "-e", f"trace={traced}", "-o", log, *command],
        check=False,
        stdout=subprocess.DEVNULL,
        timeout=TIMEOUT_S,
    )
    assert done.returncode in (0, 1, 3)
    on_path = [line for line in log.read_text().splitlines() if str(path) in line]
    forbidden = []
    for line in on_path:
        name = re.search(r"(\w+)\(", line)
        assert name, line
        writes = re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|F_\w*SETLK|F_SETLEASE", line)
        if name[1] in CHANGES or name[1] in ("flock", "creat", "mmap") or writes:
            forbidden.append(line)
    return on_path, forbidden


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the path of strace's log. Skip the test if strace can't trace here."""
    strace = find_command("strace")
    if subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True).returncode:
        pytest.skip("strace may not trace here")
    return tmp_path / "calls"


@pytest.mark.slow
def test_no_system_call_locks_or_writes(tmp_path: Path, log: Path) -> None:
    """P4: No command locks, maps, opens for writing or changes a live journal.

    The kernel's trace says so; the same check notices what a writer does.
    """
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("x", name="lead")
        manager.compact()
        manager.wait_durable(manager.spawn("y").lsn)
        path = Path(manager.path)
        lines = [[verb, str(path), *ARGS.get(verb, ())] for verb in VERBS]
        lines += [["log", str(path), "-f", "--to-lsn", "2"], ["log", str(path), "--frames"]]
        lines += [["agents", str(path), "--at", "now"], ["checkpoint", str(path), "--write", "-"]]
        for line in lines:
            on_path, forbidden = calls_of(path, log, [*COMMAND, *line])
            assert len(on_path) > 2
            assert forbidden == []
    owner = "journal.Options(application='subagents/1')"
    writer = f"import journal; journal.Journal.open({str(path)!r}, options={owner}).append(1)"
    _, calls = calls_of(path, log, [sys.executable, "-P", "-c", writer])
    text = "\n".join(calls)
    assert "flock(" in text
    assert "O_RDWR|O_CREAT" in text
    assert "fsync(" in text


@pytest.mark.slow
def test_tables_and_damaged_journals_are_not_written(tmp_path: Path, log: Path) -> None:
    """P4: The same holds for a journal of tables, and for a damaged journal."""
    of_tables = tables(tmp_path / "tables")
    with fleet(tmp_path) as manager:
        damaged = Path(manager.path)
    flip(segments(damaged)[-1], 100)
    for path, verbs in ((of_tables, TABLE_VERBS), (damaged, VERBS)):
        for verb in verbs:
            line = [verb, str(path), *ARGS.get(verb, ())]
            on_path, forbidden = calls_of(path, log, [*COMMAND, *line])
            assert len(on_path) > 2
            assert forbidden == []


def test_help_imports_no_engine() -> None:
    """`--help` imports neither engine nor manager nor rich, so that it appears at once."""
    code = (
        "import sys; from journal_inspect.__main__ import main\n"
        "try: main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "--help"], capture_output=True, text=True, check=True
    )
    assert all(f"  {verb}  " in done.stdout for verb in VERBS + TABLE_VERBS)
    assert {"journal", "manager", "rich", "asyncio"}.isdisjoint(done.stderr.split())
    assert "journal_inspect.commands.cli" in done.stderr.split()


def test_every_verb_has_help_and_every_form(tmp_path: Path) -> None:
    """Every command has help and every output format; its objects carry their version."""
    of_tables = tables(tmp_path / "tables")
    with fleet(tmp_path) as manager:
        for verb in VERBS + TABLE_VERBS:
            path = of_tables if verb in TABLE_VERBS else manager.path
            answer = ask(verb, "-h")
            assert answer.code == 0
            assert f"Usage: cli {verb} [OPTIONS] PATH" in answer.out
            code = 1 if verb in DIFFER else 0
            assert ask_verb(verb, path).code == code
            document = ask_verb(verb, path, "-o", "json").json
            first, *_ = ask_verb(verb, path, "-o", "jsonl").jsonl
            document = document[0] if isinstance(document, list) else document
            assert document["schema_version"] == first["schema_version"] == 1


# --- output ---


def test_payloads_reach_the_terminal_escaped(tmp_path: Path) -> None:
    """P9: No command prints a control character or direction mark of a payload, in any format.

    JSON still contains the whole text, escaped.
    """
    hostile = HOSTILE.encode("utf-16", "surrogatepass").decode("utf-16")
    with SubAgentManager.open(tmp_path) as manager:
        lead = manager.spawn(hostile, name=f"a{hostile}", metadata={hostile: hostile})
        manager.update_checkpoint(lead.agent_id, hostile, steps_taken=1)
        manager.wait_durable()
        manager.compact()
        path = Path(manager.path)
        (path / f"stray{hostile}").touch()
        ref = {"show": [lead.agent_id], "history": [lead.agent_id], "diff": ["0", "3"]}
        for verb, form in product(VERBS, ("text", "json", "jsonl")):
            answer = ask(verb, path, *ref.get(verb, ()), "-o", form)
            assert all(line.isprintable() for line in answer.out.split("\n")), (verb, form)
            assert all(line.isprintable() for line in answer.err.split("\n")), (verb, form)
            if verb not in ("info", "stats", "verify"):
                assert "\\u001b" in answer.out, (verb, form)
        (agent,) = ask("agents", path, "-o", "json").json
        assert agent["metadata"] == {hostile: hostile}
        assert hostile in ask("log", path, "-o", "jsonl").jsonl[1]["record"]


def test_rows_reach_the_terminal_escaped(tmp_path: Path) -> None:
    """P9: No command prints a control character of a table's name, key or value, in any format."""
    hostile = HOSTILE.encode("utf-16", "surrogatepass").decode("utf-16")
    path = tmp_path / "j"
    with Tables.open(path) as app:
        app.table(hostile)[hostile, 1] = {hostile: hostile}
        app.compact()
        app.table(hostile)[hostile, 2] = hostile
    key = json.dumps([hostile, 1])
    lines = [["tables"], ["get", hostile, key], ["export"], ["log"], ["stats"], ["checkpoint"]]
    lines += [["get", hostile, "none"], ["export", f"no {hostile}"]]
    for (verb, *args), form in product(lines, ("text", "json", "jsonl")):
        answer = ask(verb, path, *args, "-o", form)
        assert all(line.isprintable() for line in answer.out.split("\n")), (verb, form)
        assert all(line.isprintable() for line in answer.err.split("\n")), (verb, form)
        if answer.code == 0:
            assert "\\u001b" in answer.out, (verb, form)
    assert ask("get", path, hostile, key, "-o", "json").json["value"] == {hostile: hostile}


def test_a_path_that_is_not_utf_8_is_shown_escaped(tmp_path: Path) -> None:
    """Bytes in a name that are not UTF-8 are escaped in output and messages."""
    place = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[31m")
    assert ask("info", place).err.startswith(f"journal-inspect: {tmp_path}/\\udcff\\u001b[31m: ")
    make(Path(place))
    for form in ("text", "json"):
        answer = ask("info", place, "-o", form)
        assert answer.code == 0
        assert "\\udcff\\u001b[31m" in answer.out


def test_text_is_escaped_like_json() -> None:
    """Escaped text can be read back as JSON, and printable text is unchanged."""
    for code in (*range(0x3000), *range(0xD7F0, 0xE010), 0xE0001, 0x1F600, 0x10FFFF):
        escaped = text.escaped(chr(code))
        assert escaped.isprintable()
        assert escaped == chr(code) or json.loads(f'"{escaped}"') == chr(code)


def test_the_deepest_record_is_shown(tmp_path: Path) -> None:
    """A record with the deepest nesting that a journal accepts is shown."""
    record: Any = "bottom"
    for _ in range(1000):
        record = [record]
    path = make(tmp_path / "j", [record])
    for form in ("text", "json", "jsonl"):
        assert '"bottom"' + "]" * 1000 in ask_child("log", path, "-o", form).out


def test_output_in_another_encoding_is_escaped(path: Path) -> None:
    """Characters that stdout's encoding lacks are escaped, in text and in JSON."""
    env = environment(PYTHONIOENCODING="ascii")
    for form in ("text", "jsonl"):
        answer = ask_child("log", path, "--from-lsn", 34, "--to-lsn", 34, "-o", form, env=env)
        assert (answer.code, answer.err) == (0, "")
        assert r'"\u00e9\u2713\ud83d\udddd"' in answer.out


def on_terminal(env: dict[str, str], *args: object) -> str:
    """Return what a command writes to a terminal."""
    ours, theirs = pty.openpty()
    try:
        command = [*COMMAND, *map(str, args)]
        done = subprocess.run(
            command, stdout=theirs, stderr=theirs, env=environment(**env), timeout=TIMEOUT_S
        )
        assert done.returncode == 1
        return os.read(ours, 65536).decode()  # a terminal buffers that much
    finally:
        os.close(ours)
        os.close(theirs)


def test_color_is_for_terminals_only(path: Path) -> None:
    """Colors appear on terminals only, and not with NO_COLOR or TERM=dumb."""
    colored = {"TERM": "xterm"}
    assert "\x1b[33mtorn_tail" in on_terminal(colored, "verify", path)
    assert "\x1b" not in on_terminal(colored | {"NO_COLOR": "1"}, "verify", path)
    assert "\x1b" not in on_terminal({"TERM": "dumb"}, "verify", path)
    assert "\x1b" not in ask("verify", path).out


def test_words_of_a_plain_table_are_colored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of whole ASCII cells has colors, too."""
    monkeypatch.setattr(text, "is_colored", lambda: True)
    lines = list(text.table(("STATUS", "N"), [("failed", 7)]))
    assert lines == ["STATUS  N", "\x1b[31mfailed\x1b[0m  7"]


def test_columns_align_with_any_content() -> None:
    """Wide characters take two columns; numbers are aligned right, and all else left."""
    lines = list(text.table(("NAME", "N"), [("日本", 7), ("a\x1b", None), ("abcdefghij", 1234)]))
    assert lines == [
        "NAME           N",
        "日本           7",
        "a\\u001b        -",
        "abcdefghij  1234",
    ]
    assert list(text.table(("A", "B"), [])) == ["A  B"]


def test_sizes_and_ages_are_rounded() -> None:
    """Sizes and ages use the largest unit that fits; times have their zone."""
    sizes = {0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 3 << 19: "1.5 MiB", 1 << 50: "1024.0 TiB"}
    assert {n: text.size(n) for n in sizes} == sizes
    ages = {-5: "0 s", 59.9: "59 s", 60: "1 min", 7200: "2 h", 200_000: "2 d"}
    assert {n: text.age(n) for n in ages} == ages
    assert text.local_time(10**30) == str(10**30)

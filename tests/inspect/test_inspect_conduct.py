"""journal-inspect's conduct: it changes nothing, and nothing that it prints is obeyed."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from journal_inspect.rendering import text

from journal import Options
from manager import SubAgentManager
from tests.inspect.inspect_support import (
    ARGS,
    COMMAND,
    DIFFER,
    TIMEOUT_S,
    VERBS,
    ask,
    ask_child,
    ask_verb,
    contents,
    environment,
    fleet,
    flip,
    golden,
    make,
    segments,
)
from tests.installed import find_command
from tests.support import until

HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x9b2J\x7f\r\n\t\u202eesrever\u2028\ud83d\ude00é"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with segments of four epochs, a torn tail, two checkpoints and every type."""
    return golden(tmp_path / "golden")


# --- what it does ---


def test_nothing_is_changed(tmp_path: Path, path: Path) -> None:
    """No file of a dead journal is written, made or touched, whole or damaged, nor any mode."""
    damaged = make(tmp_path / "damaged")
    flip(segments(damaged)[0], 70)
    (damaged / "x.tmp").touch()
    for place, verb, form in product((path, damaged), VERBS, ("text", "jsonl")):
        place.chmod(0o755)
        before = contents(place)
        ask_verb(verb, place, "-o", form)
        assert contents(place) == before
        assert place.stat().st_mode & 0o777 == 0o755


BUSY = {"diff": 1}  # what it asks for is no longer kept


def test_a_busy_writer_is_no_damage(tmp_path: Path) -> None:
    """P4: while segments roll and compaction drops them, every verb gets its answer, and what
    is not finished yet is no finding."""
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
                seen = manager.stats().compactions
                while manager.stats().compactions < seen + 3 and not writing.done():
                    for verb in VERBS:
                        answer = ask_verb(verb, manager.path, "-o", "jsonl")
                        assert answer.code == BUSY.get(verb, 0), answer
                        assert verb != "verify" or len(answer.lines) == 1, answer
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
    """The system calls of a command on what is under `path`: all, and those that lock or write."""
    traced = ",".join(f"?{name}" for name in (*CHANGES, *OPENS, *LOCKS, "mmap"))
    done = subprocess.run(
        ["strace", "-f", "-y", "-s", "0", "-e", f"trace={traced}", "-o", log, *command],
        check=False,
        stdout=subprocess.DEVNULL,
        timeout=TIMEOUT_S,
    )
    assert done.returncode in (0, 1, 3)
    on_path = [line for line in log.read_text().splitlines() if str(path) in line]
    wrong = []
    for line in on_path:
        name = re.search(r"(\w+)\(", line)
        assert name, line
        writes = re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|F_\w*SETLK|F_SETLEASE", line)
        if name[1] in CHANGES or name[1] in ("flock", "creat", "mmap") or writes:
            wrong.append(line)
    return on_path, wrong


def test_no_system_call_locks_or_writes(tmp_path: Path) -> None:
    """Of a journal, live or damaged, no verb locks, maps, opens for writing or changes anything, as
    the kernel sees it; the same eyes see what a writer does."""
    strace = find_command("strace")
    if subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True).returncode:
        pytest.skip("strace may not trace here")
    log = tmp_path / "calls"
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("x", name="lead")
        manager.compact()
        manager.wait_durable(manager.spawn("y").lsn)
        path = Path(manager.path)
        lines = [[verb, str(path), *ARGS.get(verb, ())] for verb in VERBS]
        lines += [["log", str(path), "-f", "--to-lsn", "2"], ["log", str(path), "--frames"]]
        lines += [["agents", str(path), "--at", "now"], ["checkpoint", str(path), "--write", "-"]]
        for line in lines:
            on_path, wrong = calls_of(path, log, [*COMMAND, *line])
            assert len(on_path) > 2
            assert wrong == []
    flip(segments(path)[-1], 100)
    for line in ([verb, str(path), *ARGS.get(verb, ())] for verb in VERBS):
        on_path, wrong = calls_of(path, log, [*COMMAND, *line])
        assert len(on_path) > 2
        assert wrong == []
    writer = f"import journal; journal.Journal.open({str(path)!r}).append(1)"
    flip(segments(path)[-1], 100)
    _, seen = calls_of(path, log, [sys.executable, "-P", "-c", writer])
    text = "\n".join(seen)
    assert "flock(" in text
    assert "O_RDWR|O_CREAT" in text
    assert "fsync(" in text


def test_help_waits_for_nothing() -> None:
    """`--help` imports neither the engine nor the manager nor rich: it is there at once."""
    code = (
        "import sys; from journal_inspect.__main__ import main\n"
        "try: main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "--help"], capture_output=True, text=True, check=True
    )
    assert all(f"  {verb}  " in done.stdout for verb in VERBS)
    assert {"journal", "manager", "rich", "asyncio"}.isdisjoint(done.stderr.split())
    assert "journal_inspect.commands.cli" in done.stderr.split()


def test_every_verb_has_help_and_every_form(tmp_path: Path) -> None:
    """Each says what it does, takes `-h`, and `-o` of each kind; its objects say their version."""
    with fleet(tmp_path) as manager:
        for verb in VERBS:
            answer = ask(verb, "-h")
            assert answer.code == 0
            assert f"Usage: cli {verb} [OPTIONS] PATH" in answer.out
            code = 1 if verb in DIFFER else 0
            assert ask_verb(verb, manager.path).code == code
            whole = ask_verb(verb, manager.path, "-o", "json").json
            first, *_ = ask_verb(verb, manager.path, "-o", "jsonl").jsonl
            whole = whole[0] if isinstance(whole, list) else whole
            assert whole["schema_version"] == first["schema_version"] == 1


# --- what it prints ---


def test_payloads_reach_the_terminal_escaped(tmp_path: Path) -> None:
    """P9: no escape, control or direction mark leaves, in any form, whoever wrote it; JSON
    still says what it was."""
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


def test_a_path_that_is_no_utf8_is_shown_escaped(tmp_path: Path) -> None:
    """Bytes in a name that are no characters stop neither the data nor a message."""
    place = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[31m")
    assert ask("info", place).err.startswith(f"journal-inspect: {tmp_path}/\\udcff\\u001b[31m: ")
    make(Path(place))
    for form in ("text", "json"):
        answer = ask("info", place, "-o", form)
        assert answer.code == 0
        assert "\\udcff\\u001b[31m" in answer.out


def test_text_is_escaped_as_json_has_it() -> None:
    """What is escaped can be read back; what prints is left alone."""
    for code in (*range(0x3000), *range(0xD7F0, 0xE010), 0xE0001, 0x1F600, 0x10FFFF):
        shown = text.escaped(chr(code))
        assert shown.isprintable()
        assert shown == chr(code) or json.loads(f'"{shown}"') == chr(code)


def test_a_record_as_deep_as_they_come_is_shown(tmp_path: Path) -> None:
    """The deepest nesting that a journal takes is no defect of who shows it."""
    record: Any = "bottom"
    for _ in range(1000):
        record = [record]
    path = make(tmp_path / "j", [record])
    for form in ("text", "json", "jsonl"):
        assert '"bottom"' + "]" * 1000 in ask_child("log", path, "-o", form).out


def test_output_that_is_no_unicode_gets_escapes(path: Path) -> None:
    """A stdout of another encoding gets JSON all the same, and text that says what it can't."""
    env = environment(PYTHONIOENCODING="ascii")
    for form in ("text", "jsonl"):
        answer = ask_child("log", path, "--from-lsn", 34, "--to-lsn", 34, "-o", form, env=env)
        assert (answer.code, answer.err) == (0, "")
        assert r'"\u00e9\u2713\ud83d\udddd"' in answer.out


def on_terminal(env: dict[str, str], *args: object) -> str:
    """What a terminal gets."""
    ours, theirs = pty.openpty()
    try:
        command = [*COMMAND, *map(str, args)]
        done = subprocess.run(
            command, stdout=theirs, stderr=theirs, env=environment(**env), timeout=TIMEOUT_S
        )
        assert done.returncode == 1
        return os.read(ours, 65536).decode()  # a terminal holds that much for who reads it
    finally:
        os.close(ours)
        os.close(theirs)


def test_colour_is_for_terminals_only(path: Path) -> None:
    """A terminal gets colour, but not with NO_COLOR or where there is none; a file never does."""
    coloured = {"TERM": "xterm"}
    assert "\x1b[33mtorn_tail" in on_terminal(coloured, "verify", path)
    assert "\x1b" not in on_terminal(coloured | {"NO_COLOR": "1"}, "verify", path)
    assert "\x1b" not in on_terminal({"TERM": "dumb"}, "verify", path)
    assert "\x1b" not in ask("verify", path).out


def test_columns_align_whatever_stands_in_them() -> None:
    """Wide characters take two columns; numbers end together, all else begins together."""
    lines = list(text.table(("NAME", "N"), [("日本", 7), ("a\x1b", None), ("abcdefghij", 1234)]))
    assert lines == [
        "NAME           N",
        "日本           7",
        "a\\u001b        -",
        "abcdefghij  1234",
    ]
    assert list(text.table(("A", "B"), [])) == ["A  B"]


def test_numbers_for_people() -> None:
    """Sizes and ages in the largest unit of which they have one; times with their zone."""
    sizes = {0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 3 << 19: "1.5 MiB", 1 << 50: "1024.0 TiB"}
    assert {n: text.size(n) for n in sizes} == sizes
    ages = {-5: "0 s", 59.9: "59 s", 60: "1 min", 7200: "2 h", 200_000: "2 d"}
    assert {n: text.age(n) for n in ages} == ages
    assert text.local_time(10**30) == str(10**30)

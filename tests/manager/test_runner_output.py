"""What commands print: kept in files while they run, printed on request, and followed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from _journal_console.text import escaped

from manager._run.facts import exit_of
from manager._run.printer import Printer
from manager._run.report import RunReport
from manager.view import read_fleet
from tests.manager.runner_support import (
    PYTHON,
    TIMEOUT_S,
    Runner,
    agents,
    only,
    run,
    until,
    watchdog,
)
from tests.soak import soak_output

__all__ = ["watchdog"]  # a fixture for every test here


def subagents(workspace: Path, *args: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PYTHON, "-m", "manager", *args],
        cwd=workspace,
        capture_output=True,
        timeout=TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )


def test_a_long_output_keeps_its_tail(tmp_path: Path) -> None:
    """P8: The result is bounded, whatever a command prints, and says that it was cut."""
    agent = only(run(tmp_path, "yes 0123456789 | head -n 100000; echo the end"))
    assert agent.result is not None
    first, _, tail = agent.result.partition("\n")
    assert first == f"[{11 * 100_000 + 8} bytes, cut to the last ones]"
    assert tail.endswith("0123456789\nthe end\n")
    assert len(agent.result) == 64 << 10
    for count in (65_000, 70_000):  # invalid bytes, each of which becomes U+FFFD, which has three
        text = str(only(run(tmp_path, f"head -c {count} /dev/zero | tr '\\0' '\\377'")).result)
        assert text.startswith(f"[{count} bytes, cut to the last ones]\n")
        assert 65_530 < len(text.encode()) <= 64 << 10


def kept(workspace: Path) -> dict[str, bytes]:
    """Return the contents of each file by stream and part, for a single agent."""
    files = (workspace / ".subagents" / "output").iterdir()
    return {".".join(file.name.split(".")[2:]): file.read_bytes() for file in files}


def test_each_stream_is_kept_as_it_was_written(tmp_path: Path) -> None:
    """Each stream has a file with all of its bytes, and a stream of no bytes has no file."""
    agent = only(run(tmp_path, "printf '\\377\\000a'; echo why >&2"))
    assert kept(tmp_path) == {"out.0": b"\xff\x00a", "err.0": b"why\n"}
    assert agent.checkpoint["stdout"] == {"bytes": 3, "cut_bytes": 0}
    assert agent.checkpoint["stderr"] == {"bytes": 4, "cut_bytes": 0, "tail": "why\n"}
    run(tmp_path, "true")
    assert len(kept(tmp_path)) == 2


def test_the_files_of_a_stream_are_bounded(tmp_path: Path) -> None:
    """Of a long stream the end is kept, and the agent's facts say how much was cut."""
    line = '{"name": "a", "command": "seq 100000; seq 9 >&2"}'
    agent = only(run(tmp_path, line, output_bytes_max=2000))
    parts = sorted(kept(tmp_path).items(), key=lambda item: (item[0][:4], int(item[0][4:])))
    out = b"".join(data for name, data in parts if name.startswith("out"))
    assert 1000 < len(out) <= 2000
    assert out.endswith(b"\n99999\n100000\n")
    assert agent.checkpoint["stdout"] == {"bytes": 588895, "cut_bytes": 588895 - len(out)}
    printed = subagents(tmp_path, "output", "a")
    assert (printed.returncode, printed.stdout) == (1, out)
    assert f"{588895 - len(out)} of the 588895 bytes of its stdout are not kept" in str(
        printed.stderr
    )
    assert subagents(tmp_path, "output", "a", "--stderr").returncode == 0


def test_without_files_only_the_tail_is_kept(tmp_path: Path) -> None:
    """With a bound of 0, no file is made, and the result still has the end."""
    agent = only(run(tmp_path, "echo hi", output_bytes_max=0))
    assert kept(tmp_path) == {}
    assert agent.result == "hi\n"
    assert agent.checkpoint["stdout"] == {"bytes": 3, "cut_bytes": 3}


def test_a_stopped_command_keeps_its_output(tmp_path: Path) -> None:
    """What a command printed before it was stopped is kept, and its end is its result."""
    line = '{"name": "a", "command": "echo before; touch up; sleep 1000"}'
    with Runner(tmp_path, line) as runner:
        until((tmp_path / "up").exists, "the start of the command")
        runner.send(signal.SIGTERM)
        assert runner.end()[0] == 143
    agent = read_fleet(tmp_path / ".subagents").get("a")
    assert (agent.status, agent.result) == ("interrupted", "before\n")
    assert exit_of(agent) == (None, None)
    assert subagents(tmp_path, "output", "a").stdout == b"before\n"


def test_output_is_of_the_last_start(tmp_path: Path) -> None:
    """The output of a task that was started again is that of the last start, of each stream."""
    line = "test -e up || { touch up; echo first >&2; sleep 1000; }; echo second"
    with Runner(tmp_path, line) as runner:
        until((tmp_path / "up").exists, "the start of the command")
        until((tmp_path / ".subagents" / "output").exists, "a file of its output")
        until(lambda: b"first\n" in kept(tmp_path).values(), "its output")
        runner.send(signal.SIGKILL)
        runner.end()
    (agent,) = read_fleet(tmp_path / ".subagents").agents()
    assert subagents(tmp_path, "output", agent.agent_id, "--stderr").stdout == b"first\n"
    run(tmp_path, line)
    assert subagents(tmp_path, "output", agent.agent_id, "--stderr").stdout == b""
    assert subagents(tmp_path, "output", agent.agent_id).stdout == b"second\n"
    assert len(kept(tmp_path)) == 2


def test_output_follows_a_command_to_its_end(tmp_path: Path) -> None:
    """`output -f` prints what a command prints while it runs, over the rotation of its files, and
    ends with the command."""
    script = "seq 5; until [ -e go ]; do sleep 0.01; done; seq 6 4000; sleep 0.2; echo end"
    line = json.dumps({"name": "a", "command": script})
    args = ("--output-bytes", "40000")
    with Runner(tmp_path, line, args=args) as runner:
        until((tmp_path / ".subagents").exists, "the state")
        until(lambda: b"a" in subagents(tmp_path, "list", "--status", "running").stdout, "a start")
        follower = subprocess.Popen(
            [*PYTHON, "-m", "manager", "output", "a", "-f"], cwd=tmp_path, stdout=subprocess.PIPE
        )
        assert follower.stdout
        assert [follower.stdout.readline() for _ in range(5)] == [b"%d\n" % n for n in range(1, 6)]
        (tmp_path / "go").touch()
        rest, _ = follower.communicate(timeout=TIMEOUT_S)
        assert runner.end()[0] == 0
    assert follower.returncode == 0
    assert rest.split() == [*(b"%d" % n for n in range(6, 4001)), b"end"]


def test_output_that_a_crash_lost_is_reported(tmp_path: Path) -> None:
    """Files are not synced. If a part of the output is gone, a message and the exit code say so."""
    run(tmp_path, '{"name": "a", "command": "echo 1234"}')
    (file,) = (tmp_path / ".subagents" / "output").iterdir()
    os.truncate(file, 2)
    cut = subagents(tmp_path, "output", "a")
    assert (cut.returncode, cut.stdout) == (1, b"12")
    assert b"3 of the 5 bytes of its stdout are not kept" in cut.stderr
    file.unlink()
    assert subagents(tmp_path, "output", "a").returncode == 1


def test_output_of_what_is_no_command_is_refused(tmp_path: Path) -> None:
    """An agent that is not a task has no output, and an unknown one has none either."""
    from manager import SubAgentManager

    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("think", name="thinker", queued=True)
    refused = subagents(tmp_path, "output", "thinker")
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert b"not a command" in refused.stderr
    assert subagents(tmp_path, "output", "nobody").returncode == 1


# --- printing ---


@pytest.fixture
def pipes() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)


def test_lines_of_commands_do_not_mix(tmp_path: Path, pipes: tuple[int, int]) -> None:
    """Each command's lines are printed whole and tagged, and a last line gets its end."""
    read, write = pipes
    script = "for i in 1 2 3; do printf {0}; sleep 0.01; echo; done; printf {0}"
    lines = [json.dumps({"name": name, "command": script.format(name * 9)}) for name in ("a", "b")]
    with Printer({"out": write, "err": write}, tag=escaped) as printer:
        run(tmp_path, *lines, "echo unnamed >&2", printer=printer)
    os.close(write)
    printed = os.read(read, 1 << 16).splitlines()
    assert sorted(printed) == sorted(
        [b"a\taaaaaaaaa"] * 4 + [b"b\tbbbbbbbbb"] * 4 + [b"echo unnamed >&2\tunnamed"]
    )


def test_a_tag_is_one_line(tmp_path: Path, pipes: tuple[int, int]) -> None:
    """A tag of several lines, or that controls a terminal, is escaped. What is printed is not."""
    read, write = pipes
    line = json.dumps({"command": "printf '\\033[1m\\n'\necho b", "prompt": "é\n\t\x1b"})
    with Printer({"out": write}, tag=escaped) as printer:
        run(tmp_path, line, printer=printer)
    os.close(write)
    assert os.read(read, 1 << 16).decode() == "é\\n\\t\\u001b\t\x1b[1m\né\\n\\t\\u001b\tb\n"


def test_a_reader_that_stops_reading_delays_no_timeout(
    tmp_path: Path, pipes: tuple[int, int]
) -> None:
    """If nobody reads, commands that print are held up at a bound, and timeouts still strike."""
    read, write = pipes
    with Printer({"out": write}) as printer:
        noisy, quiet = agents(run(tmp_path, "yes", "sleep 100", printer=printer, timeout_s=0.5))
        assert {noisy.status, quiet.status} == {"failed"}
        assert noisy.checkpoint["stdout"]["bytes"] < 4 << 20
        os.set_blocking(read, False)
        while printer._put_bytes > printer._written_bytes:
            try:
                os.read(read, 1 << 20)
            except BlockingIOError:
                continue
    os.close(write)


def stop_at_once(report: RunReport) -> None:
    if not report.is_stopping:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_reader_that_stops_reading_delays_no_stop(
    tmp_path: Path, pipes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is stopped ends although nobody reads the printed lines. It drops them, and says
    so."""
    monkeypatch.setattr("manager._run.printer._STOPPED_S", 0.05)
    read, write = pipes
    os.set_blocking(read, False)
    for ends_by_error in (False, True):
        with suppress(SystemExit), Printer({"out": write}) as printer:
            printer.put("out", b"x" * (1 << 20))
            if ends_by_error:
                raise SystemExit  # of a signal before the run
            report = run(tmp_path, "sleep 60", printer=printer, tell=stop_at_once)
            assert report.exit_code == 128 + signal.SIGTERM
        assert str(printer.error).endswith("the reader has stopped reading")
        while printer._thread.is_alive():  # it must not write to the next pipe
            with suppress(BlockingIOError):
                os.read(read, 1 << 16)
    os.close(write)


def test_a_reader_that_has_gone_stops_no_command(tmp_path: Path) -> None:
    """When the reader of the printed lines goes away, the run goes on and keeps the output."""
    read, write = os.pipe()
    os.close(read)
    with Printer({"out": write}) as printer:
        assert run(tmp_path, "seq 10000", printer=printer).exit_code == 0
    os.close(write)
    assert len(kept(tmp_path)["out.0"]) == 48894


def test_a_pipe_that_does_not_block_gets_all_lines(pipes: tuple[int, int]) -> None:
    """Lines for a full pipe that does not block are printed once there is room."""
    read, write = pipes
    os.set_blocking(write, False)
    size = 1 << 18
    with Printer({"out": write}) as printer:
        printer.put("out", b"x" * size)
        printer.put("out", b"\n")
        got = b""
        while not got.endswith(b"\n"):
            got += os.read(read, 1 << 16)
    os.close(write)
    assert len(got) == size + 1


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
def test_run_reports_that_it_could_not_print(tmp_path: Path) -> None:
    """If a full disk refuses the printed lines, the run goes on and says so."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PYTHON, "-m", "manager", "run", "-", "--print"],
            cwd=tmp_path,
            input=b"echo a",
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT_S,
        )
    assert done.returncode == 0
    assert b"not everything was printed: No space left on device; subagents output" in done.stderr


@pytest.mark.parametrize("closed", ["", ">&-"])
def test_run_prints_what_commands_print(tmp_path: Path, closed: str) -> None:
    """`run --print` passes both streams on. Without a stdout, nothing gets into the journal."""
    (tmp_path / "tasks.txt").write_text("echo out; echo err >&2\n")
    command = f"{sys.executable} -P -m manager run tasks.txt --print {closed}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, timeout=TIMEOUT_S)
    assert done.returncode == 0
    assert done.stdout == (b"" if closed else b"out\n")
    assert done.stderr.startswith(b"err\n")
    assert len(read_fleet(tmp_path / ".subagents").agents(include_archived=True)) == 1


def test_output_survives_kills_of_every_process(tmp_path: Path) -> None:
    """P1: The runner, its guard and its commands are killed at random while commands print. Each
    task completes once, each file is the beginning of what its command printed, and none is left
    without its agent."""
    result = soak_output.run(tmp_path, tasks=100, kills=4, seed=3)
    assert result.faults == []
    assert result.kills  # how many depends on the time that the run takes
    assert result.files >= 200


def test_output_is_read_to_its_end_even_if_nobody_takes_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that has ended while its lines were held up still has all of its output kept."""
    monkeypatch.setattr(Printer, "is_full", property(lambda printer: True))
    with Printer({}) as printer:
        agent = only(run(tmp_path, "seq 1000; echo why >&2", printer=printer))
    assert kept(tmp_path)["out.0"].endswith(b"\n1000\n")
    assert agent.checkpoint["stderr"]["bytes"] == 4

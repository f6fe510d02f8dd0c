"""Helpers of the tests of kernel faults: owners of a journal whose system calls fail.

`Tracer` runs owners (`kernel_child`) under strace. It makes one call of one thread fail as the
kernel would, or kills the process before the call.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from journal import JournalReader
from tests.installed import find_command
from tests.kernel.kernel_child import Thread
from tests.kernel.lazy_fs_writer import batch_after, open_checked
from tests.support import TIMEOUT_S

BEGIN_LSN = 72  # the last LSN of the journal that an owner opens
HUNG_S = 60.0  # an owner that runs this long hangs
CHANGES = "pwrite64|fdatasync|fsync|renameat2?"
Durability = Literal["disk", "os"]
Waits = Literal["here", "together"]


class Fault(NamedTuple):
    """A system call of a thread that fails with `error` when it is made for the `number`th time.

    With `error` KILL, the process is killed before the call. `times` is the number of failures in a
    row. `call` is a regular expression. If it matches several calls, each of them is counted
    separately.
    """

    call: str
    error: str
    number: int = 1
    times: int = 1

    def expression(self) -> str:
        action = "signal=SIGKILL" if self.error == "KILL" else f"error={self.error}"
        last = self.number + self.times - 1
        return f"inject=/^({self.call})$:{action}:when={self.number}..{last}"


@dataclass
class RunReport:
    """The lines that an owner wrote, and the calls that strace saw its thread make."""

    fault: Fault | None
    lines: list[list[Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    exit_code: int | None = None

    def of(self, *words: str) -> list[list[Any]]:
        return [line[1:] for line in self.lines if line[0] in words]

    @property
    def appended_lsn(self) -> int:
        """The last LSN that can exist."""
        words = [line[0] for line in self.lines]
        end = words.index("failed") if "failed" in words else None
        lsns = [line[1] for line in self.lines[:end] if line[0] in ("opened", "appending")]
        return max(lsns, default=BEGIN_LSN)

    @property
    def durable_lsn(self) -> int:
        """The last acknowledged LSN."""
        return max((line[0] for line in self.of("durable")), default=BEGIN_LSN)

    @property
    def failing(self) -> str:
        """The last call that failed, or an empty text."""
        if self.fault and self.fault.error == "KILL":
            return self.calls[-2] if self.exit_code == -9 else ""
        return next((call for call in reversed(self.calls) if "(INJECTED)" in call), "")

    @property
    def changes_after(self) -> list[str]:
        """The thread's changes to the disk after the call that failed."""
        after = self.calls[self.calls.index(self.failing) + 1 :]
        return [call for call in after if re.match(CHANGES, call) and "(INJECTED)" not in call]

    @property
    def synced(self) -> int:
        """The number of syncs of a segment with frames that the thread has made."""
        return sum(
            call.startswith("fdatasync") and ".seg>" in call and "(INJECTED)" not in call
            for call in self.calls
        )

    def __str__(self) -> str:
        lines = [str(line)[:120] for line in self.lines]
        return "\n".join([str(self.fault), f"at {self.failing}", *lines, f"exit {self.exit_code}"])


class Tracer:
    """A context manager that serves owners. It skips the test if nothing can be traced."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, ...], Counter[str]] = {}

    def __enter__(self) -> Tracer:
        if sys.platform != "linux":
            pytest.skip("strace is Linux's")
        find_command("strace")
        self._serve()
        try:
            strace = _attach(self._server.pid, Fault("read", "EIO", 1000), Path(os.devnull))
        except ChildProcessError as error:
            self.__exit__()
            pytest.skip(str(error))
        strace.terminate()
        strace.communicate(timeout=TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.communicate()

    def run(
        self,
        path: Path,
        fault: Fault | None,
        thread: Thread,
        *,
        durability: Durability,
        waits: Waits,
    ) -> RunReport:
        """Run an owner at `path`, in which `thread` meets `fault`. It must not hang."""
        if self._server.returncode is not None:  # killed by an earlier test that failed
            self._serve()
        command = {"path": str(path), "durability": durability, "waits": waits, "thread": thread}
        self._write(json.dumps(command))
        (pid,) = self._await("began")
        watchdog = threading.Timer(HUNG_S, os.kill, (pid, signal.SIGKILL))
        watchdog.start()
        report, log, strace = RunReport(fault), path.with_name("strace.txt"), None
        try:
            while (line := self._read())[0] != "ended":
                report.lines.append(line)
                if line[0] == "ready":
                    strace = _attach(line[1], fault, log)
                    self._write("go")
            report.exit_code = line[1]
            assert watchdog.is_alive(), f"hung: {report}"
        finally:
            watchdog.cancel()
            if strace:
                strace.communicate(timeout=TIMEOUT_S)
        assert report.of("ready"), str(report)
        report.calls = log.read_text().splitlines()
        return report

    def count(self, call: str, setup: tuple[str, ...], run_once: Callable[[], RunReport]) -> int:
        """Return how often a call is made in a run without faults."""
        if setup not in self._names:
            self._names[setup] = Counter(line.partition("(")[0] for line in run_once().calls)
        names = self._names[setup]
        return max((n for name, n in names.items() if re.fullmatch(call, name)), default=0)

    def _serve(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.kernel.kernel_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while self._read() != ["serving"]:  # its warm-up reports lines, too
            pass

    def _write(self, line: str) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(line + "\n")
        self._server.stdin.flush()

    def _read(self) -> list[Any]:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        try:
            words: list[Any] = json.loads(line)
        except ValueError:
            words = ["unexpected"]
        if words[0] == "unexpected":
            self._server.kill()
            raise AssertionError(line + self._server.communicate()[0])
        return words

    def _await(self, word: str) -> list[Any]:
        line = self._read()
        assert line[0] == word, line
        return line[1:]


def _attach(thread_id: int, fault: Fault | None, log: Path) -> subprocess.Popen[str]:
    """Attach strace to one thread. Without a fault, it only records the calls."""
    if fault:
        traced = ["-e", f"trace=/^({fault.call}|{CHANGES})$", "-e", fault.expression()]
    else:
        traced = ["-e", "trace=%desc,%file"]
    strace = subprocess.Popen(
        ["strace", "-y", "-o", log, *traced, "-p", str(thread_id)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert strace.stderr is not None
    line = strace.stderr.readline()
    if "attached" not in line:
        raise ChildProcessError(f"can't trace: {line}{strace.communicate()[1]}")
    return strace


def sweep(
    tracer: Tracer,
    begin: Path,
    fault: Fault,
    thread: Thread,
    *,
    step: int,
    durability: Durability = "disk",
    waits: Waits = "together",
) -> Iterator[RunReport]:
    """Run owners of copies of the journal `begin`, and yield their reports.

    Each owner meets the fault at one call: the first one, and from there about every `step`th one,
    up to the last. After each run, check P1, P2, P3, P5 and P6.
    """
    path = begin.with_name("swept")

    def run_once(fault: Fault | None) -> RunReport:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(begin, path)
        report = tracer.run(path, fault, thread, durability=durability, waits=waits)
        check_promises(path, report, durability)
        return report

    number, faults = 1, 0
    calls = tracer.count(fault.call, (thread, durability, waits), lambda: run_once(None))
    while number <= calls:
        report = run_once(fault._replace(number=number))
        if report.failing:  # the number of calls depends on how often the log is idle
            assert report.exit_code == (-9 if fault.error == "KILL" else 0), str(report)
            faults += 1
            yield report
        number += random.randint(1, 2 * step - 1)
    assert faults, f"{thread} never calls {fault.call}"
    print(f"{faults} faults: {fault.error} at {fault.call} in {thread}")


def check_promises(path: Path, report: RunReport, durability: Durability) -> None:
    """Check that the journal opens with the acknowledged records and no others, and continues."""
    with open_checked(path, durability) as state:
        lsn = state.journal.last_lsn
        assert report.durable_lsn <= lsn <= report.appended_lsn, f"P1, P2: {lsn}; {report}"
        last_lsn = state.update_batch(lambda _: batch_after(lsn))
        state.wait_durable(timeout_s=TIMEOUT_S)
    with open_checked(path, durability) as state:
        assert state.journal.last_lsn == last_lsn
    with JournalReader.open(path) as reader:
        findings = list(reader.verify())
        assert {finding.kind for finding in findings} <= {"torn_tail"}, f"P4: {findings}; {report}"

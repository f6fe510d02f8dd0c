"""The logger `journal`: what a program sees without any set-up, and what it can configure."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from journal._log import post, settle
from journal.testing import Owner
from journal.testing.owner import quiet
from tests.support import TIMEOUT_S, Table, run, until

FAILING = """
import logging, sys, time
from journal import Journal, Options
from journal._log import settle
from journal.testing import SimulatedDisk
{set_up}
def freeze():
    raise LookupError("no such user")
options = Options(checkpoint_min_bytes=1, flush_interval_s=0.001)
with Journal.open("/j", options=options, disk=SimulatedDisk()) as journal:
    journal.start_compaction(freeze)
    journal.append("x" * 5000)
    deadline = time.monotonic() + 30
    while not journal.stats().compaction_failures and time.monotonic() < deadline:
        time.sleep(0.001)
settle(30)
"""


def test_a_program_without_logging_set_up_sees_warnings() -> None:
    """Without logging set-up, warnings appear on stderr, as Python does for every logger without a
    handler."""
    process = run(FAILING.format(set_up=""))
    lines = process.stderr.splitlines()
    assert lines[0].startswith("/j: a compaction failed: LookupError: no such user. The log ")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "LookupError: no such user"
    assert process.stderr.count("a compaction failed") == 1
    assert (process.returncode, process.stdout) == (0, "")


@pytest.mark.parametrize(
    ("set_up", "times"),
    [
        ("logging.basicConfig(stream=sys.stdout)", 1),
        ("logging.getLogger('journal').addHandler(logging.StreamHandler(sys.stdout))", 1),
        ("logging.getLogger('journal').addHandler(logging.NullHandler())", 0),
        ("logging.getLogger('journal').setLevel(logging.ERROR)", 0),
    ],
    ids=["root_handler", "own_handler", "null_handler", "level"],
)
def test_a_program_can_configure_logging(set_up: str, times: int) -> None:
    """A message goes once to each configured destination, and nowhere else."""
    process = run(FAILING.format(set_up=set_up))
    assert process.stdout.count("a compaction failed") == times
    assert (process.returncode, process.stderr) == (0, "")


class Stuck(logging.Handler):
    """A handler that hangs until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self._reached, self._may_go = threading.Event(), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self._reached.set()
        assert self._may_go.wait(TIMEOUT_S)

    def hang(self) -> None:
        post(logging.WARNING, "stuck")
        assert self._reached.wait(TIMEOUT_S)

    def release(self) -> None:
        self._may_go.set()


@pytest.fixture
def stuck(engine_log: list[logging.LogRecord]) -> Iterator[Stuck]:
    log, handler = logging.getLogger("journal"), Stuck()
    log.addHandler(handler)
    yield handler
    handler.release()
    log.removeHandler(handler)
    assert settle(TIMEOUT_S)


def test_messages_inside_quiet_do_not_appear_after_it(
    stuck: Stuck, engine_log: list[logging.LogRecord]
) -> None:
    """Messages that other threads post inside `quiet` are handled before its end, and reach no
    handler."""
    stuck.hang()
    with quiet():
        post(logging.WARNING, "posted")
        timer = threading.Timer(0.05, stuck.release)
        timer.start()
    assert settle(TIMEOUT_S)
    timer.join(TIMEOUT_S)
    assert [record.getMessage() for record in engine_log] == ["stuck"]


@pytest.mark.parametrize("crash", ["power_cut", "kill", "end"])
def test_a_simulated_crash_logs_nothing(engine_log: list[logging.LogRecord], crash: str) -> None:
    """A simulated crash hides the messages of the dead process about its missing disk."""
    owner = Owner(Table)
    owner.append(["a", 1])
    owner.wait()
    owner.append(["b", 2])
    getattr(owner, crash)()
    assert settle(TIMEOUT_S)
    assert engine_log == []


def test_waiting_messages_keep_few_tracebacks(
    stuck: Stuck, engine_log: list[logging.LogRecord]
) -> None:
    """P8: The frames of an error keep the owner's state alive. While a handler hangs, only the
    first ten messages keep a traceback, and the others keep its text."""
    stuck.hang()
    for number in range(20):
        post(logging.WARNING, "%d", number, error=ValueError(number))
    stuck.release()
    assert settle(TIMEOUT_S)
    with_traceback = [bool(record.exc_info) for record in engine_log[1:]]
    assert with_traceback == [True] * 10 + [False] * 10


class PostingError(Exception):
    """An error that another thread logs something for when it is freed."""

    def __init__(self, ends: list[bool]) -> None:
        self.ends = ends

    def __del__(self) -> None:
        poster = threading.Thread(target=post, args=(logging.WARNING, "freed"))
        poster.start()
        poster.join(TIMEOUT_S)
        self.ends.append(not poster.is_alive())


@pytest.mark.parametrize("waiting", [0, 10, 1000], ids=["logged", "without_trace", "dropped"])
def test_an_error_is_freed_without_a_lock(
    stuck: Stuck, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    """The finalizers of what an error keeps alive may wait for a thread that logs something. This
    holds for errors that are logged, and for those that are dropped from the waiting messages."""
    ends: list[bool] = []
    # No handler of the tests may keep the error.
    monkeypatch.setattr(logging.getLogger("journal"), "filters", [lambda each: not each.exc_info])
    stuck.hang()
    if waiting < 1000:
        for number in range(waiting):
            post(logging.WARNING, "%d", number)
        post(logging.WARNING, "with an error", error=PostingError(ends))
    else:
        post(logging.WARNING, "with an error", error=PostingError(ends))
        for number in range(waiting):
            post(logging.WARNING, "%d", number)
    post(logging.WARNING, "the last one")
    stuck.release()
    assert settle(TIMEOUT_S)
    until(lambda: ends, "the end of the error")
    assert ends == [True]


def test_messages_are_reported_before_the_exit() -> None:
    """At exit, a slow filter still gets the last messages, and a stuck one does not hold up the
    exit."""
    script = (
        "import logging, sys, time\n"
        "from journal import Journal\n"
        "from journal._log import post\n"
        "assert Journal\n"  # the writing part of the engine has the exit hook
        "logging.basicConfig(stream=sys.stdout, format='%(message)s')\n"
        "def slow(record):\n"
        "    time.sleep(float(record.getMessage()))\n"
        "    return True\n"
        "logging.getLogger('journal').addFilter(slow)\n"
        "post(logging.WARNING, '0.2')\n"
        "post(logging.WARNING, '3600')\n"
    )
    process = run(script)
    assert (process.returncode, process.stdout, process.stderr) == (0, "0.2\n", "")

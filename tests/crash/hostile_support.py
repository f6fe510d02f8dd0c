"""Checks of everything that reads a journal: whatever the files contain, it answers or raises
JournalError, and changes nothing.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

from click.testing import CliRunner
from journal_inspect.commands.cli import cli

from journal import CorruptionError, DurableState, Journal, JournalError, JournalReader, repair
from journal.testing import SimulatedDisk
from manager import SubAgentManager
from tests.crash.crash_support import image
from tests.crash.hostile_sources import Files
from tests.support import NEVER_S, PATH, options

HANG_S = 60
STATE = "/w/.subagents"
# The longest message, whatever was read.
MESSAGE_CHARS_MAX = 2000


@contextmanager
def watchdog(seconds: int = HANG_S) -> Iterator[None]:
    """Raise AssertionError in the running code if it does not end within `seconds`."""

    def ring(*_: object) -> None:
        raise AssertionError(f"the call did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Anything:
    """A state machine that accepts everything and has an empty snapshot."""

    application = ""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.records: list[Any] = []

    def load(self, item: Any) -> None:
        self.items.append(item)

    def apply(self, lsn: int, record: Any) -> None:
        self.records.append(record)

    def freeze(self) -> list[Any]:
        return []


def refusal(opener: Callable[[], object]) -> JournalError | None:
    """Return the JournalError that `opener` raises, or None. Any other exception propagates."""
    refused: JournalError | None = None
    try:
        opener()
    except JournalError as error:
        refused = error
    assert len(str(refused)) < MESSAGE_CHARS_MAX, f"{str(refused)[:200]}... is no message"
    return refused


# --- the openers ---


def read_entries(disk: SimulatedDisk) -> list[tuple[int, int, str]]:
    with JournalReader.open(PATH, disk=disk) as reader:
        return [(e.lsn, e.epoch, repr(e.record)) for e in reader.entries()]


def read_checkpoints(disk: SimulatedDisk) -> None:
    with JournalReader.open(PATH, disk=disk) as reader:
        checkpoints = reader.checkpoints()
        try:
            for checkpoint in checkpoints:
                # A checkpoint that verified is complete, or reading it raises an error.
                assert len(list(checkpoint.items())) == checkpoint.count
        finally:
            for checkpoint in checkpoints:
                checkpoint.close()


def read_segments(disk: SimulatedDisk) -> None:
    with JournalReader.open(PATH, disk=disk) as reader:
        assert reader.journal_id is None or len(bytes.fromhex(reader.journal_id)) == 16
        reader.segments()


def verify(disk: SimulatedDisk) -> set[str]:
    with JournalReader.open(PATH, disk=disk) as reader:
        findings = list(reader.verify())
    assert all(len(f.message) < MESSAGE_CHARS_MAX for f in findings)
    return {finding.kind for finding in findings}


def dry_run(disk: SimulatedDisk) -> str | None:
    report = repair(PATH, disk=disk)
    assert not report.applied
    return report.problem


READERS: tuple[Callable[[SimulatedDisk], object], ...] = (
    read_entries,
    read_checkpoints,
    read_segments,
    verify,
)


# The verbs of journal-inspect that are run, with their arguments.
VERBS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("info", "verify", "log", "stats", "checkpoint", "agents", "repair"), ()),
    **dict.fromkeys(("tables", "export"), ()),
    "get": ("users", "lead"),
    "show": ("lead",),
    "history": ("lead",),
    "diff": ("1", "9"),
}


def run_all_verbs(path: str, disk: SimulatedDisk | None = None) -> None:
    """Run each verb of journal-inspect in both output forms. The output must be harmless."""
    limit = sys.getrecursionlimit()
    for verb, args in VERBS.items():
        for form in ("text", "json"):
            with default_disk(disk):
                result = CliRunner().invoke(cli, [verb, path, *args, "-o", form])
            sys.setrecursionlimit(limit)  # the command raises it, as it usually has its own process
            details = (verb, form, result.exit_code, result.stderr[:500])
            assert isinstance(result.exception, SystemExit | None), details
            assert result.exit_code in (0, 1, 3, 4), details
            assert "defect" not in result.stderr, details
            assert_harmless(result.stdout + result.stderr)
            assert len(result.stderr) < 2 * MESSAGE_CHARS_MAX, details


@contextmanager
def default_disk(disk: SimulatedDisk | None) -> Iterator[None]:
    """Make `disk` the one that is used if none is given."""
    with patch("journal._disk.posix.PosixDisk", lambda: disk) if disk else nullcontext():
        yield


def assert_harmless(text: str) -> None:
    """Check that a terminal would obey nothing in `text`."""
    bad = {c for c in text if not (c.isprintable() or c == "\n")}
    assert not bad, ascii(bad)


# --- checks ---


def check_readers(files: Files) -> None:
    """Check that reading changes nothing and raises only JournalError, also for a live journal."""
    disk = image(files)
    for live in (False, True):
        if live:
            disk.open_directory(PATH, write=True).lock()
        for opener in READERS:
            refusal(lambda opener=opener: opener(disk))  # type: ignore[misc]  # mypy infers no type for it
    assert disk.contents(PATH) == files, "a reader changed something"


def check_repair(files: Files) -> None:
    """Check that a dry run reports the problem that open has, and changes nothing."""
    disk = image(files)
    problems: list[str | None] = []
    refused = refusal(lambda: problems.append(dry_run(disk)))
    assert disk.contents(PATH) == files, "a dry run changed something"
    error = refusal(lambda: Journal.open(PATH, options=options(), disk=disk).close())
    if isinstance(error, CorruptionError):
        assert refused or problems == [str(error)]
    elif not refused:
        assert error is None or problems[0] is None


def check_state(files: Files) -> None:
    """Check that open either refuses and changes nothing, or gives a working journal."""
    disk, machine = image(files), Anything()
    error = refusal(lambda: DurableState.open(PATH, machine, options=options(), disk=disk).close())
    if error:
        assert unsigned(disk.contents(PATH)) == unsigned(files), "refused, and changed"
        return
    kept = [repr(each) for each in (*machine.items, *machine.records)]
    with Journal.open(PATH, options=options(), disk=disk) as journal:
        base = journal.checkpoint.count if journal.checkpoint else 0
        assert kept[base:] == [repr(entry.record) for entry in journal.replay()]
        lsn = journal.append("one more")
        journal.wait_durable(lsn, timeout_s=HANG_S)
    reloaded = Anything()
    with DurableState.open(PATH, reloaded, options=options(), disk=disk) as state:
        assert [repr(each) for each in (*reloaded.items, *reloaded.records)] == [
            *kept,
            "'one more'",
        ]
        state.compact()
    with DurableState.open(PATH, Anything(), options=options(), disk=disk) as state:
        assert state.journal.last_lsn == lsn


def check_cli(files: Files) -> None:
    """Check that no verb of journal-inspect changes anything."""
    disk = image(files)
    run_all_verbs(PATH, disk)
    assert disk.contents(PATH) == files, "journal-inspect changed something"


def check_manager(files: Files) -> None:
    """Check that a manager refuses the files as its state, or that it then works."""
    disk = image(files, STATE)
    quiet = options(flush_interval_s=NEVER_S)

    def use() -> None:
        with SubAgentManager.open("/w", options=quiet, disk=disk) as manager:
            for agent in manager.agents(include_archived=True):
                assert manager.get(agent.agent_id) == agent
            for agent in manager.agents(include_archived=True):
                manager.record_usage(agent.agent_id, input_tokens=1, output_tokens=2)
                manager.cancel(agent.agent_id, descendants=True)
            manager.cleanup(0)  # agents that ended in the future stay
            manager.wait_durable(manager.spawn("more", queued=True).lsn, timeout_s=HANG_S)
            manager.compact()

    refusal(use)


def unsigned(files: Files) -> Files:
    """Return the files without LOCK, which is only for people."""
    return {name: data for name, data in files.items() if name != "LOCK"}

"""Every door through which bytes on disk come in, and what may come out of each of them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from click.testing import CliRunner
from journal_inspect.commands.cli import cli

from journal import CorruptionError, DurableState, Journal, JournalError, JournalReader, repair
from journal.testing import SimulatedDisk
from manager import SubAgentManager
from tests.crash.crash_support import image
from tests.crash.hostile_forge import Files
from tests.support import NEVER_S, PATH, options

HANG_S = 60
STATE = "/w/.subagents"
# Whatever is read, this is as much as a message may say of it.
MESSAGE_CHARS_MAX = 2000


@contextmanager
def watchdog(seconds: int = HANG_S) -> Iterator[None]:
    """What does not end in good time fails, wherever it is."""

    def ring(*_: object) -> None:
        raise AssertionError(f"it does not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Anything:
    """A state machine that takes in everything, and gives nothing away."""

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


def refusal(door: Callable[[], object]) -> JournalError | None:
    """What it is refused with, if it is; nothing else but a JournalError comes through."""
    refused: JournalError | None = None
    try:
        door()
    except JournalError as error:
        refused = error
    assert len(str(refused)) < MESSAGE_CHARS_MAX, f"{str(refused)[:200]}... is no message"
    return refused


# --- the doors ---


def read_entries(disk: SimulatedDisk) -> list[tuple[int, int, str]]:
    with JournalReader.open(PATH, disk=disk) as reader:
        return [(e.lsn, e.epoch, repr(e.record)) for e in reader.entries()]


def read_checkpoints(disk: SimulatedDisk) -> None:
    with JournalReader.open(PATH, disk=disk) as reader:
        checkpoints = reader.checkpoints()
        try:
            for checkpoint in checkpoints:
                # One that verified is there as a whole, or there is an error.
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
        found = list(reader.verify())
    assert all(len(f.message) < MESSAGE_CHARS_MAX for f in found)
    return {finding.kind for finding in found}


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


# What journal-inspect is asked of a path.
ASKED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("info", "verify", "log", "stats", "checkpoint", "agents", "repair"), ()),
    "show": ("lead",),
    "history": ("lead",),
    "diff": ("1", "9"),
}


def ask_all(path: str, disk: SimulatedDisk | None = None) -> None:
    """journal-inspect, each verb in both forms: an answer, and harmless."""
    limit = sys.getrecursionlimit()
    for verb, args in ASKED.items():
        for form in ("text", "json"):
            with instead(disk):
                result = CliRunner().invoke(cli, [verb, path, *args, "-o", form])
            sys.setrecursionlimit(limit)  # which it raises, in a process of its own
            told = (verb, form, result.exit_code, result.stderr[:500])
            assert isinstance(result.exception, SystemExit | None), told
            assert result.exit_code in (0, 1, 3, 4), told
            assert "defect" not in result.stderr, told
            assert_harmless(result.stdout + result.stderr)
            assert len(result.stderr) < 2 * MESSAGE_CHARS_MAX, told


@contextmanager
def instead(disk: SimulatedDisk | None) -> Iterator[None]:
    """The disk that who names none gets."""
    with ExitStack() as patches:
        for module in ("reader", "repair") if disk else ():
            patches.enter_context(patch(f"journal._offline.{module}.PosixDisk", lambda: disk))
        yield


def assert_harmless(text: str) -> None:
    """Nothing in it that a terminal would obey."""
    bad = {c for c in text if not (c.isprintable() or c == "\n")}
    assert not bad, ascii(bad)


# --- all of them ---


def knock_at_readers(files: Files) -> None:
    """Nothing is changed, and nothing but a JournalError refuses; of a live journal too."""
    disk = image(files)
    for live in (False, True):
        if live:
            disk.open_directory(PATH, write=True).lock()
        for door in READERS:
            refusal(lambda door=door: door(disk))  # type: ignore[misc]  # no type is inferred for a lambda with a default
    assert disk.contents(PATH) == files, "a reader changed something"


def knock_at_repair(files: Files) -> None:
    """It tells of the problem that open has, and changes nothing."""
    disk = image(files)
    told: list[str | None] = []
    refused = refusal(lambda: told.append(dry_run(disk)))
    assert disk.contents(PATH) == files, "a dry run changed something"
    error = refusal(lambda: Journal.open(PATH, options=options(), disk=disk).close())
    if isinstance(error, CorruptionError):
        assert refused or told == [str(error)]
    elif not refused:
        assert error is None or told[0] is None


def knock_at_state(files: Files) -> None:
    """Refused and unchanged; or open, and then it is a journal like any other."""
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
    again = Anything()
    with DurableState.open(PATH, again, options=options(), disk=disk) as state:
        assert [repr(each) for each in (*again.items, *again.records)] == [*kept, "'one more'"]
        state.compact()
    with DurableState.open(PATH, Anything(), options=options(), disk=disk) as state:
        assert state.journal.last_lsn == lsn


def knock_at_cli(files: Files) -> None:
    disk = image(files)
    ask_all(PATH, disk)
    assert disk.contents(PATH) == files, "journal-inspect changed something"


def knock_at_manager(files: Files) -> None:
    """As the state of a manager: refused, or open and of use."""
    disk = image(files, STATE)
    quiet = options(flush_interval_s=NEVER_S)

    def use() -> None:
        with SubAgentManager.open("/w", options=quiet, disk=disk) as manager:
            for agent in manager.agents(include_archived=True):
                assert manager.get(agent.agent_id) == agent
            for agent in manager.agents(include_archived=True):
                manager.record_usage(agent.agent_id, input_tokens=1, output_tokens=2)
                manager.cancel(agent.agent_id, descendants=True)
            manager.cleanup(0)  # what ended in a time to come stays
            manager.wait_durable(manager.spawn("more", queued=True).lsn, timeout_s=HANG_S)
            manager.compact()

    refusal(use)


def unsigned(files: Files) -> Files:
    """Without the note for people."""
    return {name: data for name, data in files.items() if name != "LOCK"}

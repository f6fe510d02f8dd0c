"""What becomes of an open journal when the interpreter exits."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal import Journal
from tests.support import (
    logged,
    run,
)

EXIT = """
import atexit, sys, threading
from journal import Journal, Options

journal = Journal.open(sys.argv[1], options=Options(flush_interval_s=3600))

def main():
    for n in range(10):
        journal.append(n)

{}
"""


EXITS = {
    "the end": "main()",
    "sys.exit": "main(); sys.exit(3)",
    "an exception": "main(); raise RuntimeError",
    "a thread": "threading.Thread(target=main).start()",
    "a daemon": "t = threading.Thread(target=main, daemon=True); t.start(); t.join()",
    "a later hook": "atexit.register(main)",
    "compaction": "journal.start_compaction(lambda: (0, [])); main()",
    "forgotten": "main(); del journal",
    "with": "with journal: main(); sys.exit(3)",
    "a close in time": "main(); journal.close()",
    "interrupted": "main(); import signal; signal.raise_signal(signal.SIGINT)",
}


@pytest.mark.parametrize("how", EXITS.values(), ids=EXITS.keys())
def test_what_is_buffered_is_committed_at_exit(tmp_path: Path, how: str) -> None:
    """However the interpreter ends in good order, what was appended is committed, and marked."""
    process = run(EXIT.format(how), tmp_path / "j")
    assert "atexit" not in process.stderr
    assert "lost" not in process.stderr
    with Journal.open(tmp_path / "j") as journal:
        assert logged(journal) == [*range(10)]
        assert journal.epoch == 2


def test_an_exit_with_threads_that_append_on(tmp_path: Path) -> None:
    """P1: a daemon thread that appends until the very end gets ClosedError, and no record twice."""
    script = EXIT.format(
        "def on():\n"
        "    n = 0\n"
        "    while True:\n"
        "        journal.append(n)\n"
        "        n += 1\n"
        "        started.set()\n"
        "started = threading.Event()\n"
        "threading.excepthook = lambda args: print(args.exc_type.__name__)\n"
        "threading.Thread(target=on, daemon=True).start()\n"
        "started.wait()"
    )
    process = run(script, tmp_path / "j")
    assert process.returncode == 0, process.stderr
    assert process.stdout in ("", "ClosedError\n")
    with Journal.open(tmp_path / "j") as journal:
        log = logged(journal)
    assert log == [*range(len(log))]
    assert log


@pytest.mark.slow
def test_an_exit_on_a_full_disk_ends(tmp_path: Path) -> None:
    """A disk that stays full does not hang the exit: after some seconds it says what is lost."""
    script = (
        "import errno, logging\n"
        "from journal import Journal\n"
        "from journal.testing import SimulatedDisk\n"
        "logging.basicConfig()\n"
        "disk = SimulatedDisk()\n"
        "journal = Journal.open('/j', disk=disk)\n"
        "disk.fail('write', errno.ENOSPC, times=None)\n"
        "journal.append('x' * 98)\n"
    )
    process = run(script)
    assert process.returncode == 0
    assert "/j: 100 bytes could not be written before exit, and are lost" in process.stderr

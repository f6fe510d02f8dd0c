"""Mirrored journals when their process exits, forks or is killed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from journal import Journal, LockedError
from journal._mirror.claiming import look
from journal._mirror.restoring import restore_into
from journal._mirror.urls import open_store
from tests.support import TIMEOUT_S, child, line_of, run

WRITER = """
import os, sys, time, warnings
from journal import ClosedError, Journal, Mirror
warnings.simplefilter("ignore", DeprecationWarning)  # forks with threads
journal = Journal.open(sys.argv[1], mirror=Mirror(sys.argv[2], interval_s=3600))
"""


def test_an_exit_ships_the_rest_and_releases_the_mirror(tmp_path: Path) -> None:
    """At exit, everything that was appended reaches the mirror, so another machine opens it without
    a takeover."""
    url = f"file://{tmp_path}/mirror"
    process = run(WRITER + "for n in range(10): journal.append(n)", tmp_path / "a", url)
    assert (process.returncode, process.stderr) == (0, "")
    store = open_store(url)
    assert look(store).is_released
    assert restore_into(store, tmp_path / "r").lsn == 10


@pytest.mark.skipif(sys.platform != "linux", reason="forks with threads")
def test_a_forked_child_leaves_the_mirror_alone(tmp_path: Path) -> None:
    """A child gets ClosedError from each wait, ships nothing, and releases nothing, also when it
    exits. The parent ships on."""
    url = f"file://{tmp_path}/mirror"
    script = """
journal.wait_mirrored(journal.append(1))
if os.fork() == 0:
    for call in (journal.wait_mirrored, lambda: journal.mirrored_lsn, lambda: journal.append(2)):
        try:
            call()
        except ClosedError:
            continue
        os._exit(1)
    journal.close()
    sys.exit(0)
_, status = os.wait()
assert status == 0, status
journal.wait_mirrored(journal.append(3))
"""
    process = run(WRITER + script, tmp_path / "a", url)
    assert process.returncode == 0, process.stderr
    assert restore_into(open_store(url), tmp_path / "r").lsn == 2


def test_a_killed_writer_opens_its_directory_again(tmp_path: Path) -> None:
    """After a kill -9, the directory opens without a takeover, and ships what the kill left. No
    other directory does."""
    url = f"file://{tmp_path}/mirror"
    script = """
journal.wait_mirrored(journal.append(1))
journal.wait_durable(journal.append(2))
print("ready", flush=True)
time.sleep(60)
"""
    with child(WRITER + script, tmp_path / "a", url) as process:
        assert line_of(process) == "ready"
        process.send_signal(signal.SIGKILL)
        process.wait(TIMEOUT_S)
    with pytest.raises(LockedError, match=f"process {process.pid} on {os.uname().nodename}"):
        Journal.open(tmp_path / "b", mirror=url)
    assert restore_into(open_store(url), tmp_path / "r").lsn == 1
    with Journal.open(tmp_path / "a", mirror=url) as journal:
        journal.wait_mirrored(timeout_s=TIMEOUT_S)
    assert restore_into(open_store(url), tmp_path / "s").lsn == 2

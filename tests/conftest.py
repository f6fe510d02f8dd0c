"""What every test needs: the packages of this checkout and no others, and Hypothesis's settings.

A copy that is installed beside the checkout would be what is tested, in this process or in a child,
if the paths were left to chance.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:  # imported by the fixtures, once it is sure that they are this checkout's
    from journal import Journal, JournalReader
    from journal._disk.disk import Directory
    from journal.testing import SimulatedDisk
    from manager import SubAgentManager

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("journal", "manager", "_journal_console", "journal_inspect")

# Children inherit what pytest's `pythonpath` gives this process.
_paths = [str(ROOT), str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _paths))

# A change is judged by the same examples on every machine; `--hypothesis-profile thorough` looks
# longer, and elsewhere each time. Deadlines and slow generation are the machine's business.
_quick = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("quick", _quick)
settings.register_profile("thorough", _quick, max_examples=2000, derandomize=False)
settings.load_profile("quick")


def strangers() -> list[str]:
    """Packages of ours that would be, or were, imported from elsewhere than this checkout."""
    found = []
    for name in PACKAGES:
        spec = find_spec(name)
        places = spec.submodule_search_locations if spec else None
        place = Path(next(iter(places))).resolve() if places else None
        if place not in (ROOT / name, ROOT / "tools" / name):
            found.append(f"{name} comes from {place}, not from {ROOT}")
    return found


def pytest_sessionstart() -> None:
    """Before anything is collected."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # What a shell starts in the background ignores it, and so would every child of a test.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if found := strangers():
        raise pytest.UsageError("; ".join(found) + f"; sys.path is {sys.path}")


def pytest_runtest_setup() -> None:
    """Let the last test's log messages, which another thread logs, not arrive in the next one."""
    if log := sys.modules.get("journal._log"):
        log.settle(1)


@pytest.fixture(autouse=True, scope="session")
def _packages_of_this_checkout() -> None:
    """Once more when all is imported, which may have changed the path."""
    assert not strangers()


@pytest.fixture
def disk() -> Iterator[SimulatedDisk]:
    """Mended in the end: leaving a journal's `with` on a full disk waits for room."""
    from journal.testing import SimulatedDisk
    from tests.support import TIMEOUT_S

    disk = SimulatedDisk()

    def mend() -> None:
        disk.before, disk.capacity = None, None

    timer = threading.Timer(TIMEOUT_S, mend)
    timer.start()
    yield disk
    timer.cancel()
    timer.join()


@pytest.fixture
def directory(disk: SimulatedDisk) -> Directory:
    """The journal's directory, empty."""
    from tests.support import PATH

    return disk.open_directory(PATH, write=True)


@pytest.fixture
def journal(disk: SimulatedDisk) -> Iterator[Journal]:
    from tests.support import open_on

    with open_on(disk) as journal:
        yield journal


@pytest.fixture
def manager(disk: SimulatedDisk) -> Iterator[SubAgentManager]:
    """One that commits when someone waits, and not before."""
    from manager import SubAgentManager
    from tests.manager_support import MANY, PATIENT

    with SubAgentManager.open("/w", limits=MANY, options=PATIENT, disk=disk) as manager:
        yield manager


@pytest.fixture
def reader(disk: SimulatedDisk) -> Iterator[JournalReader]:
    from journal import JournalReader
    from tests.support import PATH, open_on

    open_on(disk).close()
    with JournalReader.open(PATH, disk=disk) as reader:
        yield reader


@pytest.fixture
def engine_log() -> Iterator[list[logging.LogRecord]]:
    """Return the engine's log records, in order. Call `journal._log.settle` before reading them."""
    records: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler, log = Keeping(), logging.getLogger("journal")
    log.addHandler(handler)
    yield records
    log.removeHandler(handler)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compactor's thread retries a failed compaction at once."""
    monkeypatch.setattr("journal._engine.compaction_schedule._BACKOFF_S_MIN", 0.001)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool

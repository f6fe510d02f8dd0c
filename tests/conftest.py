"""Set-up for all tests: the packages of this checkout, Hypothesis's settings, and common fixtures.

Without the check, a copy that is installed beside the checkout could be tested instead, in this
process or in a child process.
"""

from __future__ import annotations

import gc
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

from tests.tiers import EXAMPLES

if TYPE_CHECKING:  # the fixtures import these, after the check that they are this checkout's
    from journal import Journal, JournalReader
    from journal._disk.disk import Directory
    from journal.testing import SimulatedDisk
    from manager import SubAgentManager

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("journal", "manager", "_journal_console", "journal_inspect")

# Children inherit what pytest's `pythonpath` gives this process.
_paths = [str(ROOT), str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _paths))

# The same examples are derived on every machine, and fewer of them in the quick part.
# `--hypothesis-profile thorough` tries more, and other ones each time. There are no deadlines,
# since speed depends on the machine.
_whole = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("whole", _whole)
settings.register_profile("quick", _whole, max_examples=EXAMPLES // 5)
settings.register_profile("thorough", _whole, max_examples=EXAMPLES * 40, derandomize=False)
settings.load_profile("whole")


def pytest_configure(config: pytest.Config) -> None:
    """Let properties try fewer examples in the quick part."""
    if config.option.markexpr == "not slow" and not config.option.hypothesis_profile:
        settings.load_profile("quick")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect no garbage while tests are collected: nearly all objects stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def foreign_packages() -> list[str]:
    """Return the packages of this project that would be, or were, imported from elsewhere."""
    messages = []
    for name in PACKAGES:
        spec = find_spec(name)
        places = spec.submodule_search_locations if spec else None
        place = Path(next(iter(places))).resolve() if places else None
        if place not in (ROOT / name, ROOT / "tools" / name):
            messages.append(f"{name} comes from {place}, not from {ROOT}")
    return messages


def pytest_sessionstart() -> None:
    """Check the packages before any test is collected."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts background jobs with SIGINT ignored, and every child of a test would
        # inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if messages := foreign_packages():
        raise pytest.UsageError("; ".join(messages) + f"; sys.path is {sys.path}")


def pytest_runtest_setup() -> None:
    """Wait for the last test's log messages, which another thread logs, so that this test sees
    none."""
    if log := sys.modules.get("journal._log"):
        log.settle(1)


@pytest.fixture(autouse=True, scope="session")
def _packages_of_this_checkout() -> None:
    """Check the packages again once everything is imported, since an import may change
    `sys.path`."""
    assert not foreign_packages()


@pytest.fixture
def disk() -> Iterator[SimulatedDisk]:
    """Yield a new simulated disk, and clear its faults after TIMEOUT_S.

    Otherwise, the end of a journal's `with` could wait forever for room on a full disk.
    """
    from journal.testing import SimulatedDisk
    from tests.support import TIMEOUT_S

    disk = SimulatedDisk()

    def clear_faults() -> None:
        disk.before, disk.capacity = None, None

    timer = threading.Timer(TIMEOUT_S, clear_faults)
    timer.start()
    yield disk
    timer.cancel()
    timer.join()


@pytest.fixture
def directory(disk: SimulatedDisk) -> Directory:
    """Return the journal's directory, empty."""
    from tests.support import PATH

    return disk.open_directory(PATH, write=True)


@pytest.fixture
def journal(disk: SimulatedDisk) -> Iterator[Journal]:
    from tests.support import open_on

    with open_on(disk) as journal:
        yield journal


@pytest.fixture
def manager(disk: SimulatedDisk) -> Iterator[SubAgentManager]:
    """Yield a manager that commits only when somebody waits for it."""
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

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler, log = Recorder(), logging.getLogger("journal")
    log.addHandler(handler)
    yield records
    log.removeHandler(handler)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the compactor's thread retry a failed compaction at once."""
    monkeypatch.setattr("journal._engine.compaction_schedule._BACKOFF_S_MIN", 0.001)


@pytest.fixture
def few_to_collect() -> Iterator[None]:
    """Let collections ignore the objects that exist before the test.

    pytest itself keeps so many that a full collection takes 0.15 s.
    """
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Switch threads far more often than by default."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before_s)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep two values of a CowTable in cells, and the others in chunks of two."""
    monkeypatch.setattr("journal._state.cow_table._CELLS", 2)
    monkeypatch.setattr("journal._state.many_rows._MASK", 3)
    for module in ("cow_table", "many_rows"):
        monkeypatch.setattr(f"journal._state.{module}._BITS", 1)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool

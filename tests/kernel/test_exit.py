"""Open journals when the interpreter exits."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from journal import Journal
from tests.support import TIMEOUT_S, logged, run
from tests.tiers import slow_but_every

FOUR_JOURNALS = """
import errno, logging, sys, threading, time
import journal._log
from journal import Journal, Options
from journal._engine.core import Core

logging.basicConfig()
quiet = Options(flush_interval_s=3600)
journals = [Journal.open(f"{sys.argv[1]}-{n}", options=quiet) for n in range(4)]
for each in journals:
    each.append("kept")

"""


def records_after_exit(path: Path) -> list[list[str]]:
    """Return the records of each of the four journals after the exit."""
    records = []
    for n in range(4):
        with Journal.open(f"{path}-{n}") as journal:
            records.append(logged(journal))
    return records


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
    "the end of the script": "main()",
    "sys.exit": "main(); sys.exit(3)",
    "an exception": "main(); raise RuntimeError",
    "a thread that is still running": "threading.Thread(target=main).start()",
    "a daemon thread": "t = threading.Thread(target=main, daemon=True); t.start(); t.join()",
    "a hook registered later": "atexit.register(main)",
    "beside a compaction": "journal.start_compaction(lambda: (0, [])); main()",
    "without a reference": "main(); del journal",
    "within a with": "with journal: main(); sys.exit(3)",
    "after a close": "main(); journal.close()",
    "interrupted": "main(); import signal; signal.raise_signal(signal.SIGINT)",
}


@pytest.mark.parametrize("ending", slow_but_every(3, EXITS.values()), ids=EXITS.keys())
def test_buffered_records_are_committed_at_exit(tmp_path: Path, ending: str) -> None:
    """Appended records are committed and marked, however the interpreter exits in good order."""
    process = run(EXIT.format(ending), tmp_path / "j")
    assert "atexit" not in process.stderr
    assert "lost" not in process.stderr
    with Journal.open(tmp_path / "j") as journal:
        assert logged(journal) == [*range(10)]
        assert journal.epoch == 2


CHILD = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from journal import Journal, Options

def main():
    global journal
    journal = Journal.open(sys.argv[1], options=Options(flush_interval_s=3600))
    for n in range(10):
        journal.append(n)

if __name__ == "__main__":
    context = multiprocessing.get_context("{}")
    if {}:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            pool.submit(main).result()
    else:
        process = context.Process(target=main)
        process.start()
        process.join()
"""


@pytest.mark.parametrize("in_pool", [False, True])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_child_of_multiprocessing_commits_at_its_exit(
    method: str, in_pool: bool, tmp_path: Path
) -> None:
    """The records that a child has appended are committed, though it runs no hook of atexit."""
    script = tmp_path / "program.py"  # the other methods import it
    script.write_text(CHILD.format(method, in_pool))
    subprocess.run([sys.executable, script, tmp_path / "j"], check=True, timeout=TIMEOUT_S * 2)
    with Journal.open(tmp_path / "j") as journal:
        assert logged(journal) == [*range(10)]


def test_a_child_of_billiard_commits_at_its_exit(tmp_path: Path) -> None:
    """The same holds for Celery's fork of multiprocessing, for which a copy stands here."""
    source = Path(multiprocessing.__file__).parent
    shutil.copytree(source, tmp_path / "billiard", ignore=shutil.ignore_patterns("__pycache__"))
    script = tmp_path / "program.py"
    script.write_text(
        CHILD.replace("import multiprocessing", "import billiard as multiprocessing").format(
            "fork", False
        )
    )
    subprocess.run([sys.executable, script, tmp_path / "j"], check=True, timeout=TIMEOUT_S)
    with Journal.open(tmp_path / "j") as journal:
        assert logged(journal) == [*range(10)]


@pytest.mark.parametrize("functions", [[], ["parent_process", "current_process"]])
def test_an_open_while_another_thread_imports_multiprocessing(
    functions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open does not fail because multiprocessing lacks its functions, or their variables."""
    module = ModuleType("process")
    for function in functions:
        exec(f"def {function}(): return _{function}", module.__dict__)
    monkeypatch.setitem(sys.modules, "multiprocessing.process", module)
    Journal.open(tmp_path / "j").close()


def test_a_daemon_thread_that_appends_until_the_exit_is_refused(tmp_path: Path) -> None:
    """P1: A daemon thread that appends until the end gets ClosedError and duplicates no record."""
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
    """A disk that stays full does not hang the exit. It reports the lost bytes after some
    seconds."""
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
    assert "/j: 100 bytes could not be written before the exit and are lost" in process.stderr


RAISING = """
finish = Core.finish
finished = []

def raising(core):
    finish(core)
    finished.append(core.directory.path)
    if len(finished) == 1:
        raise {}("of the first")

Core.finish = raising
"""


@pytest.mark.parametrize("error", ["RuntimeError", "KeyboardInterrupt", "SystemExit"])
def test_all_journals_are_finished_at_exit_whatever_one_raises(tmp_path: Path, error: str) -> None:
    """P1: If finishing one journal raises, its path is logged, and the others are still
    committed."""
    process = run(FOUR_JOURNALS + RAISING.format(error), tmp_path / "j")
    assert process.returncode == 0
    assert "of the first" in process.stderr
    assert f"{tmp_path}/j-" in process.stderr
    assert "atexit" not in process.stderr
    assert ("Traceback" in process.stderr) == (error == "RuntimeError")  # an interrupt needs none
    assert records_after_exit(tmp_path / "j") == [["kept"]] * 4


OPENING = """
import atexit
from journal._disk import process

class Opened:
    def finish(self):
        pass

opened = []

def open_another(frame, event, argument):
    if len(opened) < 100 and frame.f_globals["__name__"] in ("weakref", "_weakrefset"):
        opened.append(Opened())
        process.own(opened[-1])
    return open_another

atexit.register(sys.settrace, open_another)
"""


def test_all_journals_are_finished_at_exit_while_others_are_opened(tmp_path: Path) -> None:
    """P1: Daemon threads may open journals while the exit looks for those that are open."""
    process = run(FOUR_JOURNALS + OPENING, tmp_path / "j")
    assert (process.returncode, process.stderr) == (0, "")
    assert records_after_exit(tmp_path / "j") == [["kept"]] * 4


NO_THREAD = """
start = threading.Thread.start

def refusing(thread):
    if thread.name == "{0}":
        raise RuntimeError("can't start new thread")
    start(thread)

threading.Thread.start = refusing
try:
    {1}
except RuntimeError as error:
    kept = error  # keeps every frame of the failed open alive
threading.Thread.start = start
owned = Options(flush_interval_s=3600, application="table/1")
Journal.open(sys.argv[1], options=owned).append("reopened")
"""
TABLE = "from journal import DurableState; from tests.support import Table; "


@pytest.mark.parametrize(
    ("thread", "opening"),
    [
        ("journal-flusher", "Journal.open(sys.argv[1])"),
        ("journal-flusher", f"{TABLE}DurableState.open(sys.argv[1], Table())"),
        ("journal-compactor", f"{TABLE}DurableState.open(sys.argv[1], Table())"),
    ],
    ids=["journal", "state", "compactor"],
)
def test_an_open_that_gets_no_thread_affects_no_other_journal(
    tmp_path: Path, thread: str, opening: str
) -> None:
    """P1: An open that can't start a thread releases its lock, and the exit commits the others.

    That holds although the exception, and with it the half-open journal, is kept.
    """
    process = run(FOUR_JOURNALS + NO_THREAD.format(thread, opening), tmp_path / "j")
    assert process.returncode == 0, process.stderr
    assert "Error" not in process.stderr
    assert records_after_exit(tmp_path / "j") == [["kept"]] * 4
    with Journal.open(tmp_path / "j") as journal:
        assert logged(journal) == ["reopened"]


def test_messages_of_the_engines_threads_are_logged_before_the_exit(tmp_path: Path) -> None:
    """A message that a thread of the engine posted is not lost with that thread.

    A filter that never returns does not delay the exit.
    """
    script = (
        'logging.getLogger("journal").addFilter(lambda record: not {})\n'
        'journal._log.post(logging.ERROR, "posted at the end")\n'
    )
    process = run(FOUR_JOURNALS + script.format("time.sleep(0.2)"), tmp_path / "j")
    assert "posted at the end" in process.stderr
    process = run(FOUR_JOURNALS + script.format("time.sleep(3600)"), tmp_path / "j")
    assert (process.returncode, process.stderr) == (0, "")


CLEARED = """
import sys, warnings
from journal import Journal

journal = Journal.open(sys.argv[1])
journal.append("kept")
warnings.warn = None
"""


def test_a_journal_may_be_freed_after_the_modules(tmp_path: Path) -> None:
    """At exit, the interpreter clears the modules. A program that embeds it, such as uWSGI, may
    free its objects only after that. A journal among them prints no traceback."""
    process = run(CLEARED, tmp_path / "j")
    assert (process.returncode, process.stderr) == (0, "")
    with Journal.open(tmp_path / "j") as journal:
        assert logged(journal) == ["kept"]

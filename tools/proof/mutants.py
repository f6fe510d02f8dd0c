"""Check that the test suite can be trusted: weaken the code, one piece at a time.

Each weakening removes something that a promise rests on, so a test has to fail. The command prints
each weakening with the test that noticed it. If none does, a test is missing, and the exit code is
1. A test that hangs counts as failed.

The tests run in a copy of the checkout, so your files are not changed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from proof import (
    weakenings,
    weakenings_of_adapters,
    weakenings_of_answers,
    weakenings_of_calls,
    weakenings_of_catching_up,
    weakenings_of_changes,
    weakenings_of_checkpointing,
    weakenings_of_checkpoints,
    weakenings_of_clocks,
    weakenings_of_compaction,
    weakenings_of_composites,
    weakenings_of_contract,
    weakenings_of_control,
    weakenings_of_copies,
    weakenings_of_damage,
    weakenings_of_fixing,
    weakenings_of_fleets,
    weakenings_of_following,
    weakenings_of_forecasts,
    weakenings_of_foreign_code,
    weakenings_of_full_disks,
    weakenings_of_gates,
    weakenings_of_lanes,
    weakenings_of_leases,
    weakenings_of_links,
    weakenings_of_many_rows,
    weakenings_of_mirrored_journals,
    weakenings_of_mirrors,
    weakenings_of_moments,
    weakenings_of_opens,
    weakenings_of_order,
    weakenings_of_outputs,
    weakenings_of_parts,
    weakenings_of_runs,
    weakenings_of_savers,
    weakenings_of_stores,
    weakenings_of_table_bodies,
    weakenings_of_tables,
    weakenings_of_timeouts,
    weakenings_of_transactions,
    weakenings_of_trims,
    weakenings_of_waiting,
    weakenings_of_workers,
    weakenings_outside,
)
from proof.weakenings import Weakening

ROOT = Path(__file__).resolve().parents[2]
FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")
COPIED = ("journal", "manager", "tools", "tests", ".ci", ".github", *FILES)
# These tests read the text of the code. They notice any change of it, and prove nothing.
TESTS_OF_TEXT = (
    "test_docs.py",
    "test_mutants.py",
    "test_project.py",
    "test_readme.py",
    "test_layers.py",
)
SILENCE_S = 240  # a test that prints nothing for this long hangs; the slowest takes half of it
EXIT_S = 5  # the time for the interpreter to exit after a failure, which threads may prevent
FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
WEAKENINGS: tuple[Weakening, ...] = (
    *weakenings.ALL_OF,
    *weakenings_of_opens.ALL_OF,
    *weakenings_of_order.ALL_OF,
    *weakenings_of_outputs.ALL_OF,
    *weakenings_of_contract.ALL_OF,
    *weakenings_of_compaction.ALL_OF,
    *weakenings_of_trims.ALL_OF,
    *weakenings_of_waiting.ALL_OF,
    *weakenings_of_adapters.ALL_OF,
    *weakenings_of_answers.ALL_OF,
    *weakenings_of_savers.ALL_OF,
    *weakenings_of_stores.ALL_OF,
    *weakenings_of_calls.ALL_OF,
    *weakenings_of_checkpoints.ALL_OF,
    *weakenings_of_damage.ALL_OF,
    *weakenings_of_forecasts.ALL_OF,
    *weakenings_of_foreign_code.ALL_OF,
    *weakenings_of_fleets.ALL_OF,
    *weakenings_of_clocks.ALL_OF,
    *weakenings_of_gates.ALL_OF,
    *weakenings_of_lanes.ALL_OF,
    *weakenings_of_composites.ALL_OF,
    *weakenings_of_many_rows.ALL_OF,
    *weakenings_of_parts.ALL_OF,
    *weakenings_of_runs.ALL_OF,
    *weakenings_of_full_disks.ALL_OF,
    *weakenings_of_control.ALL_OF,
    *weakenings_of_tables.ALL_OF,
    *weakenings_of_transactions.ALL_OF,
    *weakenings_of_table_bodies.ALL_OF,
    *weakenings_of_changes.ALL_OF,
    *weakenings_of_fixing.ALL_OF,
    *weakenings_of_mirrored_journals.ALL_OF,
    *weakenings_of_following.ALL_OF,
    *weakenings_of_catching_up.ALL_OF,
    *weakenings_of_leases.ALL_OF,
    *weakenings_of_workers.ALL_OF,
    *weakenings_of_links.ALL_OF,
    *weakenings_of_mirrors.ALL_OF,
    *weakenings_of_copies.ALL_OF,
    *weakenings_of_moments.ALL_OF,
    *weakenings_of_timeouts.ALL_OF,
    *weakenings_of_checkpointing.ALL_OF,
    *weakenings_outside.ALL_OF,
)


def copy_checkout(to: Path) -> None:
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, to / name)


def weakened(source: str, weakening: Weakening) -> str:
    """Return `source` with the weakening applied.

    Raises ValueError unless the weakened piece occurs exactly once.
    """
    if source.count(weakening.old) != 1:
        count = source.count(weakening.old)
        raise ValueError(
            f"{weakening.name}: its piece occurs {count} times in {weakening.path}, not once"
        )
    return source.replace(weakening.old, weakening.new)


def first_failure(checkout: Path, tests: Iterable[str]) -> str | None:
    """Return the first test that fails or hangs, or None if all pass.

    Raises ChildProcessError if pytest ran no test.
    """
    existing = [test for test in tests if (checkout / test).exists()]
    ignored = [f"--ignore=tests/project/{name}" for name in TESTS_OF_TEXT]
    options = ["-x", "-v", "-p", "no:cacheprovider", "-rfE"]
    pytest = [sys.executable, "-u", "-m", "pytest"]
    code, output = run([*pytest, *options, *ignored, *existing], checkout)
    if code == 0:
        return None
    if failure := FAILURE.search(output):
        return failure[1]
    if code is None:
        begun = re.findall(r"^tests/\S+::\S+", output, re.MULTILINE)
        return f"{begun[-1] if begun else 'pytest'} hangs"
    if 1 < code < 6:  # the codes with which pytest says that it could not run the tests
        raise ChildProcessError(f"pytest exits with {code}: {output[-500:]}")
    return f"pytest exits with {code}: {output[-200:]}"


def run(command: list[str], checkout: Path) -> tuple[int | None, str]:
    """Run pytest, and return its exit code and its output.

    If it prints nothing for `SILENCE_S`, or for `EXIT_S` after a failure, it is killed, and the
    code is None. The whole run has no limit.
    """
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    with tempfile.NamedTemporaryFile() as file:
        process = subprocess.Popen(
            command, cwd=checkout, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        path = Path(file.name)
        output, grown_s = "", time.monotonic()
        while (code := process.poll()) is None:
            time.sleep(0.05)
            if (now := path.read_text(errors="replace")) != output:
                output, grown_s = now, time.monotonic()
            elif time.monotonic() - grown_s > (EXIT_S if FAILURE.search(output) else SILENCE_S):
                break
        if code is None:
            process.kill()
            process.wait()
        return code, path.read_text(errors="replace")


def noticing_test(checkout: Path, weakening: Weakening) -> str | None:
    """Return the test that fails under the weakening: one of its own, else any of the suite."""
    path = checkout / weakening.path
    source = path.read_text()
    path.write_text(weakened(source, weakening))
    try:
        return first_failure(checkout, weakening.tests) or first_failure(checkout, ["tests"])
    finally:
        path.write_text(source)


def main(arguments: list[str]) -> int:
    """Run the weakenings that the arguments name, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python tools/proof mutants",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="the weakenings; default: all")
    parser.add_argument("--list", action="store_true", help="list the weakenings, and run none")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - {weakening.name for weakening in WEAKENINGS}
    if unknown:
        parser.error(f"unknown weakening: {', '.join(sorted(unknown))}; --list shows all")
    chosen = [w for w in WEAKENINGS if not options.names or w.name in options.names]
    if options.list:
        print("\n".join(f"{w.name:52} {w.path}" for w in chosen))
        return 0
    survivors = 0
    with tempfile.TemporaryDirectory() as name:
        checkout = Path(name)
        copy_checkout(checkout)
        for weakening in chosen:
            began = time.monotonic()
            test = noticing_test(checkout, weakening)
            survivors += test is None
            duration = f"{time.monotonic() - began:.0f} s"
            print(f"{weakening.name:52}{duration:>6}  {test or 'SURVIVES'}", flush=True)
    print(f"{len(chosen)} weakenings, of which no test notices {survivors}")
    return int(survivors > 0)

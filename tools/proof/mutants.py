"""Is the suite worth its trust? Take away, one at a time, what the promises rest on: each time a
test has to fail. Prints each weakening with the test that noticed it; one that none notices is a
missing test, and the exit code is 1.

In a copy of the checkout, so nothing of yours is changed. A test that hangs counts as failed.
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
    weakenings_of_checkpoints,
    weakenings_of_compaction,
    weakenings_of_contract,
    weakenings_of_fleets,
    weakenings_of_foreign_code,
    weakenings_of_order,
    weakenings_of_waiting,
    weakenings_outside,
)
from proof.weakenings import Weakening

ROOT = Path(__file__).resolve().parents[2]
FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")
COPIED = ("journal", "manager", "tools", "tests", ".ci", ".github", *FILES)
# They look at the text of the code, so they notice any change of it, and not what it breaks.
LOOK_AT_TEXT = (
    "test_docs.py",
    "test_mutants.py",
    "test_project.py",
    "test_readme.py",
    "test_layers.py",
)
SILENCE_S = 240  # pytest prints each test's name as it begins; the slowest test takes half of that
EXIT_S = 5  # threads of the failed test may hold up the interpreter's exit
FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
WEAKENINGS: tuple[Weakening, ...] = (
    *weakenings.ALL_OF,
    *weakenings_of_order.ALL_OF,
    *weakenings_of_contract.ALL_OF,
    *weakenings_of_compaction.ALL_OF,
    *weakenings_of_waiting.ALL_OF,
    *weakenings_of_checkpoints.ALL_OF,
    *weakenings_of_foreign_code.ALL_OF,
    *weakenings_of_fleets.ALL_OF,
    *weakenings_outside.ALL_OF,
)


def copied(to: Path) -> None:
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, to / name)


def weakened(source: str, weakening: Weakening) -> str:
    """Raises ValueError if what it takes away is not there, or not once."""
    if source.count(weakening.old) != 1:
        found = source.count(weakening.old)
        raise ValueError(f"{weakening.name}: {found} places in {weakening.path}, not one")
    return source.replace(weakening.old, weakening.new)


def first_failure(checkout: Path, tests: Iterable[str]) -> str | None:
    """Return the test that fails first, or hangs; None if all pass."""
    there = [test for test in tests if (checkout / test).exists()]
    ignored = [f"--ignore=tests/project/{name}" for name in LOOK_AT_TEXT]
    options = ["-x", "-v", "-p", "no:cacheprovider", "-rfE"]
    code, said = run([sys.executable, "-u", "-m", "pytest", *options, *ignored, *there], checkout)
    if code == 0:
        return None
    if named := FAILURE.search(said):
        return named[1]
    if code is None:
        begun = re.findall(r"^tests/\S+::\S+", said, re.MULTILINE)
        return f"{begun[-1] if begun else 'pytest'} hangs"
    return f"pytest ends with {code}: {said[-200:]}"


def run(command: list[str], checkout: Path) -> tuple[int | None, str]:
    """Return the exit code of pytest and what it printed. If it prints nothing for `SILENCE_S`
    seconds, or `EXIT_S` after a failure, it is killed, and the code is None. How long all of it
    takes says nothing."""
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    with tempfile.NamedTemporaryFile() as file:
        process = subprocess.Popen(
            command, cwd=checkout, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        printed = Path(file.name)
        said, grown_s = "", time.monotonic()
        while (code := process.poll()) is None:
            time.sleep(0.05)
            if (now := printed.read_text(errors="replace")) != said:
                said, grown_s = now, time.monotonic()
            elif time.monotonic() - grown_s > (EXIT_S if FAILURE.search(said) else SILENCE_S):
                break
        if code is None:
            process.kill()
            process.wait()
        return code, printed.read_text(errors="replace")


def noticed_by(checkout: Path, weakening: Weakening) -> str | None:
    path = checkout / weakening.path
    source = path.read_text()
    path.write_text(weakened(source, weakening))
    try:
        return first_failure(checkout, weakening.tests) or first_failure(checkout, ["tests"])
    finally:
        path.write_text(source)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python tools/proof mutants",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these; default: all")
    parser.add_argument("--list", action="store_true", help="name them, and run none")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - {weakening.name for weakening in WEAKENINGS}
    if unknown:
        parser.error(f"no such weakening: {', '.join(sorted(unknown))}; see --list")
    chosen = [w for w in WEAKENINGS if not options.names or w.name in options.names]
    if options.list:
        print("\n".join(f"{w.name:52} {w.path}" for w in chosen))
        return 0
    survivors = 0
    with tempfile.TemporaryDirectory() as name:
        checkout = Path(name)
        copied(checkout)
        for weakening in chosen:
            began = time.monotonic()
            test = noticed_by(checkout, weakening)
            survivors += test is None
            took = f"{time.monotonic() - began:.0f} s"
            print(f"{weakening.name:52}{took:>6}  {test or 'SURVIVES'}", flush=True)
    print(f"{len(chosen)} weakenings, {survivors} that no test notices")
    return int(survivors > 0)

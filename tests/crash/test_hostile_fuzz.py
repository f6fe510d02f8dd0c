"""Forged files, given to everything that reads a journal: entries or a JournalError, and no change
(P9).

`tests/soak/fuzz_journal.py` does this for hours, guided by coverage.
"""

from __future__ import annotations

from base64 import b64decode
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import Journal
from tests.crash.crash_support import image
from tests.crash.hostile_forge import Choices, Dice, Tape, forge
from tests.crash.hostile_sources import Files, sources
from tests.crash.hostile_support import (
    check_cli,
    check_manager,
    check_readers,
    check_repair,
    check_state,
    refusal,
    watchdog,
)
from tests.support import PATH, options
from tests.tiers import slow_unless

CHECKS = [check_readers, check_repair, check_state, check_manager, check_cli]
Check = Callable[[Files], None]


class Drawn:
    """Choices that Hypothesis draws, so that failures shrink."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def below(self, bound: int) -> int:
        return self._data.draw(st.integers(0, bound - 1))

    def data(self, size_max: int) -> bytes:
        return self._data.draw(st.binary(max_size=size_max))


def run_check(check: Check, files: Files) -> None:
    with watchdog():
        check(files)


@pytest.mark.parametrize("check", CHECKS)
@given(data=st.data())
def test_forged_files_are_read_or_refused(check: Check, data: st.DataObject) -> None:
    """P9: Forged files with valid CRCs give their entries or a JournalError, in bounded time.

    Files that are refused or only read are not changed.
    """
    run_check(check, forge(Drawn(data)))


@pytest.mark.parametrize("check", CHECKS)
@given(data=st.data())
def test_arbitrary_bytes_in_a_file_are_read_or_refused(check: Check, data: st.DataObject) -> None:
    """P9: The same holds for arbitrary bytes in one file of a journal, or in its only file."""
    files = dict(data.draw(st.sampled_from(sources()[:-1])))
    name = data.draw(st.sampled_from([*files, "LOCK"]))
    if data.draw(st.booleans()):
        files = {}
    run_check(check, files | {name: data.draw(st.binary(max_size=2000))})


@pytest.mark.parametrize("seed", slow_unless(lambda seed: seed < 10, range(150)))
def test_a_fixed_set_of_forged_files_is_read_or_refused(seed: int) -> None:
    """P9: The same holds for a fixed set of files, so that a regression shows at once."""
    for check in CHECKS:
        run_check(check, forge(Dice(seed)))


def test_forged_files_reach_the_code_after_the_checksums() -> None:
    """Some forged files open, and the others meet every refusal, including those after the CRCs."""
    outcomes: Counter[str] = Counter()
    for seed in range(400):
        disk = image(forge(Dice(seed)))
        error = refusal(lambda: Journal.open(PATH, options=options(), disk=disk).close())  # noqa: B023
        message = str(error)
        outcomes[type(error).__name__] += 1
        outcomes["impossible"] += getattr(error, "reason", None) == "frame_impossible"
        outcomes["unpacked"] += "whole, but" in message
        outcomes["foreign"] += "of another journal" in message
        outcomes["missing"] += getattr(error, "reason", None) == "beginning_missing"
    common = ("NoneType", "CorruptionError", "impossible", "unpacked", "missing")
    assert all(outcomes[name] >= 5 for name in common), outcomes
    assert outcomes["FormatVersionError"]
    assert outcomes["foreign"]


# A tape that coverage led to: its checkpoint lacks a line and counts -1 items.
FOUND_TAPES = ["P1vBwXt7e3t7e3t7e3t7e3t7e3ssPz9gP3vB+D8="]


@pytest.mark.parametrize("tape", FOUND_TAPES)
def test_files_that_once_broke_a_check_no_longer_do(tape: str) -> None:
    """P9: Forged files that once broke a check are read or refused."""
    for check in CHECKS:
        run_check(check, forge(Tape(b64decode(tape))))


@given(st.binary(max_size=300))
def test_a_tape_of_any_length_makes_every_choice(tape: bytes) -> None:
    """Any bytes of a fuzzer, however few, give all choices that a forger asks for, always the
    same."""
    choices: Choices = Tape(tape)
    assert forge(choices) == forge(Tape(tape))

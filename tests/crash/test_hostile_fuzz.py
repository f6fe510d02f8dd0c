"""Files that nobody wrote, through every door: entries or a JournalError, and nothing changed (P9).

`tests/soak/fuzz_journal.py` goes on with this for hours, guided by coverage.
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
from tests.crash.hostile_forge import Choices, Dice, Files, Tape, forge, sources
from tests.crash.hostile_support import (
    knock_at_cli,
    knock_at_manager,
    knock_at_readers,
    knock_at_repair,
    knock_at_state,
    refusal,
    watchdog,
)
from tests.support import PATH, options

DOORS = [knock_at_readers, knock_at_repair, knock_at_state, knock_at_manager, knock_at_cli]
Door = Callable[[Files], None]


class Drawn:
    """Choices by Hypothesis, so that what fails becomes small."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def below(self, bound: int) -> int:
        return self._data.draw(st.integers(0, bound - 1))

    def data(self, size_max: int) -> bytes:
        return self._data.draw(st.binary(max_size=size_max))


def knock(door: Door, files: Files) -> None:
    with watchdog():
        door(files)


@pytest.mark.parametrize("door", DOORS)
@given(data=st.data())
def test_forged_files(door: Door, data: st.DataObject) -> None:
    """P9: real files, changed so that their CRCs still hold, give what they hold or a
    JournalError, in bounded time, and what is refused or only read is not changed."""
    knock(door, forge(Drawn(data)))


@pytest.mark.parametrize("door", DOORS)
@given(data=st.data())
def test_any_bytes_in_a_file(door: Door, data: st.DataObject) -> None:
    """P9: the same for bytes that nobody took care of, in one file of a journal or its only one."""
    files = dict(data.draw(st.sampled_from(sources()[:-1])))
    name = data.draw(st.sampled_from([*files, "LOCK"]))
    if data.draw(st.booleans()):
        files = {}
    knock(door, files | {name: data.draw(st.binary(max_size=2000))})


@pytest.mark.parametrize("seed", range(150))
def test_a_fixed_lot_of_forged_files(seed: int) -> None:
    """P9: the same files each time, so that a change which lets one through shows at once."""
    for door in DOORS:
        knock(door, forge(Dice(seed)))


def test_the_forger_reaches_what_is_behind_the_checksums() -> None:
    """What is forged is not all refused at the first checksum: some opens, and each way to refuse
    it is met, by what is behind the CRCs too."""
    met: Counter[str] = Counter()
    for seed in range(400):
        disk = image(forge(Dice(seed)))
        error = refusal(lambda: Journal.open(PATH, options=options(), disk=disk).close())  # noqa: B023
        what = str(error)
        met[type(error).__name__] += 1
        met["impossible"] += getattr(error, "reason", None) == "frame_impossible"
        met["unpacked"] += "whole, but" in what
        met["foreign"] += "of another journal" in what
        met["missing"] += "is missing" in what
    common = ("NoneType", "CorruptionError", "impossible", "unpacked", "missing")
    assert all(met[what] >= 5 for what in common), met
    assert met["FormatVersionError"]
    assert met["foreign"]


# What coverage led to: a checkpoint that lacks a line, and counts -1 items.
FOUND = ["P1vBwXt7e3t7e3t7e3t7e3t7e3ssPz9gP3vB+D8="]


@pytest.mark.parametrize("tape", FOUND)
def test_earlier_finds_of_the_fuzzer(tape: str) -> None:
    """P9: tapes that once got through."""
    for door in DOORS:
        knock(door, forge(Tape(b64decode(tape))))


@given(st.binary(max_size=300))
def test_a_tape_is_enough_for_every_choice(tape: bytes) -> None:
    """Whatever a fuzzer's bytes are, and however few, they are choices: always the same ones."""
    choices: Choices = Tape(tape)
    assert forge(choices) == forge(Tape(tape))

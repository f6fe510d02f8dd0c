"""Damage of every kind at every place: each is detected, or belongs to a documented class.

Damage is detected if open refuses and names the file, offset and LSN that an independent reader
predicts, and if a reader, `verify` and a dry run of repair agree. It is also detected if open does
not need the damaged bytes and `verify` reports them. Undetected damage must belong to a class that
RELIABILITY.md lists under "What is not promised". Nothing on disk may change, except what a
successful open may remove or trim.

The suite tries a part of the places. `python -m tests.crash.test_damage_complete` tries all of them
and prints counts.
"""

from __future__ import annotations

import logging
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain, islice, product
from pathlib import Path
from typing import NamedTuple

import pytest

import journal
from journal.testing.owner import quiet
from tests.crash.crash_support import Durability, files, image
from tests.crash.damage_judge import (
    END,
    FORK,
    LAST_COMMIT,
    NOTHING_LOST,
    OLDER_DIRECTORY,
    REFUSED,
    UNDECIDABLE,
    UNSYNCED,
    VERIFIED,
    Judge,
    findings,
)
from tests.crash.damage_kinds import (
    BYTES,
    FILES,
    Damaged,
    Kind,
    deleted,
    duplicated,
    flipped,
    journal_that_is,
    older_directory,
    removed,
    several_removed,
    truncated,
    zeroed,
)
from tests.crash.damaged_journal import (
    LARGE,
    NAMES,
    NEWER,
    OLDER,
    SEGMENTS,
    SMALL,
    Files,
    Size,
    open_small,
    places,
    recovered,
)
from tests.tiers import slow_but_every, slow_unless

LAST = SEGMENTS[-1]


class Variant(NamedTuple):
    closed: bool
    durability: Durability = "disk"
    size: Size = SMALL


CLOSED, KILLED = Variant(closed=True), Variant(closed=False)
OS_CLOSED, OS_KILLED = Variant(True, "os"), Variant(False, "os")
SMALL_VARIANTS = {
    "closed": CLOSED,
    "killed": KILLED,
    "os closed": OS_CLOSED,
    "os killed": OS_KILLED,
}
LARGE_VARIANTS = {
    f"large {name}": each._replace(size=LARGE) for name, each in SMALL_VARIANTS.items()
}

VARIANTS = SMALL_VARIANTS | LARGE_VARIANTS


@cache
def judge_of(variant: Variant) -> Judge:
    return Judge(journal_that_is(**variant._asdict()))


def is_newest(name: str) -> bool:
    """Return whether the file is the last segment or the newer checkpoint."""
    return name in (LAST, NEWER)


def damages(variant: Variant, name: str, kinds: Iterable[Kind], every: int) -> Iterator[Damaged]:
    """Yield the damaged journals that differ from the undamaged one."""
    undamaged = judge_of(variant).journal
    for kind in kinds:
        for damaged in kind(undamaged, name, every):
            if damaged.files != undamaged.files:
                yield Damaged(f"{name}: {kind.__name__}, {damaged.description}", damaged.files)


def sweep(variant: Variant, damages: Iterable[Damaged]) -> Counter[str]:
    """Judge each damaged journal. Return how many belong to each class."""
    counts: Counter[str] = Counter()
    with quiet():
        for damaged in damages:
            try:
                counts[judge_of(variant).judge(damaged.files)] += 1
            except Exception as error:
                error.add_note(f"{variant}: {damaged.description}")
                raise
    return counts


# --- one damage ---


@pytest.mark.parametrize("name", slow_unless(is_newest, NAMES))
def test_a_flipped_bit_of_a_closed_journal_loses_nothing_in_silence(name: str) -> None:
    """P4: A flipped bit in a closed journal loses nothing in silence, and `verify` reports it.

    Only a bit without a meaning goes unreported. A checkpoint has a single CRC, so the test flips
    bits in only some of its bytes.
    """
    every = 7 if name in SEGMENTS else 61  # coprime to 8, so the bits vary from byte to byte
    assert END not in sweep(CLOSED, damages(CLOSED, name, [flipped], every))


@pytest.mark.parametrize("name", slow_unless(is_newest, NAMES))
def test_only_a_cut_last_segment_may_lose_records_in_silence(name: str) -> None:
    """P1, P4: A cut loses records in silence only at the end of the last segment.

    It may lose only records for which neither a checkpoint nor the rest of the segment is evidence.
    """
    counts = sweep(CLOSED, damages(CLOSED, name, [truncated], 3 if name in SEGMENTS else 17))
    assert (END in counts) == (name == LAST)


@pytest.mark.parametrize(
    ("variant", "name"),
    slow_unless(
        lambda variant, name: name == LAST or (variant == "closed" and is_newest(name)),
        product(SMALL_VARIANTS, NAMES),
    ),
)
def test_damaged_bytes_are_detected(variant: str, name: str) -> None:
    """P4: Flipped, cut, zeroed, garbled, stale, extra and spliced bytes are detected."""
    every = 96 if variant == "closed" else 128
    kinds = [kind for kind in BYTES if kind is not deleted]
    counts = sweep(SMALL_VARIANTS[variant], damages(SMALL_VARIANTS[variant], name, kinds, every))
    assert counts[REFUSED] + counts[VERIFIED] > 20


@pytest.mark.parametrize(
    ("variant", "name"),
    slow_unless(
        lambda variant, name: variant == "closed" and is_newest(name),
        product(["closed", "os killed"], NAMES),
    ),
)
def test_deleted_bytes_are_detected(variant: str, name: str) -> None:
    """P4: Bytes after a deletion have moved, and are evidence at their new place."""
    counts = sweep(SMALL_VARIANTS[variant], damages(SMALL_VARIANTS[variant], name, [deleted], 8))
    assert counts[REFUSED] + counts[VERIFIED] > 20


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_detected(name: str) -> None:
    """P4, P10: A file that is missing, older, foreign or replaced by another one is detected."""
    kinds = [kind for kind in FILES if kind is not duplicated]
    assert sweep(CLOSED, damages(CLOSED, name, kinds, 1)).total() > 10


@pytest.mark.parametrize("name", slow_unless(is_newest, NAMES))
def test_a_copy_of_a_file_removes_no_other_file(name: str) -> None:
    """P4, P5: A copy of a file under any name does not get another file removed.

    If a checkpoint covers the copy's place and no file is to be removed, open ignores the copy, and
    `verify` reports it.
    """
    assert sweep(CLOSED, damages(CLOSED, name, [duplicated], 1)).total() > 10


def test_missing_files_are_detected() -> None:
    """P4: The loss of any files is detected while a checkpoint proves that there was a log."""
    counts = sweep(CLOSED, several_removed(judge_of(CLOSED).journal))
    assert not set(counts) - {REFUSED, VERIFIED, END, NOTHING_LOST}
    assert counts[REFUSED] > 20


@pytest.mark.parametrize("variant", slow_but_every(4, LARGE_VARIANTS))
def test_damaged_sectors_and_pages_are_detected(variant: str) -> None:
    """P4: Zeroed, garbled and stale sectors of 512 and 4096 bytes are detected, and so are cuts."""
    chosen = LARGE_VARIANTS[variant]
    kinds = [kind for kind in BYTES if kind.__name__ in ("zeroed", "garbled", "stale")]
    of_sectors = chain.from_iterable(damages(chosen, name, kinds, 4) for name in SEGMENTS)
    cuts = chain.from_iterable(damages(chosen, name, [truncated], 509) for name in SEGMENTS)
    counts = sweep(chosen, chain(of_sectors, cuts))
    assert counts[REFUSED] > 20


# --- two damages ---


def pairs_of(variant: Variant, seed: int, every: int, kinds: Iterable[Kind]) -> Iterator[Damaged]:
    """Yield endless random pairs of damages to disjoint files."""
    undamaged = judge_of(variant).journal
    pool = [d for name in NAMES for d in damages(variant, name, kinds, every)]
    random_source = random.Random(seed)
    while True:
        first, second = random_source.choice(pool), random_source.choice(pool)
        of_first, of_second = (
            changed(undamaged.files, first.files),
            changed(undamaged.files, second.files),
        )
        if not set(of_first) & set(of_second):
            both = {**undamaged.files, **of_first, **of_second}
            contents = {name: data for name, data in both.items() if data is not None}
            yield Damaged(f"{first.description} and {second.description}", contents)


def changed(before: Files, after: Files) -> dict[str, bytes | None]:
    """Return the files that differ, with None for a missing file."""
    names = before.keys() | after.keys()
    return {name: after.get(name) for name in names if before.get(name) != after.get(name)}


@pytest.mark.parametrize("variant", slow_but_every(3, SMALL_VARIANTS))
def test_two_damages_are_detected(variant: str) -> None:
    """P4: Of two damages, open names the first that matters, and no evidence is overlooked."""
    kinds = [kind for kind in (*BYTES, removed) if kind is not deleted]
    pairs = pairs_of(SMALL_VARIANTS[variant], 1, 31, kinds)
    assert sweep(SMALL_VARIANTS[variant], islice(pairs, 60))[REFUSED] > 20


# --- undecidable damage ---


def test_undecidable_damage_is_documented() -> None:
    """P4: RELIABILITY.md and FORMAT.md name exactly these classes of undecidable damage."""
    folder = Path(str(journal.__file__)).parent / "docs"
    for page, heading in (
        ("RELIABILITY.md", "## What is not promised"),
        ("FORMAT.md", "## What is undecidable"),
    ):
        _, _, rest = (folder / page).read_text().partition(f"\n{heading}\n")
        section, _, _ = rest.partition("\n## ")
        assert tuple(re.findall(r"^ *- \*(\w[^*]+)\.\*", section, re.MULTILINE)) == UNDECIDABLE


def example(variant: Variant, name: str, kind: Kind, description: str) -> str:
    """Return the class of the one damage whose description ends with `description`."""
    [match] = [
        d for d in damages(variant, name, [kind], 1) if d.description.endswith(f", {description}")
    ]
    return judge_of(variant).judge(match.files)


def test_damage_to_the_last_commit_is_undecidable() -> None:
    """P4: A flipped bit in the last frame of a killed journal loses that commit in silence.

    It loses no other commit. After a clean close, no bit is undecidable.
    """
    *_, last = places(judge_of(KILLED).journal.files[LAST])
    middle = f"bit 0 of byte {last.end - 1}"
    assert example(KILLED, LAST, flipped, middle) == LAST_COMMIT
    assert example(CLOSED, LAST, flipped, middle) == REFUSED


def test_unsynced_commits_in_os_mode_are_undecidable() -> None:
    """P4: A flipped bit in the first of two commits after the last sync loses both in silence."""
    first, *_ = places(judge_of(OS_KILLED).journal.files[LAST])
    bit = f"bit 0 of byte {first.end - 1}"
    assert example(OS_KILLED, LAST, flipped, bit) == UNSYNCED
    assert example(OS_CLOSED, LAST, flipped, bit) == REFUSED
    assert example(KILLED, LAST, flipped, bit) == REFUSED


def test_loss_of_the_end_of_the_log_and_its_evidence_is_undecidable() -> None:
    """P4: The end of the log can be lost in silence together with all evidence of it.

    It is cut off, zeroed, lost with its file, or damaged twice: in the last commit and in the mark
    after it.
    """
    undamaged = judge_of(CLOSED).journal.files
    first, last, mark = places(undamaged[LAST])
    zeros = f"zeros from {first.start} to {mark.end}"
    assert example(CLOSED, LAST, truncated, f"cut at {last.start}") == END
    assert example(CLOSED, LAST, zeroed, zeros) == END
    assert judge_of(CLOSED).judge({n: undamaged[n] for n in (*SEGMENTS[:3], OLDER)}) == END
    twice = bytearray(undamaged[LAST])
    twice[last.end - 1] ^= 1
    twice[mark.end - 5] ^= 1
    assert judge_of(CLOSED).judge({**undamaged, LAST: bytes(twice)}) == END


@pytest.mark.parametrize("variant", SMALL_VARIANTS)
def test_a_rolled_back_directory_is_undecidable(variant: str) -> None:
    """P4, P10: A directory that is replaced by an older copy opens as it did then.

    An empty directory opens as a new journal.
    """
    chosen = SMALL_VARIANTS[variant]
    old_directories = [old for old in older_directory(judge_of(chosen).journal) if old.files]
    counts = sweep(chosen, old_directories)
    assert set(counts) <= {OLDER_DIRECTORY, NOTHING_LOST}
    assert counts[OLDER_DIRECTORY] >= 10
    assert recovered({}) == (None, 0)


def test_files_of_a_copy_that_was_written_to_are_undecidable() -> None:
    """P4: A copy of a journal that is written to has the same id and continues in the same epoch.

    Nothing distinguishes its last segment from ours.
    """
    undamaged = judge_of(CLOSED).journal.files
    ends = []
    for value in ("ours", "theirs"):
        disk, record = image(undamaged), [value, 14, ""]
        with open_small(disk) as state:
            state.update(lambda _, record=record: record)  # type: ignore[misc]
        ends.append({name: data for name, data in files(disk).items() if name.endswith(".seg")})
    ours, theirs = ends
    end = max(ours)
    assert ours[end] != theirs[end]
    mixed = {**undamaged, **ours, end: theirs[end]}
    assert findings(mixed) == findings(undamaged)
    with open_small(image(mixed)) as state:
        assert state.machine.table["theirs"]["value"] == 14
    assert FORK in UNDECIDABLE


def test_unreported_damage_loses_nothing() -> None:
    """P4: Damage to bytes after the end, to a mark or to one checkpoint is unreported and
    harmless."""
    undamaged = judge_of(CLOSED).journal.files
    *_, mark = places(undamaged[LAST])
    torn = places(undamaged[SEGMENTS[0]])[-1].end
    assert example(CLOSED, LAST, truncated, f"cut at {mark.start}") == NOTHING_LOST
    assert example(CLOSED, SEGMENTS[0], truncated, f"cut at {torn}") == NOTHING_LOST
    assert example(CLOSED, NEWER, removed, "removed") == NOTHING_LOST
    assert example(CLOSED, OLDER, removed, "removed") == NOTHING_LOST
    assert judge_of(CLOSED).judge({**undamaged, "LOCK": b"nobody reads it"}) == NOTHING_LOST


# --- the complete run, by hand ---


def everything(variant: Variant) -> Iterator[tuple[str, Damaged]]:
    """Yield every damage with its kind's name. A large journal is damaged at every 16th place."""
    every = 1 if variant.size == SMALL else 16
    for kind in (*BYTES, *FILES):
        for name in NAMES:
            for damaged in damages(variant, name, [kind], every):
                yield kind.__name__, damaged
    undamaged = judge_of(variant).journal
    for damaged in several_removed(undamaged):
        yield "several removed", damaged
    for damaged in older_directory(undamaged):
        if damaged.files:
            yield "an older directory", damaged
    for damaged in islice(pairs_of(variant, 2, 7 * every, (*BYTES, removed)), 10_000):
        yield "two at once", damaged


def main(names: list[str]) -> int:
    """Print counts by kind and class. Return 1 if any outcome was not predicted."""
    logging.getLogger("journal").addHandler(logging.NullHandler())  # it logs each damage
    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    for name in names or VARIANTS:
        variant = VARIANTS[name]
        for kind, damaged in everything(variant):
            try:
                counts[kind, judge_of(variant).judge(damaged.files)] += 1
            except AssertionError as error:
                counts[kind, "WRONG"] += 1
                wrong.append(f"{name}: {damaged.description}: {error}")
        print(f"{counts.total()} after {name}", file=sys.stderr)
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{kind:20} {count:8}  {outcome}")
    print(f"{'total':20} {counts.total():8}  {len(wrong)} not as predicted")
    print(*wrong[:20], sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

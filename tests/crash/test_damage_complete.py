"""Damage of every kind, at every place, and what becomes of it: the list of the undecidable is
complete.

Each damage of an enumeration is found: open refuses, with the file, offset and LSN that an
independent reader foretells, and a reader, `verify` and a repair that is not applied say the same;
or `verify` finds it where open can do without what is damaged. What is not found belongs to a class
that RELIABILITY.md names under "What is not promised". Nobody changes anything on disk, but
for what an opening that succeeds may remove or trim.

The suite tries a part of the places; `python -m tests.crash.test_damage_complete` tries all of
them, and counts.
"""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain, islice
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

LAST = SEGMENTS[-1]


class Variant(NamedTuple):
    closed: bool
    durability: Durability = "disk"
    size: Size = SMALL


CLOSED, KILLED = Variant(closed=True), Variant(closed=False)
OS_CLOSED, OS_KILLED = Variant(True, "os"), Variant(False, "os")
SMALL_ONES = {"closed": CLOSED, "killed": KILLED, "os closed": OS_CLOSED, "os killed": OS_KILLED}
LARGE_ONES = {f"large {name}": each._replace(size=LARGE) for name, each in SMALL_ONES.items()}

VARIANTS = SMALL_ONES | LARGE_ONES


@cache
def judge_of(variant: Variant) -> Judge:
    return Judge(journal_that_is(**variant._asdict()))


def damages(variant: Variant, name: str, kinds: Iterable[Kind], every: int) -> Iterator[Damaged]:
    """Those that change anything."""
    undamaged = judge_of(variant).journal
    for kind in kinds:
        for damaged in kind(undamaged, name, every):
            if damaged.files != undamaged.files:
                yield Damaged(f"{name}: {kind.__name__}, {damaged.what}", damaged.files)


def sweep(variant: Variant, damages: Iterable[Damaged]) -> Counter[str]:
    """What became of each. Each is as foretold, the same for everybody, and of a known class."""
    counts: Counter[str] = Counter()
    with quiet():
        for damaged in damages:
            try:
                counts[judge_of(variant).judge(damaged.files)] += 1
            except Exception as error:
                error.add_note(f"{variant}: {damaged.what}")
                raise
    return counts


# --- one at a time ---


@pytest.mark.parametrize("name", NAMES)
def test_a_bit_of_each_byte(name: str) -> None:
    """P4: of a journal that was closed well, no bit loses anything in silence, and `verify` finds
    each that means anything. Of a checkpoint, which has one CRC, a part of the bytes will do."""
    every = 7 if name in SEGMENTS else 61  # prime to 8: a bit of each byte, or of every eighth
    assert END not in sweep(CLOSED, damages(CLOSED, name, [flipped], every))


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_after_each_frame_and_within_it(name: str) -> None:
    """P1, P4: only the last segment may lose in silence, and only what neither a checkpoint nor
    what is left of it testifies to."""
    counts = sweep(CLOSED, damages(CLOSED, name, [truncated], 3 if name in SEGMENTS else 17))
    assert (END in counts) == (name == LAST)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", SMALL_ONES)
def test_damage_to_bytes(variant: str, name: str) -> None:
    """P4: bits, cuts, zeros, garbage, lost writes, bytes too many, spliced frames."""
    every = 48 if variant == "closed" else 128
    kinds = [kind for kind in BYTES if kind is not deleted]
    counts = sweep(SMALL_ONES[variant], damages(SMALL_ONES[variant], name, kinds, every))
    assert counts[REFUSED] + counts[VERIFIED] > 20


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", ["closed", "os killed"])
def test_bytes_that_are_missing(variant: str, name: str) -> None:
    """P4: what follows them has moved, and testifies where it stands now."""
    counts = sweep(SMALL_ONES[variant], damages(SMALL_ONES[variant], name, [deleted], 8))
    assert counts[REFUSED] + counts[VERIFIED] > 20


@pytest.mark.parametrize("name", NAMES)
def test_damage_to_files(name: str) -> None:
    """P4, P10: a file that is gone, older, another journal's, in another's place."""
    kinds = [kind for kind in FILES if kind is not duplicated]
    assert sweep(CLOSED, damages(CLOSED, name, kinds, 1)).total() > 10


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_there_twice(name: str) -> None:
    """P4, P5: under any other name: it makes no other file go. Where it lies in what a checkpoint
    covers and nothing is to go, open does without it, and `verify` tells."""
    assert sweep(CLOSED, damages(CLOSED, name, [duplicated], 1)).total() > 10


def test_loss_of_files() -> None:
    """P4: any set of files, the whole log too, while a checkpoint proves that there was one."""
    counts = sweep(CLOSED, several_removed(judge_of(CLOSED).journal))
    assert not set(counts) - {REFUSED, VERIFIED, END, NOTHING_LOST}
    assert counts[REFUSED] > 20


@pytest.mark.parametrize("variant", LARGE_ONES)
def test_sectors_and_pages(variant: str) -> None:
    """P4: of 512 and 4096 bytes: zeros, garbage, an older content; and cuts at and between them."""
    each = LARGE_ONES[variant]
    kinds = [kind for kind in BYTES if kind.__name__ in ("zeroed", "garbled", "stale")]
    of_sectors = chain.from_iterable(damages(each, name, kinds, 4) for name in SEGMENTS)
    cuts = chain.from_iterable(damages(each, name, [truncated], 509) for name in SEGMENTS)
    counts = sweep(each, chain(of_sectors, cuts))
    assert counts[REFUSED] > 20


# --- two at once ---


def pairs_of(variant: Variant, seed: int, every: int, kinds: Iterable[Kind]) -> Iterator[Damaged]:
    """Without end: one damage, and in another file or further on in the same one a second."""
    undamaged = judge_of(variant).journal
    pool = [d for name in NAMES for d in damages(variant, name, kinds, every)]
    choose = random.Random(seed)
    while True:
        one, other = choose.choice(pool), choose.choice(pool)
        of_one, of_other = (
            changed(undamaged.files, one.files),
            changed(undamaged.files, other.files),
        )
        if not set(of_one) & set(of_other):
            both = {**undamaged.files, **of_one, **of_other}
            contents = {name: data for name, data in both.items() if data is not None}
            yield Damaged(f"{one.what} and {other.what}", contents)


def changed(before: Files, after: Files) -> dict[str, bytes | None]:
    """Files that are not what they were, None for one that is gone."""
    names = before.keys() | after.keys()
    return {name: after.get(name) for name in names if before.get(name) != after.get(name)}


@pytest.mark.parametrize("variant", SMALL_ONES)
def test_two_at_once(variant: str) -> None:
    """P4: a sample: the first of them that matters is named, and no witness overlooked."""
    kinds = [kind for kind in (*BYTES, removed) if kind is not deleted]
    pairs = pairs_of(SMALL_ONES[variant], 1, 31, kinds)
    assert sweep(SMALL_ONES[variant], islice(pairs, 60))[REFUSED] > 20


# --- what is undecidable ---


def test_the_undecidable_is_documented() -> None:
    """P4: RELIABILITY.md names these classes and no others; FORMAT.md the same."""
    folder = Path(str(journal.__file__)).parent / "docs"
    for page, heading in (
        ("RELIABILITY.md", "## What is not promised"),
        ("FORMAT.md", "## What is undecidable"),
    ):
        _, _, rest = (folder / page).read_text().partition(f"\n{heading}\n")
        section, _, _ = rest.partition("\n## ")
        assert tuple(re.findall(r"^ *- \*(\w[^*]+)\.\*", section, re.MULTILINE)) == UNDECIDABLE


def example(variant: Variant, name: str, kind: Kind, what: str) -> str:
    """What becomes of one damage."""
    [found] = [d for d in damages(variant, name, [kind], 1) if d.what.endswith(f", {what}")]
    return judge_of(variant).judge(found.files)


def test_damage_to_the_last_commit_is_undecidable() -> None:
    """P4: it really is undecidable: a bit of the last frame of a killed journal; and no more is
    lost than that commit. After a clean close, no bit is."""
    *_, last = places(judge_of(KILLED).journal.files[LAST])
    middle = f"bit 0 of byte {last.end - 1}"
    assert example(KILLED, LAST, flipped, middle) == LAST_COMMIT
    assert example(CLOSED, LAST, flipped, middle) == REFUSED


def test_unsynced_commits_in_os_mode_are_undecidable() -> None:
    """P4: it really is undecidable: of two commits since the last sync, the first."""
    first, *_ = places(judge_of(OS_KILLED).journal.files[LAST])
    bit = f"bit 0 of byte {first.end - 1}"
    assert example(OS_KILLED, LAST, flipped, bit) == UNSYNCED
    assert example(OS_CLOSED, LAST, flipped, bit) == REFUSED
    assert example(KILLED, LAST, flipped, bit) == REFUSED


def test_loss_of_the_log_end_and_its_witnesses_is_undecidable() -> None:
    """P4: it really is undecidable: cut off, zeroed, gone with its file, or by two damages, to the
    last commit and to the mark behind it."""
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


@pytest.mark.parametrize("variant", SMALL_ONES)
def test_a_rolled_back_directory_is_undecidable(variant: str) -> None:
    """P4, P10: it really is undecidable, as of any moment that had a log; it opens as it did then,
    and so does a directory that is empty: a new journal."""
    each = SMALL_ONES[variant]
    olds = [old for old in older_directory(judge_of(each).journal) if old.files]
    counts = sweep(each, olds)
    assert set(counts) <= {OLDER_DIRECTORY, NOTHING_LOST}
    assert counts[OLDER_DIRECTORY] >= 10
    assert recovered({}) == (None, 0)


def test_files_of_a_copy_that_went_on_by_itself() -> None:
    """P4: it really is undecidable: a copy has the journal's id, and goes on in the same epoch. In
    all that is told, its last segment is as good as ours."""
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
    """P4: these really go unseen, and nothing that means anything is gone: what stands behind the
    end of a segment, a mark, and one of two checkpoints."""
    undamaged = judge_of(CLOSED).journal.files
    *_, mark = places(undamaged[LAST])
    torn = places(undamaged[SEGMENTS[0]])[-1].end
    assert example(CLOSED, LAST, truncated, f"cut at {mark.start}") == NOTHING_LOST
    assert example(CLOSED, SEGMENTS[0], truncated, f"cut at {torn}") == NOTHING_LOST
    assert example(CLOSED, NEWER, removed, "removed") == NOTHING_LOST
    assert example(CLOSED, OLDER, removed, "removed") == NOTHING_LOST
    assert judge_of(CLOSED).judge({**undamaged, "LOCK": b"nobody reads it"}) == NOTHING_LOST


# --- all of them, by hand ---


def everything(variant: Variant) -> Iterator[tuple[str, Damaged]]:
    """Each kind's name, and all its damages; of a large journal every 16th."""
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
    """Counts by kind and by what became of them, of these variants; whether any was not as
    foretold."""
    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    for name in names or VARIANTS:
        variant = VARIANTS[name]
        for kind, damaged in everything(variant):
            try:
                counts[kind, judge_of(variant).judge(damaged.files)] += 1
            except AssertionError as error:
                counts[kind, "WRONG"] += 1
                wrong.append(f"{name}: {damaged.what}: {error}")
        print(f"{counts.total()} after {name}", file=sys.stderr)
    for (kind, became), count in sorted(counts.items()):
        print(f"{kind:20} {count:8}  {became}")
    print(f"{'in all':20} {counts.total():8}  {len(wrong)} not as foretold")
    print(*wrong[:20], sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

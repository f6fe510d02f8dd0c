"""Settling: records that the mirror had before it removed their log are no longer a fork's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from journal import FencedError, Options, Tables
from journal._engine.reappending import reappend
from journal._mirror.entry import BYTES
from journal._mirror.memory_store import MemoryStore
from journal._mirror.reading import read_entry
from journal._names import MIRROR
from tests.mirror.stores import TIMEOUT_S, SilentStore, mirror_of
from tests.support import until

SMALL = Options(segment_bytes=4096)


def tables(path: Path, store: MemoryStore, **choices: Any) -> Tables:
    mirror = mirror_of(store, keep_s=0)
    return Tables.open(path, options=SMALL, mirror=mirror, takeover=True, **choices)


def take_over(path: Path, store: MemoryStore) -> None:
    """Write to the mirror in two more epochs, until it has removed the log before the first."""
    old = {n for n in store.numbers(0) if read_entry(store, n).kind == BYTES}
    for epoch in range(2):
        with tables(path, store) as two:
            for number in range(4):
                two.table("t")["next"] = f"{epoch} {number} " + "x" * 4096
                two.wait_mirrored(timeout_s=TIMEOUT_S)
                two.compact()
    until(lambda: not old.intersection(store.numbers(0)), "it is trimmed", TIMEOUT_S)


def write_unmirrored(path: Path) -> None:
    with Tables.open(path, options=SMALL, mirror=False) as unclaimed:
        unclaimed.table("t")["own"] = 1


def forget_the_claim(path: Path) -> None:
    (path / MIRROR).unlink()


@pytest.mark.parametrize(
    ("late", "change", "records"),
    [
        (0, None, 0),  # everything was in the mirror
        (2, None, 2),  # those that no upload had reached
        (0, write_unmirrored, 1),  # of an epoch that the directory did not claim
        (2, write_unmirrored, 3),
        (0, forget_the_claim, 3),  # of the directory, nothing is known
    ],
)
def test_records_that_were_in_the_mirror_are_not_appended_again(
    late: int, change: Callable[[Path], None] | None, records: int, tmp_path: Path
) -> None:
    """If the mirror has removed the log of a fork, the claims still show which of its records were
    in the mirror. Only the others are reported and appended again."""
    store, path = SilentStore(), tmp_path / "one"
    others = store.reached_by_others()
    with suppress(FencedError), tables(tmp_path / "killed", store) as first:
        for number in range(3):
            first.table("t")[f"mirrored {number}"] = 0
            first.wait_mirrored(timeout_s=TIMEOUT_S)
        store.fall_silent()
        for number in range(late):
            first.table("t")[f"late {number}"] = 0
            first.sync()
        shutil.copytree(tmp_path / "killed", path)
        take_over(tmp_path / "two", others)
        store.answer()
    if change is not None:
        change(path)
    with tables(path, store) as again:
        assert set(again.table("t")) == {"mirrored 0", "mirrored 1", "mirrored 2", "next"}
    (aside,) = tmp_path.glob("one.aside-*")
    assert reappend(aside).records == records


def test_a_damaged_entry_settles_nothing(tmp_path: Path) -> None:
    """If an entry can't be read, it may be the claim that decides. Then all records are reported,
    because none is known to have been in the mirror."""
    store, path = SilentStore(), tmp_path / "one"
    with tables(tmp_path / "first", store) as first:
        first.table("t")["mirrored"] = 0
        first.wait_mirrored(timeout_s=TIMEOUT_S)
        shutil.copytree(tmp_path / "first", path)
    take_over(tmp_path / "two", store)
    store.trim([1])
    store.append(1, b"damaged")
    with tables(path, store):
        pass
    (aside,) = tmp_path.glob("one.aside-*")
    assert reappend(aside).records == 1

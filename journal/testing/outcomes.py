"""The enumeration of all outcomes of a power cut that are legal within bounds.

An outcome is represented by the files that it leaves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate, combinations, product
from math import inf, prod
from typing import NamedTuple

from journal._disk.disk import LOCK, TMP
from journal.testing.arguments import check_tears, check_whole
from journal.testing.medium import Content, Folder, Inode, Medium
from journal.testing.outcome import TEARS, fates


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The extent to which crashes are explored. Raises TypeError or ValueError for a value that is
    no bound.

    The engine never reads a `*.tmp` file, so only two outcomes of its contents are explored: all
    kept and all lost. The contents of LOCK are for people and are ignored.
    """

    outcomes_max: int = 256
    """The number of outcomes up to which every outcome of a crash is explored. If a crash has more,
    only those are explored that differ from "all kept" or from "all lost" in a few unsynced
    changes: in as many as `outcomes_max` allows, at least one and at most `deviations`."""

    recovery_outcomes_max: int = 16
    """The same for a crash during a recovery."""

    deviations: int = 2
    """The maximum number of unsynced changes in which an outcome differs, if not all outcomes are
    explored."""

    tears: Collection[int] = TEARS
    """The numbers of bytes after which a write may be torn. It may also be torn at the first and
    the last sector boundary, and before its last byte."""

    sequels: int = 0
    """The number of different images of which one, on average, has a sequel that is explored (0:
    none): recovery from the image, up to 3 commits, a compaction, a close, and every crash during
    these."""

    rot: int = 0
    """The number of different images of which one, on average, is also recovered with damage to one
    checkpoint, for each of its checkpoints (0: none)."""

    def __post_init__(self) -> None:
        for name in ("outcomes_max", "recovery_outcomes_max", "deviations", "sequels", "rot"):
            check_whole(name, getattr(self, name))
        check_tears(self.tears)


class Fate(NamedTuple):
    """The fates of a file's unsynced changes, by name, and the content that they leave.

    `not_kept` counts the changes whose fate is not "kept", and `not_lost` those whose fate is not
    "lost".
    """

    names: tuple[str, ...]
    not_kept: int
    not_lost: int
    content: Content


@dataclass(frozen=True, slots=True)
class Image:
    """The files that one outcome leaves in a directory. `key` hashes their names and bytes."""

    path: str
    files: dict[str, Content]
    key: bytes
    folder: Folder
    kept: tuple[bool, ...]  # of the folder's unsynced moves
    fates: dict[str, Fate]

    @property
    def medium(self) -> Medium:
        return Medium._holding(self.path, self.files)

    def is_one_in(self, count: int) -> bool:
        """Return True for one image in `count`, on average; for none if `count` is 0.

        The bytes of the image decide, so that it does not matter which images came before:
        `explore(only=...)` leaves those of other crash points out.
        """
        return count > 0 and int.from_bytes(self.key) % count == 0

    def __str__(self) -> str:
        lines = []
        for move, kept in zip(self.folder.unsynced, self.kept, strict=True):
            change = move.as_change("")
            names = change.path[1:] if change.operation != "rename" else f"{move.old} to {move.new}"
            lines.append(f"  {change.operation} {names}: {'kept' if kept else 'lost'}")
        inodes = self.folder.names_if(list(self.kept))
        for name, fate in self.fates.items():
            for (offset, data), result in zip(inodes[name].unsynced, fate.names, strict=False):
                size = f"resize to {offset}" if data is None else f"write {len(data)} at {offset}"
                lines.append(f"  {name}: {size}: {result}")
        lines += [f"  {name}, {content.size} bytes" for name, content in self.files.items()]
        return "\n".join(lines)


def outcomes(folder: Folder, path: str, bounds: Bounds) -> Iterator[Image]:
    """Yield each image of `folder` that a power cut may leave, within `bounds`."""
    most = _deviations(folder, bounds)
    known: dict[tuple[int, bool], list[Fate]] = {}
    for naming in _namings(folder, most):
        files = []
        for name, inode in sorted(naming.names.items()):
            which = id(inode), name.endswith(TMP)
            if name == LOCK:
                files.append([Fate((), 0, 0, Content())])
                continue
            if which not in known:
                known[which] = _all_or_nothing(inode) if which[1] else content_fates(inode, bounds)
            files.append(known[which])
        for combination in _combinations(files, naming.not_kept, naming.not_lost, most):
            fates_by_name = dict(zip(sorted(naming.names), combination, strict=True))
            digest = blake2b(digest_size=16)
            for name, fate in fates_by_name.items():
                digest.update(name.encode() + b"/" + fate.content.digest)
            contents = {name: fate.content for name, fate in fates_by_name.items()}
            yield Image(path, contents, digest.digest(), folder, naming.kept, fates_by_name)


class _Naming(NamedTuple):
    """One set of names that a power cut may leave, and the moves that are kept for it.

    Several subsets of the moves may give the same names. `not_kept` and `not_lost` are the smallest
    numbers of lost and of kept moves among them.
    """

    names: dict[str, Inode]
    kept: tuple[bool, ...]
    not_kept: int
    not_lost: int


def _namings(folder: Folder, most: float) -> Iterable[_Naming]:
    namings: dict[tuple[tuple[str, int], ...], _Naming] = {}
    for kept in _subsets(len(folder.unsynced), most):
        names = folder.names_if(list(kept))
        naming = _Naming(names, kept, kept.count(False), kept.count(True))
        key = tuple(sorted((name, id(inode)) for name, inode in names.items()))
        older = namings.get(key, naming)
        namings[key] = older._replace(
            not_kept=min(older.not_kept, naming.not_kept),
            not_lost=min(older.not_lost, naming.not_lost),
        )
    return namings.values()


def fingerprint(folder: Folder | None) -> bytes:
    """Return a hash of the folder: if two are equal, crashes leave the same images of both."""
    digest, numbers = blake2b(digest_size=16), dict[int, int]()
    if folder is None:
        return b""

    def add(*parts: object) -> None:
        digest.update(repr(parts).encode())

    def number(inode: Inode) -> int:
        if id(inode) not in numbers:
            numbers[id(inode)] = len(numbers)
            add(inode.now.digest, inode.stable.digest, inode.unsynced)
        return numbers[id(inode)]

    for names in (folder.now, folder.stable):
        for name, inode in names.items():
            add(name, name != LOCK and number(inode))
    for inode, old, new, is_link in folder.unsynced:
        add(LOCK not in (old, new) and number(inode), old, new, is_link)
    return digest.digest()


def content_fates(inode: Inode, bounds: Bounds) -> list[Fate]:
    """Return the contents of a file that a power cut may leave, each with its fates."""
    if not inode.unsynced:
        return [Fate((), 0, 0, inode.stable)]
    most = _allowed(_widths(inode, bounds), bounds)
    results = {b"": Fate((), 0, 0, inode.stable)}
    for offset, data in inode.unsynced:
        extended: dict[bytes, Fate] = {}
        for before in results.values():
            change = inode.change("", before.content, offset, data)
            for name, stored in fates(change, bounds.tears).items():
                counts = before.not_kept + (name != "kept"), before.not_lost + (name != "lost")
                if min(counts) > most:
                    continue
                content = before.content
                if stored is not None and (data is None or stored):
                    content = content.copy()
                    content.apply(offset, None if data is None else stored)
                fate = Fate((*before.names, name), *counts, content)
                older = extended.setdefault(content.digest, fate)
                if older is not fate:
                    not_kept, not_lost = map(min, older[1:3], counts)
                    extended[content.digest] = older._replace(not_kept=not_kept, not_lost=not_lost)
        results = extended
    return list(results.values())


def _all_or_nothing(inode: Inode) -> list[Fate]:
    count = len(inode.unsynced)
    kept = Fate(("kept",) * count, 0, count, inode.now.copy())
    lost = Fate(("lost",) * count, count, 0, inode.stable.copy())
    return [kept, lost] if count else [kept]


def _deviations(folder: Folder, bounds: Bounds) -> float:
    """Return in how many changes an outcome may differ from "all kept" or from "all lost"."""
    widths = [2] * len(folder.unsynced)
    seen: set[int] = set()
    for name, inode in (*folder.now.items(), *folder.stable.items()):
        if name != LOCK and inode.unsynced and id(inode) not in seen:
            seen.add(id(inode))
            widths += [2] if name.endswith(TMP) else _widths(inode, bounds)
    return _allowed(widths, bounds)


def _widths(inode: Inode, bounds: Bounds) -> list[int]:
    """Return the number of fates of each unsynced change of a file."""
    changes = (inode.change("", inode.stable, *change) for change in inode.unsynced)
    return [len(fates(change, bounds.tears)) for change in changes]


def _allowed(widths: list[int], bounds: Bounds) -> float:
    """Return the number of deviations that `outcomes_max` allows.

    `widths` are the numbers of fates of the changes. The result is infinite if all combinations are
    allowed.
    """
    if prod(widths) <= bounds.outcomes_max:
        return inf
    # counts[n] is the number of outcomes that differ from "all kept" in exactly n changes.
    counts = [1] + [0] * bounds.deviations
    for width in widths:
        for size in range(bounds.deviations, 0, -1):
            counts[size] += counts[size - 1] * (width - 1)
    allowed = [
        size for size, total in enumerate(accumulate(counts)) if 2 * total <= bounds.outcomes_max
    ]
    return max([1, *allowed])


def _subsets(count: int, most: float) -> Iterator[tuple[bool, ...]]:
    """Yield which of `count` moves are kept, if at most `most` are lost or at most `most` kept."""
    if most >= count:
        yield from product((True, False), repeat=count)
        return
    for base in (True, False):
        for size in range(int(most) + 1):
            for others in combinations(range(count), size):
                yield tuple(base != (index in others) for index in range(count))


def _combinations(
    files: list[list[Fate]], not_kept: int, not_lost: int, most: float
) -> Iterator[tuple[Fate, ...]]:
    """Yield combinations of one fate per file, with at most `most` changes not kept or not lost.

    `files` are the possible fates of each file. `not_kept` and `not_lost` count the changes of the
    files and moves before these.
    """
    if min(not_kept, not_lost) > most:
        return
    if not files:
        yield ()
        return
    for fate in files[0]:
        rest = _combinations(files[1:], not_kept + fate.not_kept, not_lost + fate.not_lost, most)
        yield from ((fate, *others) for others in rest)

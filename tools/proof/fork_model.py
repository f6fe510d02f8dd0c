"""A model of directories that come back to their mirror, which `proof.mirror` searches.

The other model shows that one writer at a time owns the mirror's log. This one takes that for
granted, and looks at the records. It models:

- Writers that claim, append, upload and compact, and are killed at any time. An upload may be a
  part of what is synced. A writer that was overtaken goes on until its next upload.
- Openings without a claim: one that goes on without the mirror, and one that can't reach it, and
  claims it at the first contact.
- A mirror that removes old records, but keeps the claims; and bases, when a writer's records are
  gone before they are uploaded.
- Older copies of a directory, which are opened in its place or beside it.
- Followers, which may be killed before they have noted what they got.
- Claims that arrive so late that their number is free again, and never stand.
- Damage to a segment while the directory is closed. The mirror's copy takes its place.

Each opening compares as the code does: bytes that the mirror shows, its note, its marker, and the
claims. A record has a segment of its own, and a note may be lost. The directories are alike, and
are numbered anew after each step. The model knows no torn tails, no repairs, no damage that
a checkpoint covers, and no clone of a running process, whose two writers have one epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from proof.fork_states import NOTHING, Claim, Damaged, Forgetting, ForkModel, Home, Record, World
from proof.search import BrokenPromiseError

Step = tuple[str, World]


class Compared(NamedTuple):
    """The result of a comparison: the verdict, and the LSNs of the directory's records that the
    mirror has, or had."""

    verdict: Literal["equal", "behind", "ahead", "forked"]
    common: frozenset[int]


def steps(world: World, model: ForkModel) -> Iterator[Step]:
    """Yield each step that may happen next."""
    for at in range(len(world.homes)):
        yield from _Turn(world, model, at).steps()
    if (lsn := min(world.stated, len(world.log) - 1)) > world.trimmed:
        yield f"the mirror removes what is before LSN {lsn + 1}", world._replace(trimmed=lsn)
    if world.late is not None and world.late.is_stray:
        claims = (*world.claims, world.late)
        yield "the late claim arrives", world._replace(claims=claims, late=None)


class _Turn:
    """The steps of one directory."""

    def __init__(self, world: World, model: ForkModel, at: int) -> None:
        self._world = world
        self._weakening = model.weakening
        self._at = at
        self._home = world.homes[at]
        self._may_change = world.written + world.made < model.changes
        self._may_damage = world.damages < model.damages

    def steps(self) -> Iterator[Step]:
        home, world = self._home, self._world
        if not home.mode:
            yield from self._open()
            yield from self._copy()
            if self._may_damage and home.damaged == NOTHING:
                yield from self._damage()
            return
        yield self._become("is killed", home._replace(mode="", own_epoch=0))
        if (begin := len(home.log) - 1) > home.begin:
            damaged = home.damaged if home.damaged.lsn > begin else NOTHING
            compacted = home._replace(begin=begin, damaged=damaged)
            yield self._become(f"compacts up to LSN {begin}", compacted)
        if home.mode == "follower":
            if len(home.log) < len(world.log):
                more = _fetched(home, world)._replace(epoch=max(home.epoch, _claimed(world)))
                yield self._become("gets more", more)
            return
        if self._may_change:
            yield self._append("appends", home)
        if home.mode == "late" and home.is_last and self._may_change:
            yield from self._attach_late()
        if home.mode == "mirrored" and home.is_last:
            yield from self._upload()

    def _append(self, label: str, home: Home) -> Step:
        written = self._world.written
        log = (*home.log, Record(written, home.own_epoch))
        after = self._world._replace(written=written + 1)
        return self._become(f"{label} LSN {len(log)}", home._replace(log=log), after)

    # --- opening ---

    def _open(self) -> Iterator[Step]:
        home, world = self._home, self._world
        if self._may_change:
            claimed, claim = self._claim()
            home = home._replace(is_last=True)
            yield self._become("claims, and is killed", home, claimed)
            for attached in self._attach(home, claimed):
                yield self._become(f"claims epoch {claim.epoch}", attached, claimed)
            if world.late is None:
                yield "a claim is delayed", world._replace(late=claim, made=world.made + 1)
        if home.epoch and self._may_change:
            yield from self._open_unclaimed()
        if world.log:
            yield from self._follow()

    def _claim(self) -> tuple[World, Claim]:
        """Return the world after the directory's claim, which stands."""
        world, home = self._world, self._home
        epochs = home.epoch, home.own_epoch - 1, _epoch(home), _claimed(world)
        claim = Claim(max(epochs) + 1, world.stated)
        homes = tuple(home._replace(is_last=False) for home in world.homes)
        late = world.late if world.late and world.late.is_stray else None
        claims = (*world.claims, claim)
        if self._weakening is Forgetting.CLAIMS_TRIMMED:
            claims = (claim,)
        made = world.made + 1
        return world._replace(homes=homes, claims=claims, late=late, made=made), claim

    def _attach(self, home: Home, world: World) -> Iterator[Home]:
        for noted in notes(home, world):
            compared = compare(home, world, noted, self._weakening)
            attached = home
            check_fixed(home, world, noted, self._weakening)
            if compared.verdict == "forked":
                common = compared.common | settled(home, world, self._weakening)
                check_common(home, world, common)
                attached = home._replace(log=(), begin=0, damaged=NOTHING)
            else:
                attached = _fixed(home, world)
                if attached.is_damaged:
                    continue  # it is refused
                check_accepted(attached, world)
            yield self._standing(_fetched(attached, world), world.claims[-1])

    def _standing(self, home: Home, claim: Claim) -> Home:
        return home._replace(
            epoch=claim.epoch,
            unclaimed=-1,
            mode="mirrored",
            own_epoch=claim.epoch,
        )

    def _open_unclaimed(self) -> Iterator[Step]:
        home = self._home
        if home.is_damaged:
            if home.damaged.lsn < len(home.log):
                return  # it is refused
            home = home._replace(log=home.log[:-1])  # it looks like a torn tail
        unclaimed = home.unclaimed if home.unclaimed >= 0 else len(home.log)
        if self._weakening is Forgetting.UNCLAIMED_UNNOTED:
            unclaimed = -1
        epoch = _epoch(home) + 1  # a directory without its mirror does not look at the marker
        home = home._replace(unclaimed=unclaimed, mode="alone", own_epoch=epoch)
        yield self._append("opens without its mirror, and appends", home)
        if home.is_last:
            epoch = max(epoch, home.epoch + 1)
            late = home._replace(mode="late", own_epoch=epoch)
            yield self._append("can't reach the mirror, and appends", late)

    def _attach_late(self) -> Iterator[Step]:
        claimed, claim = self._claim()
        home = self._home._replace(is_last=True)
        for noted in notes(home, claimed):
            compared = compare(home, claimed, noted, self._weakening)
            if compared.verdict in ("behind", "forked"):
                ended = home._replace(mode="", own_epoch=0)
                yield self._become("claims, and has diverged", ended, claimed)
            else:
                check_accepted(home, claimed)
                standing = self._standing(home, claim)._replace(own_epoch=home.own_epoch)
                yield self._become(f"claims epoch {claim.epoch} late", standing, claimed)

    def _follow(self) -> Iterator[Step]:
        home, world = self._home, self._world
        for noted in notes(home, world):
            compared = compare(home, world, noted, self._weakening)
            if compared.verdict in ("ahead", "forked"):
                common = compared.common | settled(home, world, self._weakening)
                check_common(home, world, common)
                if len(common) < len(home.log) - home.begin:
                    continue  # it is refused, or put aside
            fixed = _fixed(home, world)
            if fixed.is_damaged:
                continue  # it is refused
            check_accepted(fixed, world)
            following = _fetched(fixed, world)._replace(
                epoch=max(home.epoch, _claimed(world)), unclaimed=-1, mode="follower"
            )
            yield self._become("follows", following)

    def _copy(self) -> Iterator[Step]:
        for at, home in enumerate(self._world.homes):
            if at != self._at and home.log and home != self._home:
                copied = home._replace(mode="", own_epoch=0)
                yield self._become(f"becomes a copy of directory {at}", copied)

    def _damage(self) -> Iterator[Step]:
        home, after = self._home, self._world._replace(damages=self._world.damages + 1)
        for lsn in range(home.begin + 1, len(home.log) + 1):
            damaged = Damaged(lsn, home.log[lsn - 1].epoch)
            yield self._become(f"is damaged at LSN {lsn}", home._replace(damaged=damaged), after)

    # --- uploading ---

    def _upload(self) -> Iterator[Step]:
        home, world = self._home, self._world
        late = world.late._replace(is_stray=True) if world.late else None
        size = len(world.log)
        if home.begin > size:
            base = world._replace(log=home.log, trimmed=home.begin, stated=len(home.log), late=late)
            yield self._become("puts a base", home, base)
        elif size < len(home.log):
            after = world._replace(log=home.log[: size + 1], late=late)
            if size + 1 == len(home.log):
                yield self._become("uploads", home, after._replace(stated=size + 1))
                return
            stated = world.stated
            if self._weakening is Forgetting.PART_STATED:
                stated = len(home.log)
            yield self._become("uploads a part", home, after._replace(stated=stated))

    def _become(self, label: str, home: Home, world: World | None = None) -> Step:
        world = self._world if world is None else world
        others = (*world.homes[: self._at], *world.homes[self._at + 1 :])
        homes = tuple(sorted((home, *others)))  # they are alike
        return f"directory {self._at} {label}", world._replace(homes=homes)


def _epoch(home: Home) -> int:
    """Return the highest epoch of the segments that the directory still has."""
    return max(home.damaged.epoch, *(record.epoch for record in home.log[home.begin :]), 0)


def _claimed(world: World) -> int:
    """Return the epoch of the last claim that stands."""
    return max((claim.epoch for claim in world.claims if not claim.is_stray), default=0)


def _fetched(home: Home, world: World) -> Home:
    """Return the directory with all records that the mirror has."""
    if len(home.log) >= len(world.log):
        return home
    begin = home.begin if len(home.log) >= world.trimmed and home.log else world.trimmed
    return home._replace(log=world.log, begin=begin)


def _fixed(home: Home, world: World) -> Home:
    """Return the directory with the mirror's copy in the place of the damaged segment."""
    lsn, epoch = home.damaged
    shown = world.log[lsn - 1 : lsn] if lsn > world.trimmed else ()
    if not lsn or [record.epoch for record in shown] != [epoch]:
        return home
    log = home.log
    if home.is_damaged:
        log = (*log[: lsn - 1], *shown, *log[lsn:])
    return home._replace(log=log, damaged=NOTHING)


# --- the rules ---


def notes(home: Home, world: World) -> set[int]:
    """Return the LSNs up to which the directory's note may state what the mirror has. It is never
    wrong, but it may be old or lost."""
    common = 0
    for own, mirrored in zip(home.log, world.log, strict=False):
        if own != mirrored or (home.is_damaged and common + 1 == home.damaged.lsn):
            break
        common += 1
    return {0, common}


def compare(home: Home, world: World, noted: int, weakening: Forgetting | None) -> Compared:
    """Compare a directory with what the mirror still shows."""
    own = frozenset(range(home.begin + 1, len(home.log) + 1))
    common = {lsn for lsn in own if lsn <= noted}
    is_lacking, is_differing = 0 <= home.unclaimed < world.stated, False
    for lsn in range(max(noted, world.trimmed) + 1, len(world.log) + 1):
        record = world.log[lsn - 1]
        if lsn <= home.begin:
            is_covered = not home.epoch or record.epoch <= home.epoch
            is_lacking |= not is_covered and weakening is not Forgetting.COVERS_LATER_EPOCHS
        elif home.damaged == (lsn, record.epoch):
            is_fixed = home.is_damaged or weakening is Forgetting.CUT_FIXED
            is_differing |= not is_fixed or weakening is Forgetting.DAMAGE_DIFFERS
            common |= {lsn} if home.is_damaged else set()
        elif lsn > len(home.log) or home.log[lsn - 1].epoch != record.epoch:
            is_lacking = True
        elif home.log[lsn - 1] == record:
            common.add(lsn)
        else:
            is_differing |= weakening is not Forgetting.DIFFERING_ACCEPTED
    is_ahead = common < own
    verdict: Literal["equal", "behind", "ahead", "forked"] = "ahead" if is_ahead else "equal"
    if is_differing or (is_lacking and is_ahead and world.log):
        verdict = "forked"
    elif is_lacking:
        verdict = "behind"
    return Compared(verdict, frozenset(common))


def settled(home: Home, world: World, weakening: Forgetting | None) -> frozenset[int]:
    """Return the LSNs of records that the mirror no longer shows, and of which the claims show that
    it had them."""
    if weakening is Forgetting.SHOWN_ONLY:
        return frozenset()
    settled = set[int]()
    for lsn in range(home.begin + 1, min(world.trimmed, len(home.log)) + 1):
        epoch = home.log[lsn - 1].epoch
        if epoch > home.epoch:
            continue
        after = epoch if weakening is Forgetting.EACH_EPOCH_SETTLES else home.epoch
        had = _lsn_after(world, after, weakening)
        if home.unclaimed >= 0:
            had = min(had, home.unclaimed)
        if lsn <= had:
            settled.add(lsn)
    return frozenset(settled)


def _lsn_after(world: World, epoch: int, weakening: Forgetting | None) -> int:
    """Return the LSN that the first claim of a higher epoch states. Without one, the mirror's last
    entry states it."""
    later = [claim for claim in world.claims if claim.epoch > epoch]
    if not later:
        return world.stated
    pick = max if weakening is Forgetting.LAST_CLAIM_SETTLES else min
    first = pick(claim.epoch for claim in later)
    lsns = [claim.lsn for claim in later if claim.epoch == first]
    return min(lsns) if weakening is Forgetting.STRAY_SETTLES else max(lsns)


# --- the promises ---


def check_fixed(home: Home, world: World, noted: int, weakening: Forgetting | None) -> None:
    """Raise BrokenPromiseError if damage to a record that the mirror has changes what becomes of
    the directory: its other records would no longer be in the state."""
    lsn = home.damaged.lsn
    mirrored = world.log[lsn - 1 : lsn] if world.trimmed < lsn else ()
    if not home.is_damaged or home.log[lsn - 1 : lsn] != mirrored:
        return
    damaged = compare(home, world, noted, weakening).verdict
    whole = compare(home._replace(damaged=NOTHING), world, noted, weakening).verdict
    if damaged != whole:
        raise BrokenPromiseError(f"damage makes a directory {damaged}, not {whole}")


def check_common(home: Home, world: World, common: frozenset[int]) -> None:
    """Raise BrokenPromiseError if a record counts as mirrored that the mirror never had; or if one
    does not that the mirror has acknowledged to the claim that the directory knows."""
    standing = [claim for claim in world.claims if not claim.is_stray and claim.epoch > home.epoch]
    strays = [claim.epoch for claim in world.claims if claim.is_stray and claim.epoch > home.epoch]
    acknowledged = standing[0].lsn if standing else world.stated
    is_misled = bool(strays) and (not standing or min(strays) < standing[0].epoch)
    for lsn in range(home.begin + 1, len(home.log) + 1):
        if home.is_damaged and lsn == home.damaged.lsn:
            continue  # only the damage can lose it
        record = home.log[lsn - 1]
        is_mirrored = world.log[lsn - 1 : lsn] == (record,)
        if lsn in common and not is_mirrored:
            raise BrokenPromiseError(f"LSN {lsn} counts as mirrored, and never was: it is lost")
        is_known = record.epoch <= home.epoch and not 0 <= home.unclaimed < lsn
        is_due = is_mirrored and is_known and lsn <= acknowledged and not is_misled
        if is_due and lsn not in common:
            raise BrokenPromiseError(f"LSN {lsn} was mirrored, and would be appended again")


def check_accepted(home: Home, world: World) -> None:
    """Raise BrokenPromiseError if a directory is accepted that has other records than the
    mirror."""
    size = min(len(home.log), len(world.log))
    if home.log[:size] != world.log[:size]:
        raise BrokenPromiseError("a fork is accepted: records that the mirror has are lost")

"""Plan: the half of the recovery rule that reads no records.

From the names of the segments and the checkpoints that verify, a plan derives which checkpoint an
open takes, which segments it reads, and whether it refuses before it reads a record. Recovery
follows a plan; the other half of the rule is the walk over the segments. A reader that rebuilds a
state also asks a plan where to begin. Source: journal/docs/FORMAT.md, "Recovery".
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Generic, TypeVar

from journal._format.checkpoint import CHECKPOINTS_KEPT_MIN, Checkpoint
from journal._format.layout import EPOCH_MAX
from journal._format.segment import SegmentName, segments_after
from journal._recovery.walk import describe_lsns
from journal.errors import CorruptionError, DamageReason

if TYPE_CHECKING:
    from journal._format.segment_info import SegmentInfo

S = TypeVar("S", SegmentName, "SegmentInfo")


class Plan(Generic[S]):
    """A plan of what an open takes and reads.

    An open takes the newest of `checkpoints`, at `base_lsn` (0: there is none), and then reads the
    `segments`, oldest first. `last_epoch` is the highest epoch in use.

    A plan is made from the segments in the directory `path`, in the order of the log, and from the
    checkpoints that verify, newest first. An open reads and judges only as many of these as it
    keeps, the `kept` newest ones; it does not read older ones, because it will remove them.
    """

    def __init__(
        self,
        path: str,
        segments: Sequence[S],
        checkpoints: Sequence[Checkpoint],
        kept: int = CHECKPOINTS_KEPT_MIN,
    ) -> None:
        self.checkpoints = checkpoints
        self._judged = checkpoints[:kept]
        self.base_lsn = checkpoints[0].lsn if checkpoints else 0
        self.segments: list[S] = segments_after(segments, self.base_lsn)
        self._path = path
        self._begins_at_lsn = segments[0].first_lsn if segments else 1
        used = {checkpoint.path: checkpoint.epoch for checkpoint in self._judged}
        used |= {
            f"{path}/{SegmentName(segment.first_lsn, segment.epoch)}": segment.epoch
            for segment in segments
        }
        self._last_in_use, self.last_epoch = max(used.items(), key=itemgetter(1), default=("", 0))

    @property
    def agreed_id(self) -> str | None:
        """The journal's id, if all checkpoints that an open reads agree on it, and there are at
        least two. Two checkpoints outweigh one segment."""
        ids = {checkpoint.journal_id for checkpoint in self._judged}
        return ids.pop() if len(ids) == 1 < len(self._judged) else None

    def check(self, journal_id: str) -> None:
        """Raise CorruptionError if the log begins too late, or if a checkpoint belongs to another
        journal than the segments, whose id is `journal_id`."""
        if missing := self.missing():
            raise missing
        if foreign := self.foreign_to(journal_id):
            raise foreign

    def missing(self) -> CorruptionError | None:
        """Return an error if the log begins after the records that the newest checkpoint holds."""
        return missing_before(self._path, self.segments, self.base_lsn)

    def foreign_to(self, journal_id: str | None) -> CorruptionError | None:
        """Return an error if a checkpoint that an open reads belongs to another journal than
        `journal_id` (None: any)."""
        return foreign_to(journal_id, self._judged)

    def exhausted(self) -> CorruptionError | None:
        """Return an error if the highest epoch in use leaves none for a new writer."""
        if self.last_epoch < EPOCH_MAX:
            return None
        problem = f"epoch {self.last_epoch} leaves no epoch to follow; no journal grows that far"
        place, reason = (self._last_in_use, 0, self.base_lsn + 1), DamageReason.NUMBERS_EXHAUSTED
        return CorruptionError(*place, problem, reason=reason)

    def base(self, at: int | None = None, *, oldest: bool = False) -> Checkpoint | None:
        """Return the checkpoint from which to rebuild the state as of LSN `at` (None: the end of
        the log). Return None if the state is rebuilt from nothing.

        `oldest`: instead of the newest checkpoint, return the oldest one from which the log
        continues, so that as much of the log as possible follows it. Return None if the log still
        has its beginning.
        """
        candidates = self._starting_points()[::-1] if oldest else self.checkpoints
        return next(
            (checkpoint for checkpoint in candidates if at is None or checkpoint.lsn <= at), None
        )

    @property
    def first_state_lsn(self) -> int:
        """The first LSN as of which a state can be rebuilt, or 0 if there is none."""
        if self._begins_at_lsn == 1:
            return 1
        return min((checkpoint.lsn for checkpoint in self._starting_points()), default=0)

    def _starting_points(self) -> list[Checkpoint]:
        """Return the checkpoints from which the log continues, newest first. There are none if the
        log still has its beginning."""
        begins_at = self._begins_at_lsn
        return [
            checkpoint for checkpoint in self.checkpoints if checkpoint.lsn + 1 >= begins_at > 1
        ]


def missing_before(path: str, segments: Sequence[S], base_lsn: int) -> CorruptionError | None:
    """Return an error if the `segments` in the directory `path` begin after the records that the
    checkpoint at `base_lsn` holds. Otherwise return None."""
    needed = segments_after(segments, base_lsn)
    if not needed or needed[0].first_lsn <= base_lsn + 1:
        return None
    first = SegmentName(needed[0].first_lsn, needed[0].epoch)
    place, last_lsn = (f"{path}/{first}", 0, base_lsn + 1), first.first_lsn - 1
    problem = f"the log begins here, so {describe_lsns(base_lsn + 1, last_lsn)} can't be read"
    reason = DamageReason.BEGINNING_MISSING
    return CorruptionError(*place, problem, reason=reason, last_lsn=last_lsn)


def foreign_to(journal_id: str | None, checkpoints: Sequence[Checkpoint]) -> CorruptionError | None:
    """Return an error for the first of `checkpoints` that belongs to another journal than
    `journal_id` (None: any). Return None if all belong to that one."""
    for checkpoint in checkpoints:
        if journal_id not in (None, checkpoint.journal_id):
            other_id, reason = checkpoint.journal_id, DamageReason.FOREIGN
            problem = f"this is a checkpoint of another journal, {other_id}"
            place = checkpoint.path, 0, checkpoint.lsn
            return CorruptionError(*place, problem, reason=reason, journal_id=other_id)
    return None

"""Plan: what an open takes and reads, and why it would refuse before it reads a record.

This half of the rule needs no more than the names of segments and the checkpoints that verify.
Recovery follows a plan; the other half of the rule is the walk over the segments. Readers, which
rebuild a state from outside, ask where it begins. Source: journal/docs/FORMAT.md, "Recovery".
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Generic, TypeVar

from journal._format.checkpoint import CHECKPOINTS_KEPT_MIN, Checkpoint
from journal._format.layout import EPOCH_MAX
from journal._format.segment import SegmentName, segments_after
from journal.errors import CorruptionError, DamageReason

if TYPE_CHECKING:
    from journal._format.segment_info import SegmentInfo

S = TypeVar("S", SegmentName, "SegmentInfo")


class Plan(Generic[S]):
    """The checkpoint that an open takes, the newest of `checkpoints`, at `base_lsn` (0: there is
    none), the `segments` that it goes on with, oldest first, and the highest epoch in use.

    A plan is made of the segments in the directory `path`, in the order of the log, and of the
    checkpoints that verify, newest first. An open judges by the `kept` newest of these, as many as
    it keeps: it does not read older ones, which it will remove.
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
        """The journal's id, if two checkpoints agree on it: they know better than one segment."""
        ids = {checkpoint.journal_id for checkpoint in self._judged}
        return ids.pop() if len(ids) == 1 < len(self._judged) else None

    def check(self, journal_id: str) -> None:
        """Raise CorruptionError if the log begins too late, or a checkpoint is of another journal
        than the segments, `journal_id`."""
        if missing := self.missing():
            raise missing
        if foreign := self.foreign_to(journal_id):
            raise foreign

    def missing(self) -> CorruptionError | None:
        """Return the error of a log that begins after what the newest checkpoint holds, if it
        does."""
        return missing_before(self._path, self.segments, self.base_lsn)

    def foreign_to(self, journal_id: str | None) -> CorruptionError | None:
        """Return the error of a checkpoint that an open reads and that is of another journal than
        `journal_id` (None: not known), if there is one."""
        return foreign_to(journal_id, self._judged)

    def exhausted(self) -> CorruptionError | None:
        """Return the error of a log whose highest epoch leaves none for a writer, if it does."""
        if self.last_epoch < EPOCH_MAX:
            return None
        what = f"epoch {self.last_epoch}: no journal gets so far, and none could follow it"
        place, reason = (self._last_in_use, 0, self.base_lsn + 1), DamageReason.NUMBERS_EXHAUSTED
        return CorruptionError(*place, what, reason=reason)

    def base(self, at: int | None = None, *, oldest: bool = False) -> Checkpoint | None:
        """Return the checkpoint from which to rebuild the state as of `at` (None: the end).

        None: from nothing. `oldest`: the first one that the log goes on from, if it has lost its
        beginning, so that as much as can be of the log follows.
        """
        candidates = self._starting_points()[::-1] if oldest else self.checkpoints
        return next(
            (checkpoint for checkpoint in candidates if at is None or checkpoint.lsn <= at), None
        )

    @property
    def first_state_lsn(self) -> int:
        """The first LSN as of which a state can be rebuilt; 0 if there is none."""
        if self._begins_at_lsn == 1:
            return 1
        return min((checkpoint.lsn for checkpoint in self._starting_points()), default=0)

    def _starting_points(self) -> list[Checkpoint]:
        """The checkpoints that the log goes on from; none if it can do without."""
        begins_at = self._begins_at_lsn
        return [
            checkpoint for checkpoint in self.checkpoints if checkpoint.lsn + 1 >= begins_at > 1
        ]


def missing_before(path: str, segments: Sequence[S], base_lsn: int) -> CorruptionError | None:
    """Return the error of a log whose `segments`, those in the directory `path`, begin after what
    the checkpoint at `base_lsn` holds; None if they do not."""
    needed = segments_after(segments, base_lsn)
    if not needed or needed[0].first_lsn <= base_lsn + 1:
        return None
    first = SegmentName(needed[0].first_lsn, needed[0].epoch)
    what = f"the log begins here, what follows LSN {base_lsn} is missing"
    reason = DamageReason.BEGINNING_MISSING
    return CorruptionError(f"{path}/{first}", 0, base_lsn + 1, what, reason=reason)


def foreign_to(journal_id: str | None, checkpoints: Sequence[Checkpoint]) -> CorruptionError | None:
    """Return the error of the first of `checkpoints` that is of another journal than `journal_id`
    (None: it is not known whose they have to be); None if all are of that one."""
    for checkpoint in checkpoints:
        if journal_id not in (None, checkpoint.journal_id):
            its_id = checkpoint.journal_id
            what = f"a checkpoint of another journal, {its_id}"
            place = checkpoint.path, 0, checkpoint.lsn
            return CorruptionError(*place, what, reason=DamageReason.FOREIGN, journal_id=its_id)
    return None

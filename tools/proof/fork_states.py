"""The states of a model of directories and their mirror: what each holds, and the truth."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple


class Forgetting(Enum):
    """A clause that can be removed from the comparison with a mirror. Its value is the weakened
    behavior."""

    COVERS_LATER_EPOCHS = "a checkpoint covers also what a later writer has put into the mirror"
    UNCLAIMED_UNNOTED = "an opening without a claim does not note where it begins"
    PART_STATED = "an entry with a part of what is synced states all of it"
    LAST_CLAIM_SETTLES = "the last claim settles, and not the first one of a higher epoch"
    EACH_EPOCH_SETTLES = "the directory's own later claim settles its earlier epochs"
    STRAY_SETTLES = "of two claims of an epoch, the one that states less settles"
    CLAIMS_TRIMMED = "claims are trimmed, too"
    SHOWN_ONLY = "only what the mirror's log still shows counts as mirrored"
    DIFFERING_ACCEPTED = "a directory that is ahead may differ from the mirror"
    DAMAGE_DIFFERS = "damaged bytes count as other records than the mirror's"
    CUT_FIXED = "damage is fixed although the directory goes on there with other records"


@dataclass(frozen=True)
class ForkModel:
    """The parameters of a search: a weakening if any, and the bounds."""

    weakening: Forgetting | None = None
    directories: int = 2
    changes: int = 6  # records that are appended and claims that are made, together
    damages: int = 1  # segments that are damaged, in all directories


class Record(NamedTuple):
    """A record. `epoch` names its segment: each record has one of its own."""

    identity: int
    epoch: int


class Claim(NamedTuple):
    """A claim: its epoch, and the LSN that it states.

    `is_stray`: it landed at a number that was free again, and never stood. No process knows that.
    """

    epoch: int
    lsn: int
    is_stray: bool = False


class Damaged(NamedTuple):
    """The segment of a record, by its name. LSN 0: none."""

    lsn: int
    epoch: int


NOTHING = Damaged(0, 0)


class Home(NamedTuple):
    """A directory, and the process that has it open.

    log: all records that led to its state. begin: the LSN up to which it has compacted them.
    epoch, unclaimed: of its marker; `unclaimed` is -1 for none. is_last: True if its marker has the
    writer of the mirror's last claim. mode: how it is open. own_epoch: the epoch of the process.
    damaged: a segment of which no frame is intact. If it was the last one, an opening without the
    mirror cuts it off, and leaves it there.
    """

    log: tuple[Record, ...] = ()
    begin: int = 0
    epoch: int = 0
    is_last: bool = False
    unclaimed: int = -1
    mode: Literal["", "mirrored", "late", "alone", "follower"] = ""
    own_epoch: int = 0
    damaged: Damaged = NOTHING

    @property
    def is_damaged(self) -> bool:
        """Return whether a record of the log is damaged."""
        lsn, epoch = self.damaged
        return self.begin < lsn <= len(self.log) and self.log[lsn - 1].epoch == epoch


class World(NamedTuple):
    """The mirror and its directories.

    log: all records that the mirror ever had. trimmed: the LSN up to which it has removed them.
    stated: the LSN that its last entry states. late: a claim that is still under way. written: the
    number of records that were ever appended. made: the number of claims.
    """

    homes: tuple[Home, ...]
    log: tuple[Record, ...] = ()
    trimmed: int = 0
    stated: int = 0
    claims: tuple[Claim, ...] = ()
    late: Claim | None = None
    written: int = 0
    made: int = 0
    damages: int = 0

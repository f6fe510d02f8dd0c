"""Checkpoints: those that an open finds in a directory, and what they prove.

Source: journal/docs/FORMAT.md, "Recovery", step 3.
"""

from __future__ import annotations

from journal._disk.disk import ReadableDirectory
from journal._format.checkpoint import (
    BadCheckpointError,
    Checkpoint,
    MisnamedCheckpointError,
    checkpoint_lsns,
    read_checkpoint,
)


class Checkpoints:
    """The newest checkpoints of a directory.

    `good` are the checkpoints that verify, newest first. `bad` are the errors that the others
    raised. `damaged_lsn` is the LSN of the newest damaged one. `evidence` is the highest LSN that
    the name of any of them proves to have been durable.
    """

    def __init__(self, evidence_lsn: int) -> None:
        self.good: list[Checkpoint] = []
        self.bad: list[BadCheckpointError] = []
        self.evidence = evidence_lsn
        self.damaged_lsn = 0

    @property
    def base_lsn(self) -> int:
        return self.good[0].lsn if self.good else 0

    @property
    def verified_lsns(self) -> list[int]:
        return sorted(checkpoint.lsn for checkpoint in self.good)

    def forget(self, name: str) -> None:
        self.good = [
            checkpoint for checkpoint in self.good if checkpoint.path.rpartition("/")[2] != name
        ]

    def close(self, *, keep: Checkpoint | None = None) -> None:
        for checkpoint in self.good:
            if checkpoint is not keep:
                checkpoint.close()


def find_checkpoints(directory: ReadableDirectory, names: list[str], keep: int) -> Checkpoints:
    """Open the `keep` newest checkpoints that verify.

    The name of one that does not verify is evidence all the same: a checkpoint gets its name only
    after the log up to its LSN was synced.
    """
    lsns = checkpoint_lsns(names)
    checkpoints = Checkpoints(max(lsns, default=0))
    try:
        for lsn in reversed(lsns):
            if len(checkpoints.good) == keep:
                break
            try:
                checkpoints.good.append(read_checkpoint(directory, lsn))
            except BadCheckpointError as error:
                checkpoints.bad.append(error)
                if not isinstance(error, MisnamedCheckpointError):
                    checkpoints.damaged_lsn = max(checkpoints.damaged_lsn, lsn)
    except BaseException:
        checkpoints.close()
        raise
    return checkpoints

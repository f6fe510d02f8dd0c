"""Checkpoints: those that an open finds in a directory, and what they prove.

Source: journal/docs/FORMAT.md, "Recovery", step 3.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property

from journal._disk.disk import ReadableDirectory
from journal._format.checkpoint import (
    BadCheckpointError,
    Checkpoint,
    MisnamedCheckpointError,
    checkpoint_lsns,
    checkpoint_name,
    read_checkpoint,
    read_stated_lsn,
)
from journal._recovery.stray_segments import find_journal_id
from journal.errors import CorruptionError, DamageReason, JournalError


class Checkpoints:
    """The newest checkpoints of a directory.

    `good` are the checkpoints that verify, newest first. `bad` are the errors that the others
    raised, and `misnamed` those of them that are whole, by their names. `evidence` is the highest
    LSN that any of them proves to have been durable.
    """

    def __init__(self, directory: ReadableDirectory, lsns: list[int]) -> None:
        self._directory = directory
        self.good: list[Checkpoint] = []
        self.bad: list[BadCheckpointError] = []
        self._proven_lsns = {checkpoint_name(lsn): lsn for lsn in lsns}
        self.misnamed: dict[str, MisnamedCheckpointError] = {}

    @cached_property
    def _own_id(self) -> str | None:
        return find_journal_id(self._directory)

    @property
    def evidence(self) -> int:
        return max(self._proven_lsns.values(), default=0)

    @property
    def base_lsn(self) -> int:
        return self.good[0].lsn if self.good else 0

    @property
    def verified_lsns(self) -> list[int]:
        return sorted(checkpoint.lsn for checkpoint in self.good)

    def add_bad(self, lsn: int, error: BadCheckpointError) -> None:
        """Add the error for the checkpoint whose name states `lsn`."""
        self.bad.append(error)
        if isinstance(error, MisnamedCheckpointError):
            name = checkpoint_name(lsn)
            is_foreign = self._own_id not in (None, error.journal_id)
            self.misnamed[name] = error
            self._proven_lsns[name] = 0 if is_foreign else error.lsn

    def names_past(self, lsn: int) -> list[str]:
        """Return the names of the files that state an LSN after `lsn`, in the name or as
        evidence."""
        proven = self._proven_lsns.items()
        return [name for name, each in proven if max(each, *checkpoint_lsns([name])) > lsn]

    def past_end(self, next_lsn: int) -> CorruptionError | None:
        """Return an error for a whole checkpoint whose name, but not its content, states an LSN
        that the log does not reach, because it ends before `next_lsn`."""
        # The file may be a copy, or renamed. Or it has replaced a checkpoint that was at that LSN,
        # and the log has lost its end. Nobody knows, so nothing is taken for the end of the log.
        for name, error in self.misnamed.items():
            if checkpoint_lsns([name])[0] >= next_lsn:
                problem = f"{error.what}, and the log ends before LSN {next_lsn}"
                reason = DamageReason.MISNAMED
                return CorruptionError(error.path, 0, 0, problem, reason=reason)
        return None

    def forget(self, name: str) -> None:
        """Forget the file: it proves nothing."""
        self.good = [
            checkpoint for checkpoint in self.good if checkpoint.path.rpartition("/")[2] != name
        ]
        self._proven_lsns.pop(name, None)
        self.misnamed.pop(name, None)

    def close(self, *, keep: Checkpoint | None = None) -> None:
        for checkpoint in self.good:
            if checkpoint is not keep:
                checkpoint.close()


def find_checkpoints(directory: ReadableDirectory, names: list[str], keep: int) -> Checkpoints:
    """Open the `keep` newest checkpoints that verify.

    The name of one that does not verify is evidence all the same: a checkpoint gets its name only
    after the log up to its LSN was synced. One that is whole, but has the name of another one,
    proves the LSN that it states instead, unless it belongs to another journal.
    """
    lsns = checkpoint_lsns(names)
    checkpoints = Checkpoints(directory, lsns)
    try:
        for lsn in reversed(lsns):
            if len(checkpoints.good) == keep:
                break
            try:
                checkpoints.good.append(read_checkpoint(directory, lsn))
            except BadCheckpointError as error:
                checkpoints.add_bad(lsn, error)
    except BaseException:
        checkpoints.close()
        raise
    return checkpoints


def read_proofs(directory: ReadableDirectory, lsns: list[int]) -> Checkpoints:
    """Return what the checkpoints whose names state `lsns` prove, as `find_checkpoints` finds it,
    without opening them. Only their first lines are read, unless one is misnamed."""
    checkpoints = Checkpoints(directory, lsns)
    for lsn in lsns:
        with suppress(JournalError, FileNotFoundError):  # compaction may have removed it meanwhile
            try:
                if read_stated_lsn(directory, lsn) != lsn:
                    read_checkpoint(directory, lsn).close()
            except MisnamedCheckpointError as error:
                checkpoints.add_bad(lsn, error)
    return checkpoints

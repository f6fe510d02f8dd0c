"""Outlook: whether a journal would open, and what there is to be had of it. Changes nothing.

The end of the log is where an opening finds it. If it refuses, the end is where a repair cuts: in
front of the first damage that matters, after whatever is only in the way was set aside.
"""

from __future__ import annotations

from dataclasses import dataclass

from journal.errors import CorruptionError
from journal.misplaced import misplaced
from journal.recovery import covered, find_checkpoints, last_epoch, walk_log
from journal.segment import kept_after, segment_names
from journal.storage import Directory
from journal.walk import Batch

_CHECKPOINTS = 2


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is to be had of a journal that no writer has open.

    `problem` is why it does not open (None: it does). It goes on from the state at
    `checkpoint_lsn` (0: from nothing), up to `last_lsn`, with an open or else with a repair;
    unless that `has_no_start`: neither a checkpoint nor the log's beginning. `aside` names the
    files that are in the way, and hold nothing of it. `evidence_lsn`: up to there a checkpoint,
    though it be damaged, says that there was a log.
    """

    problem: str | None
    checkpoint_lsn: int
    last_lsn: int
    has_no_start: bool
    aside: tuple[str, ...]
    evidence_lsn: int


class Prospect:
    """How an outlook is found: as recovery does it, once more after each file set aside."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.names = directory.names()
        self.segments = segment_names(self.names)
        self.checkpoints = find_checkpoints(directory, self.names, len(self.names))
        self.checkpoints.close()
        self.aside: list[str] = []
        self.last_lsn = 0
        error = first = self._look()
        while error and self._set_aside(error):
            error = self._look()
        self.problem = str(first) if first else None

    def has_no_start(self, last_lsn: int) -> bool:
        """Whether there is nothing from which a log up to `last_lsn` could go on."""
        is_checkpoint = any(lsn <= last_lsn for lsn in self.checkpoints.verified_lsns)
        return not is_checkpoint and bool(self.segments) and self.segments[0].first_lsn > 1

    def outlook(self) -> Outlook:
        return Outlook(
            problem=self.problem,
            checkpoint_lsn=self.checkpoints.base_lsn,
            last_lsn=self.last_lsn,
            has_no_start=self.has_no_start(self.last_lsn),
            aside=tuple(self.aside),
            evidence_lsn=max(self.checkpoints.damaged_lsn, self.checkpoints.base_lsn),
        )

    def _look(self) -> CorruptionError | None:
        self.last_lsn = self.checkpoints.base_lsn

        def receive(batch: Batch) -> None:
            self.last_lsn = batch.last_lsn

        try:
            walk_log(self._directory, self.segments, self.checkpoints, receive)
            last_epoch(self._directory, self.segments, self.checkpoints)
            covered(self._directory, self.names, self.checkpoints.verified_lsns, _CHECKPOINTS)
        except CorruptionError as error:
            return error
        return None

    def _set_aside(self, error: CorruptionError) -> bool:
        """Whether there are segments that no log could hold; or it is a checkpoint of another
        journal, or a segment of what one covers."""
        ids = [bytes.fromhex(checkpoint.journal_id) for checkpoint in self.checkpoints.good]
        names = list(map(str, misplaced(self._directory, self.segments, ids)))
        if not names:
            name = error.path.rpartition("/")[2]
            needed = kept_after(self.segments, self.checkpoints.base_lsn)
            if name not in self.names or name in map(str, needed):
                return False
            names = [name]
        for name in names:
            self.aside.append(name)
            self.names.remove(name)
            self.checkpoints.forget(name)
        self.segments = segment_names(self.names)
        return True

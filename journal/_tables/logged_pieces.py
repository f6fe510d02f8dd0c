"""LoggedPieces: values in pieces, read back from the log when a record publishes them.

Only the place of each upload is kept in memory. Its pieces may be in a segment that compaction has
removed. Then a checkpoint before the record has them, among its unpublished pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from journal._disk.disk import Directory
from journal._format.checkpoint import BadCheckpointError, checkpoint_lsns, read_checkpoint
from journal._format.record import Record
from journal._offline.reader import read_batches
from journal._state.state_part import StatePart
from journal._tables.machine import Reference
from journal._tables.pieces import DROP, PIECE, Pieces
from journal.errors import CompactedError

_ATTEMPTS = 3  # compaction may remove what is about to be read


class LoggedPieces:
    """The uploads in a part of the log, and the pieces of the published ones."""

    def __init__(self, directory: Directory, part: StatePart[Any] | None = None) -> None:
        self._directory = directory
        self._part = part  # to which the tables belong; None: they are alone
        self._first_lsns: dict[bytes, int] = {}  # of each upload, the LSN of its first piece

    def note(self, lsn: int, record: Record) -> None:
        """Keep the place of an upload that begins with this record, or forget dropped ones."""
        if record[0] == PIECE and record[2] == 0:
            self._first_lsns[record[1]] = lsn
        elif record[0] == DROP:
            for upload_id in record[1]:
                self._first_lsns.pop(upload_id, None)

    def take(self, reference: Reference, lsn: int) -> Pieces:
        """Read the pieces to which the record `lsn` refers, and forget their place.

        Raises CompactedError if they are no longer retained.
        """
        upload_id, count = reference
        first_lsn = self._first_lsns.pop(upload_id, None)
        for _ in range(_ATTEMPTS):
            try:
                pieces = self._read(upload_id, count, lsn, first_lsn)
            except (CompactedError, FileNotFoundError):
                pieces = []
            if len(pieces) == count:
                return tuple(pieces)
            first_lsn = None
        raise CompactedError(
            f"the pieces of a value in LSN {lsn} are no longer kept; read all rows with "
            "Tables.read, and continue after the LSN of that view",
            lsn + 1,
            lsn=lsn,
        )

    def _read(self, upload_id: bytes, count: int, lsn: int, first_lsn: int | None) -> list[bytes]:
        pieces: list[bytes] = []
        if first_lsn is None:
            after, pieces = self._in_checkpoint(upload_id, lsn)
        else:
            after = first_lsn - 1
        if len(pieces) < count:
            for record in self._records(after, lsn - 1):
                if record[0] == PIECE and record[1] == upload_id:
                    pieces.append(record[3])
                    if len(pieces) == count:
                        break
        return pieces

    def _in_checkpoint(self, upload_id: bytes, lsn: int) -> tuple[int, list[bytes]]:
        """Return the LSN of the newest checkpoint before `lsn`, and its pieces of the upload.

        Return 0 and no pieces if there is no such checkpoint.
        """
        for at in reversed(checkpoint_lsns(self._directory.names())):
            if at >= lsn:
                continue
            try:
                checkpoint = read_checkpoint(self._directory, at)
            except BadCheckpointError:
                continue
            pieces: list[bytes] = []
            with closing(checkpoint):
                for item in checkpoint.items():
                    if self._part is not None and (item := self._part.own_item(item)) is None:
                        continue
                    if "upload" not in item:  # unpublished pieces come before all rows
                        break
                    if item["upload"] == upload_id:
                        pieces.append(item["piece"])
            return at, pieces
        return 0, []

    def _records(self, after: int, limit_lsn: int) -> Iterator[Record]:
        for batch in read_batches(self._directory, after, limit_lsn):
            for _, record in batch.numbered():
                own = record if self._part is None else self._part.own_record(record)
                if own is not None:
                    yield own
                del record, own
            del batch  # free the memory before the next batch: each may be one large frame

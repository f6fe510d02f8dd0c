"""Restored: the mark before records that were lost, salvaged, and appended again.

It says which LSNs the records had, so that they are never appended twice. Its owner ignores it.
Source: journal/docs/FORMAT.md, "Salvaged records".
"""

from __future__ import annotations

from typing import Any, NamedTuple

from journal._format.layout import EPOCH_MAX, LSN_MAX
from journal._public import public

RESTORED = "restored"


class RestoredMark(NamedTuple):
    """The identity of the records after the mark, in the same batch.

    They had the LSNs from `first_lsn` to `last_lsn`, in a segment of `epoch` of the journal
    `journal_id`.
    """

    journal_id: str
    epoch: int
    first_lsn: int
    last_lsn: int

    @property
    def record(self) -> list[Any]:
        """The mark as a record."""
        return [RESTORED, *self]


def mark_of(record: Any) -> RestoredMark | None:
    """Return the mark that `record` is, or None for any other record."""
    if type(record) is not list or len(record) != 5 or record[0] != RESTORED:
        return None
    _, journal_id, epoch, first_lsn, last_lsn = record
    if type(journal_id) is not str or [type(value) for value in record[2:]] != [int, int, int]:
        return None
    in_range = 0 < epoch <= EPOCH_MAX and 0 < first_lsn <= last_lsn <= LSN_MAX
    return RestoredMark(journal_id, epoch, first_lsn, last_lsn) if in_range else None


@public
def is_restored_mark(record: Any) -> bool:
    """Return whether `record` is a mark that `put_back` has added before records. A state ignores
    it."""
    return mark_of(record) is not None

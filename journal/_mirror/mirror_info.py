"""MirrorInfo: the contents and the writer of a mirror, from its names and its last entry."""

from __future__ import annotations

from dataclasses import dataclass

from journal._mirror.blobs import roll_up_names
from journal._mirror.claiming import look
from journal._mirror.public_errors import as_public
from journal._mirror.reading import has_beginning, true_checkpoints
from journal._mirror.store import Store, StoreError
from journal._mirror.urls import open_store, shown_url
from journal._public import public


@public
@dataclass(frozen=True, slots=True)
class MirrorCheckpoint:
    """A checkpoint in a mirror."""

    lsn: int
    """The LSN of the state that it holds."""

    made_at_ms: int
    """The time at which it was made, in Unix milliseconds."""


@public
@dataclass(frozen=True, slots=True)
class MirrorInfo:
    """The contents of a mirror, and its last writer."""

    url: str
    """The address, without credentials."""

    journal_id: str
    """The journal's identity: 32 hex digits."""

    application: str
    """The application that owns the journal, or ""."""

    first_lsn: int
    """The first LSN to which the journal can be restored."""

    last_lsn: int
    """The LSN up to which the mirror has every record."""

    entries: int
    """The number of entries that are not rolled up, and of claims."""

    roll_ups: int
    """The number of roll-ups."""

    checkpoints: tuple[MirrorCheckpoint, ...]
    """The checkpoints, oldest first."""

    held: bool
    """True if the last writer has not released the mirror, so that another one has to take over."""

    host: str
    """The name of the machine of the last writer."""

    pid: int
    """The process ID of the last writer."""

    epoch: int
    """The epoch of the last writer."""

    since: float
    """The time at which the last writer claimed the mirror, by its own clock, in Unix seconds."""


@public
def mirror_info(url: str) -> MirrorInfo:
    """Describe the mirror at `url`. Reads names and a few entries, and changes nothing.

    Raises FileNotFoundError if there is no journal at `url`, MirrorError if it can't be read,
    ValueError for another address, and ImportError if a package is missing.
    """
    try:
        store = open_store(url, is_reader=True)
        try:
            return describe(store)
        finally:
            store.close()
    except StoreError as error:
        raise as_public(error, shown_url(url)) from error


def describe(store: Store) -> MirrorInfo:
    """Describe a mirror. Raises FileNotFoundError, and what the store raises."""
    tail = look(store)
    claim = tail.claimed.claim if tail.claimed else None
    if tail.last is None or tail.claimed is None or claim is None:
        raise FileNotFoundError(f"{store.url}: there is no mirror of a journal here")
    names = store.blob_names()
    checkpoints = true_checkpoints(store, names)
    is_whole = not checkpoints or has_beginning(store, checkpoints)
    return MirrorInfo(
        url=store.url,
        journal_id=claim.journal_id,
        application=claim.application,
        first_lsn=min(1, tail.last.last_lsn) if is_whole else checkpoints[0].lsn,
        last_lsn=tail.last.last_lsn,
        entries=len(store.numbers(0)),
        roll_ups=len(roll_up_names(names)),
        checkpoints=tuple(MirrorCheckpoint(each.lsn, each.made_ms) for each in checkpoints),
        held=not tail.is_released,
        host=claim.host,
        pid=claim.pid,
        epoch=tail.claimed.epoch,
        since=claim.claimed_at_ns / 1e9,
    )

"""Public errors: the errors that users of a mirror catch, made from the errors of stores."""

from __future__ import annotations

from journal._mirror.claiming import HeldError, OvertakenError
from journal._mirror.entry import MirrorDamageError
from journal._mirror.errors import FencedError, MirrorError
from journal._mirror.store import StoreError
from journal.errors import JournalError, LockedError


def as_public(error: StoreError, url: str, path: str = "") -> JournalError:
    """Return the error to raise from `error`. `url`: the mirror's address, without credentials.
    `path`: the journal's directory."""
    if isinstance(error, HeldError):
        claim, since = error.claim, error.claim.claimed_at_ns / 1e9
        epoch = error.entry.epoch
        return LockedError(path, claim.pid, host=claim.host, epoch=epoch, since=since)
    if isinstance(error, MirrorDamageError):
        number, blob, lsn = error.number, error.name or None, error.lsn or None
        what = str(error)
        return MirrorError(url, what, reason=error.reason, number=number, blob=blob, lsn=lsn)
    return MirrorError(url, str(error), reason=error.reason)


def as_fenced(error: OvertakenError, url: str, *, mirrored_lsn: int, last_lsn: int) -> FencedError:
    """Return the error of a writer that was overtaken, with the LSNs that the mirror has and that
    the writer has appended."""
    claim = error.claim
    return FencedError(
        url,
        host=claim.host if claim else None,
        pid=claim.pid if claim else None,
        epoch=error.epoch,
        since=claim.claimed_at_ns / 1e9 if claim else None,
        mirrored_lsn=mirrored_lsn,
        last_lsn=last_lsn,
    )

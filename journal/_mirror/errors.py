"""Errors of mirrors, with reasons that programs can test."""

from __future__ import annotations

from enum import StrEnum

from journal._public import public
from journal.errors import FailedError, JournalError, utc_text


@public
class MirrorReason(StrEnum):
    """The cause of a MirrorError."""

    UNREACHABLE = "unreachable"
    """The mirror did not answer in time. Try again."""

    REFUSED = "refused"
    """The mirror's store answers, but not to this client, or it can't hold a mirror: wrong
    credentials, a missing right or bucket, or a stream with unfit settings."""

    DAMAGED = "damaged"
    """An entry or a blob of the mirror is missing, damaged, or was not written by this engine."""

    OTHER_JOURNAL = "other_journal"
    """The mirror belongs to another journal."""

    OTHER_APPLICATION = "other_application"
    """The mirror belongs to another application."""

    NEWER_VERSION = "newer_version"
    """A newer version of the engine wrote the mirror."""

    FORKED = "forked"
    """The directory and the mirror have diverged: one has records that the other lacks."""

    EMPTIED = "emptied"
    """The mirror had entries of this directory, and has lost them: it was emptied or made anew."""

    RESTORED = "restored"
    """The directory was restored to an earlier LSN than its mirror has. Give it a new mirror."""

    NEEDED = "needed"
    """The directory has a mirror, and was opened without one."""


@public
class FencedError(FailedError):
    """Another writer has taken over the mirror, so this one has stopped.

    The records that the mirror lacks, from LSN `mirrored_lsn` + 1 to `last_lsn`, stay in this
    directory. With `ack="remote"`, none of them was acknowledged.
    """

    url: str
    """The address of the mirror, without credentials."""

    host: str | None
    """The name of the other writer's machine. None if its claim can't be read any more."""

    pid: int | None
    """The process ID of the other writer. None if its claim can't be read any more."""

    epoch: int | None
    """The epoch of the other writer. None if its claim can't be read any more."""

    since: float | None
    """The time at which the other writer claimed the mirror, by its own clock, in Unix seconds.
    None if its claim can't be read any more."""

    mirrored_lsn: int
    """The LSN up to which the mirror has every record of this writer."""

    last_lsn: int
    """The LSN of the last record that this writer has appended."""

    def __init__(
        self,
        url: str,
        *,
        host: str | None,
        pid: int | None,
        epoch: int | None,
        since: float | None,
        mirrored_lsn: int,
        last_lsn: int,
    ) -> None:
        who = "another writer"
        if host is not None:
            at = utc_text(since or 0.0)
            who = f"process {pid} on {host} (epoch {epoch}, claimed {at})"
        lacking = "it has every record of this writer"
        if last_lsn > mirrored_lsn:
            lacking = f"it lacks this writer's records from LSN {mirrored_lsn + 1} to {last_lsn}"
        super().__init__(
            f"{who} has taken over the mirror {url}; {lacking}; stop one of the two writers"
        )
        self.url = url
        self.host = host
        self.pid = pid
        self.epoch = epoch
        self.since = since
        self.mirrored_lsn = mirrored_lsn
        self.last_lsn = last_lsn


@public
class MirrorError(JournalError):
    """A mirror can't be used, and `reason` says why.

    An open that raises it has changed neither side, except that a claim may have been made.

    Source: journal/docs/RELIABILITY.md, "Mirrors".
    """

    url: str
    """The address of the mirror, without credentials."""

    reason: MirrorReason
    """The cause, for programs."""

    what: str
    """The cause in words."""

    number: int | None
    """The number of the entry that is damaged or missing, or of the last one that a damaged blob
    holds. None for other reasons."""

    blob: str | None
    """The name of the blob that is damaged or missing. None for an entry, for a missing blob whose
    name is not known, and for other reasons."""

    lsn: int | None
    """The first LSN that can't be read because of that. None if it is not known."""

    def __init__(
        self,
        url: str,
        what: str,
        *,
        reason: MirrorReason,
        number: int | None = None,
        blob: str | None = None,
        lsn: int | None = None,
    ) -> None:
        hint = ""
        if reason is MirrorReason.DAMAGED and number is not None:
            hint = "; a writer whose directory is whole can begin a new mirror at another address; "
            hint += f"to see all damage, run: journal-inspect mirror verify {url}"
        super().__init__(f"{what if what.startswith(url) else f'{url}: {what}'}{hint}")
        self.url = url
        self.reason = reason
        self.what = what
        self.number = number
        self.blob = blob
        self.lsn = lsn

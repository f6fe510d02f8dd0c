"""Attaching: the work of a writer with its mirror before it recovers the directory.

The order matters. The claim comes first, because another writer may append until it stands. Then
the directory is compared, and what it lacks is fetched. Only then may it be recovered: a recovery
of less would cut acknowledged records off.

A writer that can't reach its mirror may open the directory nevertheless, if it is that of the last
writer. It attaches later, at the first contact: then the directory must lack nothing, and no other
writer may have claimed the mirror meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import NamedTuple, cast

from journal import _time as time
from journal._disk.disk import Directory, Disk
from journal._format.segment import segment_names
from journal._log import report
from journal._mirror.aside import put_aside
from journal._mirror.claiming import Appender, Claimer, HeldError, OvertakenError, Tail
from journal._mirror.comparing import Comparison, compare
from journal._mirror.entry import Claim
from journal._mirror.errors import MirrorReason
from journal._mirror.marker import Marker, note_unclaimed, write_marker
from journal._mirror.patient_reads import PatientReads
from journal._mirror.permit import Permit
from journal._mirror.place_note import Known, write_note
from journal._mirror.settling import settled
from journal._mirror.store import LostError, Store, StoreError, UnreachableError
from journal._recovery.stray_segments import find_journal_id

_RETRY_S = 0.2


class ForkedError(StoreError):
    """The directory and its mirror have diverged: one has records that the other lacks."""

    reason = MirrorReason.FORKED


class RestoredError(StoreError):
    """The directory was restored to an earlier LSN than the mirror has."""

    reason = MirrorReason.RESTORED


class Attached(NamedTuple):
    """A mirror whose claim stands, and whose directory lacks nothing. `known` is what it has, and
    its cursor where shipping goes on."""

    store: Store
    appender: Appender
    known: Known

    @property
    def journal_id(self) -> str:
        """The journal's identity, 32 hex digits."""
        claim = self.appender.claimed.claim
        assert claim is not None
        return claim.journal_id

    @property
    def epoch(self) -> int:
        """The least epoch that this writer may use."""
        return self.appender.epoch


class Attachment:
    """The attachment of a locked directory to its mirror. Each step may be repeated after an
    UnreachableError, and goes on where it was."""

    def __init__(
        self,
        open_store: Callable[[float], Store],
        disk: Disk,
        directory: Directory,
        statement: Claim,
        new_nonce: Callable[[], bytes],
        *,
        url: str,
        marker: Marker | None,
        accepts: tuple[str, ...] = (),
        takeover: bool = False,
        start_over: bool = False,
    ) -> None:
        """Prepare to attach. Makes no request.

        `open_store` gets the time limit of its requests, in seconds. `statement`: its journal id is
        used if neither the directory nor the mirror has one, and its writer's id unless the marker
        has one of a claim that was begun. `url`: the address for the marker. `marker`: the
        directory's. `accepts`, `takeover`: see Claimer. `start_over`: claim a mirror that has lost
        all entries.
        """
        self._open_store = open_store
        self._store: Store | None = None
        self._disk = disk
        self._directory = directory
        self._new_nonce = new_nonce
        self._url = url
        own_id = find_journal_id(directory) or (marker and marker.journal_id)
        self._is_new = not own_id
        if marker is None or marker.url != url:
            marker = Marker(url)
        if not marker.next_writer:
            marker = marker._replace(next_writer=statement.writer)
        self._marker = marker
        epochs = [name.epoch for name in segment_names(directory.names())]
        self.epoch_min = max([marker.epoch, *epochs]) + 1
        self._statement = statement._replace(
            journal_id=own_id or statement.journal_id, writer=marker.next_writer
        )
        self._accepts = accepts
        self._takeover = takeover
        self._start_over = start_over
        self._is_late, self._recovered_lsn = False, 0
        self.permit = Permit()
        self._claimer: Claimer | None = None
        self._appender: Appender | None = None

    @property
    def journal_id(self) -> str | None:
        """The journal's identity, None for a new directory."""
        return None if self._is_new else self._statement.journal_id

    @property
    def mirrored_lsn(self) -> int:
        """The LSN up to which the mirror is known to have every record."""
        return self._marker.mirrored_lsn

    @property
    def is_of_last_writer(self) -> bool:
        """True if the last claim that this directory knows of is its own."""
        return bool(self._marker.writer)

    def attach(self, until_s: float | None = None) -> Attached:
        """Claim the mirror, and bring the directory up to it. Repeat reads that fail until
        `until_s`, a time of the monotonic clock (None: do not repeat them).

        If both have records that the other lacks, put the directory's files aside first. Raises
        HeldError, OtherJournalError, RestoredError and LostError, and ForkedError after an open,
        with the directory unchanged but for its marker; UnreachableError, RefusedError,
        MirrorDamageError, CorruptionError and the disk's errors.
        """
        store, appender = self._claimed(until_s)
        reads = cast(Store, PatientReads(store, until_s or 0.0))
        comparison = compare(reads, self._directory, self._marker)
        if self._is_late:
            self._check_late(store, comparison)
        elif comparison.verdict == "forked":
            common = settled(reads, self._directory, comparison, self._marker)
            aside = put_aside(self._disk, self._directory, common)
            report(
                logging.WARNING,
                "%s: the directory and its mirror %s have diverged: each has records that the "
                "other lacks, or no longer shows. The mirror's are used, and the others are in %s "
                "now; journal-inspect mirror reappend shows those that the mirror never had, and "
                "appends them again",
                aside.origin,
                store.url,
                aside.path,
            )
            comparison = compare(reads, self._directory, self._marker)
        if comparison.known.place.number < appender.claimed.number:
            comparison.staging.drop()
            raise UnreachableError(f"{store.url}: it does not list the claim that it accepted")
        comparison.fetch()
        with self.permit.used():
            write_note(self._directory, comparison.known)
        self._note_standing(appender)
        return Attached(store, appender, comparison.known)

    def attach_within(self, timeout_s: float) -> Attached:
        """Attach, and repeat requests for at most `timeout_s` seconds while the store is
        unreachable. Raises what `attach` raises."""
        until_s = time.monotonic() + timeout_s
        while True:
            try:
                return self.attach(until_s)
            except UnreachableError:
                if time.monotonic() + _RETRY_S >= until_s:
                    raise
                time.sleep(_RETRY_S)

    def attach_later(self, directory: Directory, epoch: int, recovered_lsn: int) -> None:
        """Prepare for an attachment after the open: `attach` then refuses what an open would have
        fetched. `directory` replaces the one that the journal closes. `epoch`: the writer's.
        `recovered_lsn`: the LSN after which it writes without a claim. Raises OSError."""
        self._marker = note_unclaimed(self._directory, self._marker, recovered_lsn)
        self._directory = directory
        self.epoch_min = epoch
        self._is_late, self._takeover = True, False
        self._recovered_lsn = recovered_lsn

    def give_up(self) -> None:
        """Release the mirror, if that is possible at once, and close the store."""
        appender, self._appender = self._appender, None  # a second call releases nothing
        try:
            with suppress(StoreError):
                if appender is not None:
                    appender.release()
        finally:
            self.close()

    def close(self) -> None:
        """Close the store, and release nothing."""
        self._appender = None
        if self._store is not None:
            self._store.close()

    def _check_late(self, store: Store, comparison: Comparison) -> None:
        """Drop what was staged, because the directory is open already. Raises ForkedError if the
        mirror has what it lacks."""
        comparison.staging.drop()
        has_lost = comparison.fixed_lsn > self._recovered_lsn  # the damage looked like a torn tail
        if comparison.verdict not in ("behind", "forked") and not has_lost:
            return
        raise ForkedError(
            f"{self._directory.path} and its mirror {store.url} have diverged: the mirror has "
            "records that the directory lacks. Open the directory again: it then gets them, and "
            "records that only the directory has are put aside"
        )

    def _claimed(self, until_s: float | None) -> tuple[Store, Appender]:
        """Return the store and the appender. Open the store and claim it first, once."""
        if self._store is None:
            left_s = inf if until_s is None else until_s - time.monotonic()
            self._store = self._open_store(left_s)
        if self._claimer is None:
            self._claimer = Claimer(
                self._store,
                self._statement,
                self._new_nonce,
                epoch_min=self.epoch_min,
                is_new=self._is_new,
                takeover=self._takeover,
                own_writers=self._marker.writers,
                accepts=self._accepts,
                admit=self._admit,
            )
        if self._appender is None:
            try:
                self._appender = self._claimer.claim()
            except HeldError as error:
                if self._is_late:
                    raise OvertakenError(self._store.url, 0, error.entry) from error
                raise
        return self._store, self._appender

    def _admit(self, tail: Tail) -> None:
        """Check the end of the mirror's log before a claim, and note the claim in the marker."""
        assert self._store is not None
        claimed = tail.claimed
        claim = claimed.claim if claimed else None
        is_own = claim is not None and claim.writer in self._marker.writers
        if self._marker.restored_lsn is not None:
            raise RestoredError(
                f"{self._url}: the directory {self._directory.path} was restored to LSN "
                f"{self._marker.restored_lsn}, and the mirror has later records. Nothing was "
                "changed. Give the directory a new mirror, or open the mirror in a new directory"
            )
        if self._is_late and claimed is not None and not is_own:
            raise OvertakenError(self._store.url, claimed.number, claimed)
        if claimed is None and self._marker.epoch and not self._start_over:
            raise LostError(
                f"{self._url}: the mirror had entries of the directory {self._directory.path}, and "
                "has none now: it was emptied or made anew. Nothing was changed. Find out why, and "
                "open it with Mirror(..., start_over=True) to begin it again"
            )
        with self.permit.used():
            write_marker(self._directory, self._marker)

    def _note_standing(self, appender: Appender) -> None:
        claim = appender.claimed.claim
        assert claim is not None
        last_lsn = appender.claimed.last_lsn
        self._marker = Marker(
            self._url, claim.journal_id, appender.epoch, claim.writer, mirrored_lsn=last_lsn
        )
        with self.permit.used():
            write_marker(self._directory, self._marker)

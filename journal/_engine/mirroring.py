"""Mirroring: the mirror of an open journal, from the open to the close.

An open attaches the locked directory to its mirror before it recovers it. The threads of the
shipper and its upkeep do everything after that, so no network call runs in a thread that commits,
waits or closes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from journal._commit.commit_turn import CommitTurn
from journal._commit.committer import Committer
from journal._commit.gate import Gate
from journal._commit.writer import SyncedEnd
from journal._disk.disk import Directory, Disk, clock_ns
from journal._disk.process import host_and_pid
from journal._format.layout import LSN_MAX, SEGMENT_VERSION
from journal._log import post, report
from journal._mirror.attaching import Attached, Attachment
from journal._mirror.claiming import OvertakenError
from journal._mirror.counted_store import CountedStore
from journal._mirror.entry import Claim
from journal._mirror.errors import MirrorError, MirrorReason
from journal._mirror.holding import Holding
from journal._mirror.marker import note_unclaimed, read_marker
from journal._mirror.mirror import Mirror
from journal._mirror.public_errors import as_fenced, as_public
from journal._mirror.shipper import Shipper
from journal._mirror.store import Store, StoreError, UnreachableError
from journal._mirror.upkeep import Upkeep
from journal.errors import JournalError
from journal.options import Options

if TYPE_CHECKING:
    from journal._commit.mirrored_turn import MirroredTurn

CLOSE_LIMIT_S = 10.0  # a close with ack="local" ships for at most this time
_kept: list[object] = []  # a forked child closes none of its parent's connections


def check_unmirrored(directory: Directory, *, is_allowed: bool) -> str | None:
    """Return the journal's identity in the directory's marker, if it has one.

    Raises MirrorError if the marker states that the directory has a mirror, unless it `is_allowed`
    to go on without it.
    """
    marker = read_marker(directory)
    if marker is not None and marker.restored_lsn is None and not is_allowed:
        raise MirrorError(
            marker.url,
            f"the directory {directory.path} has this mirror, and was opened without it; nothing "
            "was changed. Pass mirror=..., or mirror=False to go on without it",
            reason=MirrorReason.NEEDED,
        )
    return (marker and marker.journal_id) or None


def note_unmirrored(directory: Directory, recovered_lsn: int) -> None:
    """Note in the marker that the directory is opened without its mirror. Raises MirrorError and
    OSError."""
    if marker := read_marker(directory):
        note_unclaimed(directory, marker, recovered_lsn)


class Link:
    """A directory's link to its mirror, during an open."""

    def __init__(
        self,
        mirror: Mirror,
        directory: Directory,
        disk: Disk,
        options: Options,
        accepts: tuple[str, ...],
        *,
        takeover: bool,
    ) -> None:
        """Prepare to attach the locked directory to its mirror. Makes no request."""
        self.mirror = mirror
        self.syncs = options.durability == "os"  # the shipper has to sync the log
        self.url = mirror.shown_url
        self._disk, self._path = disk, directory.path
        self._store: CountedStore | None = None
        host, pid = host_and_pid()
        self.attachment = Attachment(
            self._open_store,
            disk,
            directory,
            Claim(
                disk.new_id().hex(),
                options.application,
                SEGMENT_VERSION,
                host,
                pid,
                min(clock_ns(disk), LSN_MAX),
                disk.new_id().hex(),
            ),
            disk.new_id,
            url=self.url,
            marker=read_marker(directory),
            accepts=accepts,
            takeover=takeover,
            start_over=mirror.start_over,
        )
        self.holding = Holding(mirror.lag_bytes_max)
        self.attached: Attached | None = None

    def open_directory(self) -> Directory:
        """Open the directory once more."""
        return self._disk.open_directory(self._path, write=False)

    def now_ms(self) -> int:
        """Return the time in Unix milliseconds."""
        return clock_ns(self._disk) // 1_000_000

    @property
    def journal_id(self) -> str | None:
        """The journal's identity, None if it is not known."""
        return self.attached.journal_id if self.attached else self.attachment.journal_id

    @property
    def epoch(self) -> int:
        """The least epoch that the writer may use."""
        return self.attached.epoch if self.attached else self.attachment.epoch_min

    @property
    def requests(self) -> int:
        """The number of requests to the store so far."""
        return self._store.requests if self._store else 0

    def mirroring(
        self, committer: Committer, turn: CommitTurn, *, epoch: int, recovered_lsn: int
    ) -> Mirroring:
        """Return the mirror of the recovered journal."""
        return Mirroring(self, committer, turn, epoch=epoch, recovered_lsn=recovered_lsn)

    def give_up(self) -> None:
        """Release the mirror after an open that failed."""
        self.attachment.give_up()

    def attach(self) -> None:
        """Attach the directory. Raises LockedError, MirrorError and what the comparison raises; the
        caller then calls `give_up`.

        If the mirror is unreachable, `attached` stays None, but only with ack="local" and in the
        directory of the last writer. Otherwise MirrorError is raised.
        """
        try:
            self.attached = self.attachment.attach_within(self.mirror.open_timeout_s)
            self.holding.first = self.attached.known.cursor.segment
        except StoreError as error:
            is_unreachable = isinstance(error, UnreachableError)
            is_local = self.mirror.ack == "local"
            if is_unreachable and is_local and self.attachment.is_of_last_writer:
                report(
                    logging.WARNING,
                    "%s: the mirror can't be reached: %s; the journal opens without it, and "
                    "continues to ship when it answers",
                    self._path,
                    error,
                )
                return
            if is_unreachable:  # a release would wait for it once more
                self.attachment.close()
            raise as_public(error, self.url, self._path) from error

    def _open_store(self, open_s: float) -> Store:
        self._store = CountedStore(self.mirror._open_store(open_s))
        return self._store


class MirrorFigures(NamedTuple):
    """The figures of a mirror for Stats, with the same names."""

    mirrored_lsn: int
    mirror_lag_s: float
    mirror_lag_bytes: int
    mirror_requests: int
    mirror_retries: int
    mirror_stalls: int


class Mirroring:
    """The mirror of an open journal: starts, wakes and ends the shipper."""

    def __init__(
        self,
        link: Link,
        committer: Committer,
        turn: CommitTurn,
        *,
        epoch: int,
        recovered_lsn: int,
    ) -> None:
        self._link = link
        self._committer = committer
        self._is_local = link.mirror.ack == "local"
        self._turn: MirroredTurn | None = None
        self._syncs = link.syncs
        self._ended: Callable[[], None] = _ignore
        self._has_owner, self._has_given_up = True, False
        # A handle of its own: the thread may be in a request while the journal closes the other.
        own = link.open_directory()
        attached = link.attached
        if attached is None:
            link.attachment.attach_later(own, epoch, recovered_lsn)
        self._shipper = Shipper(
            (lambda: attached) if attached else link.attachment.attach,
            own,
            partial(Upkeep, holding=link.holding, keep_s=link.mirror.keep_s, now_ms=link.now_ms),
            self._synced_end,
            epoch=epoch,
            mirrored_lsn=link.attachment.mirrored_lsn,
            recovered_lsn=recovered_lsn,
            interval_s=link.mirror.interval_s,
            events=self,
            permit=link.attachment.permit,
        )

        if not self._is_local:
            from journal._commit.mirrored_turn import MirroredTurn

            assert isinstance(turn, MirroredTurn)
            turn.begin(link.attachment.mirrored_lsn, lambda: self._shipper.is_here)
            committer.defer_to(self._shipper.wake)
            self._turn = turn

    def start(self, ended: Callable[[], None]) -> None:
        """Start the shipper, whose last act is to call `ended`."""
        self._ended = ended
        self._shipper.start()

    @property
    def has_begun(self) -> bool:
        return self._shipper.has_begun

    @property
    def is_here(self) -> bool:
        """True in the shipper's thread, for what a finalizer calls there."""
        return self._shipper.is_here

    @property
    def mirrored_lsn(self) -> int:
        """The LSN up to which the mirror has every record."""
        return self._shipper.mirrored_lsn

    def gate(self, lsn: int) -> Gate | None:
        """See Shipper.gate."""
        return self._shipper.gate(lsn)

    def wait(self, lsn: int, timeout_s: float | None) -> bool:
        """See Shipper.wait."""
        return self._shipper.wait(lsn, timeout_s)

    def figures(self) -> MirrorFigures:
        """Return the figures for Stats. Reads no file and makes no request."""
        shipper, synced_lsn = self._shipper, self._committer.synced_lsn
        lag_s = shipper.lag_s(synced_lsn)
        lag_bytes = shipper.backlog_bytes + self._committer.log_bytes - shipper.shipped_bytes
        return MirrorFigures(
            mirrored_lsn=shipper.mirrored_lsn,
            mirror_lag_s=lag_s,
            mirror_lag_bytes=max(0, lag_bytes) if lag_s else 0,
            mirror_requests=self._link.requests,
            mirror_retries=shipper.retries,
            mirror_stalls=shipper.stalls,
        )

    # --- the end ---

    def log_ended(self, *, is_closed: bool) -> None:
        """Ship the rest, now that the log has ended. `is_closed`: all of it is synced. Never
        waits."""
        is_waited_for = self._has_owner and not self._is_local
        limit_s = float("inf") if is_waited_for else CLOSE_LIMIT_S
        self._shipper.stop(limit_s, is_closed=is_closed)

    def drop(self) -> None:
        """End without waiting, because the owner is garbage-collected."""
        self._has_owner = False
        if not self.has_begun:  # an interrupt struck before it started
            self._link.give_up()
        elif not self._is_local:
            self._shipper.give_up_within(CLOSE_LIMIT_S)

    def finish(self, timeout_s: float | None) -> bool:
        """Wait until the mirror has everything and is released. Return whether the journal may be
        closed. With ack="local", it may be closed even if that took too long; the next open then
        ships the rest."""
        limit_s = CLOSE_LIMIT_S if timeout_s is None else min(timeout_s, CLOSE_LIMIT_S)
        if self._is_local:
            self._shipper.give_up_within(limit_s)
            if not self._shipper.join(limit_s):
                # It is inside a request, and ends after it. Its handle of the directory is its own.
                self._link.attachment.permit.revoke(limit_s)
                late = TimeoutError(f"a request has taken longer than {limit_s:.3g} s")
                self.gave_up(self._shipper.stalled_by or late)
            return True
        shipped_bytes = -1
        while not self._shipper.join(CLOSE_LIMIT_S if timeout_s is None else timeout_s):
            is_stuck = shipped_bytes == self._shipper.shipped_bytes
            if timeout_s is not None or is_stuck:
                assert self._turn is not None
                self._turn.give_up()
                return False
            shipped_bytes = self._shipper.shipped_bytes
        return True

    @property
    def url(self) -> str:
        """The address of the mirror, without credentials."""
        return self._link.url

    def abandon(self) -> None:
        """Abandon everything in a forked child, where the shipper does not exist."""
        _kept.append(self)
        self._shipper.abandon()

    # --- called in the shipper's thread ---

    def due_s(self) -> float:
        """Return the seconds until the next upload is due. With ack="remote", it waits for the
        threads that the last one released, so that they share it."""
        return 0 if self._turn is None else self._turn.gather_s()

    def mirrored(self, lsn: int) -> None:
        """Acknowledge the records up to `lsn`."""
        if self._turn is not None:
            self._turn.acknowledge(lsn, self._shipper.append_s)
            self._committer.report_deferred()

    def looked(self) -> None:
        """Acknowledge commits that were in the mirror before they were held, and report them."""
        self.mirrored(self.mirrored_lsn)

    def shipped(self, size: int, took_s: float) -> None:
        """Let the flusher report an upload to the observers."""
        lsn, duration_ns = self.mirrored_lsn, int(took_s * 1e9)

        # An observer may lack the methods of MirrorObserver.
        self._committer.queue(
            lambda observer: getattr(observer, "mirrored", _ignore)(lsn, size, duration_ns)
        )

    def stalled(self, error: StoreError) -> None:
        """Let the flusher report to the observers that the mirror can't be reached."""
        public_error = as_public(error, self.url)

        self._committer.queue(
            lambda observer: getattr(observer, "mirror_stalled", _ignore)(public_error)
        )

    def gave_up(self, error: BaseException) -> None:
        """Report, once, that the mirror lacks something at the end."""
        if not self._has_given_up:
            self._has_given_up = True
            rest = "what the mirror lacks"
            if self._shipper.is_attached:
                rest = f"what follows LSN {self.mirrored_lsn}"
            text = "%s: not everything is mirrored: %s; the next open ships %s"
            post(logging.ERROR, text, self.url, error, rest)

    def failed(self, error: BaseException) -> None:
        """Stop the journal."""
        if isinstance(error, OvertakenError):
            last_lsn = self._committer.last_lsn
            fenced = as_fenced(error, self.url, mirrored_lsn=self.mirrored_lsn, last_lsn=last_lsn)
            self._committer.stop(fenced)
        elif isinstance(error, StoreError):
            self._committer.stop(as_public(error, self.url))
        else:
            self._committer.stop(error)

    def ended(self) -> None:
        """Note that the shipper has ended."""
        self.looked()
        self._ended()

    def _synced_end(self) -> SyncedEnd | None:
        if self._syncs:
            with suppress(JournalError):  # closed or failed: its flusher ends the shipper
                self._committer.sync_log()
        return self._committer.synced_end


def _ignore(*_: object) -> None:
    pass

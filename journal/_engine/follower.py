"""Follower: a directory that follows a mirror, for readers and to take over from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Self, TypeVar, overload

from journal import _time as time
from journal._disk import process
from journal._disk.disk import Directory, Disk, StrPath, is_disk_error
from journal._disk.posix import PosixDisk, disk_or_default, path_of
from journal._engine.journal import Journal
from journal._engine.opening import checked_names
from journal._format.layout import SEGMENT_VERSION
from journal._handle import OpenHandle
from journal._log import report
from journal._mirror.aside import put_aside as put_directory_aside
from journal._mirror.attaching import ForkedError, RestoredError
from journal._mirror.claiming import NewerVersionError, OtherJournalError, look
from journal._mirror.comparing import compare
from journal._mirror.following import Following
from journal._mirror.marker import Marker, follows, read_marker, write_marker
from journal._mirror.mirror import Mirror, as_mirror
from journal._mirror.place_note import Known, write_note
from journal._mirror.public_errors import as_public
from journal._mirror.settling import settled
from journal._mirror.store import LostError, Store, StoreError, UnreachableError
from journal._public import public
from journal._recovery.stray_segments import find_journal_id
from journal._waits import check_lsn, check_timeout_s, refuse
from journal.errors import ClosedError

T = TypeVar("T")
_RETRY_S = 0.2
_kept: list[object] = []  # a forked child closes none of its parent's connections


@public
def follow(
    mirror: str | Mirror,
    path: StrPath,
    *,
    put_aside: bool = False,
    poll_s: float = 0.3,
    disk: Disk | None = None,
) -> Follower:
    """Follow a mirror into the directory `path`, which is made if it is missing. Claims nothing.

    Returns once the directory has everything that the mirror has. From then on, the follower asks
    for more every `poll_s` seconds, or more often where that costs less, in a thread of its own.
    Readers on this machine, such as JournalReader, `Tables.read` and `read_fleet`, see the
    directory as that of a live writer, and no writer can open it before the follower is closed.

    `mirror`: the address, or Mirror(...) for another `open_timeout_s`. Its directory, bucket or
    stream must exist, but it need not hold a journal yet. `path`: a new directory, one that
    followed before, or that of a writer which the mirror has overtaken. `put_aside`: if the
    directory has records that the mirror lacks, move its files to `PATH.aside-EPOCH` first, as an
    open does after a fork. Otherwise it is refused. Raises LockedError, MirrorError,
    UnsafePathError, NotAJournalError for an incomplete copy, TypeError, ValueError and OSError.
    """
    mirror = as_mirror(mirror)
    rule = "poll_s must be a number from 0.001 to 3600"
    if isinstance(poll_s, bool) or not isinstance(poll_s, (int, float)):
        refuse(TypeError, rule, poll_s)
    if not 0.001 <= poll_s <= 3600:
        refuse(ValueError, rule, poll_s)
    process.check_interpreter(path)
    mirror._check(path_of(path))
    disk = disk_or_default(disk)
    until_s = time.monotonic() + mirror.open_timeout_s
    open_store = partial(mirror._open_store, is_reader=True)
    directory: Directory | None = None
    store: Store | None = None
    following: Following | None = None
    try:
        try:
            if _is_missing(disk, path):  # an attempt that fails then makes no directory
                store = _answered(open_store, until_s)
            opened_in = directory = disk.open_directory(path, write=True)
            directory.lock()
            checked_names(directory)
            opened = store = store or _answered(open_store, until_s)
            known = _answered(
                lambda _: _prepare(opened, disk if put_aside else None, opened_in, mirror), until_s
            )
        except StoreError as error:
            raise as_public(error, mirror.shown_url, path_of(path)) from error
        process.write_pid_note(directory, 0)
        following = Following(store, directory, known, poll_s=poll_s)
        return Follower(mirror, disk, directory, store, following)
    except BaseException:
        if following is not None:  # an interrupt may strike after its start
            following.stop()
            following.join()
        if store is not None:
            store.close()
        if directory is not None:
            directory.close(unlock=True)
        raise


@public
class Follower(OpenHandle):
    """A directory that follows a mirror. `follow` makes one.

    It is a context manager, and leaving it closes it. Thread-safe.
    """

    path: str
    """The directory."""

    url: str
    """The address of the mirror, without credentials."""

    def __init__(
        self,
        mirror: Mirror,
        disk: Disk,
        directory: Directory,
        store: Store,
        following: Following,
    ) -> None:
        self.path = directory.path
        self.url = mirror.shown_url
        self._mirror = mirror
        self._disk = disk
        self._parts = _Parts(directory, store, following)
        process.own(self._parts)
        following.start()

    @property
    def lsn(self) -> int:
        """The LSN up to which readers of the directory find every record."""
        return self._parts.following.lsn

    @property
    def lag_s(self) -> float:
        """The time, in seconds, since the directory had everything that the mirror had. It grows
        while the mirror is unreachable."""
        return self._parts.following.lag_s

    def check(self) -> None:
        """Raise MirrorError or OSError if nothing more is followed, and ClosedError after a
        close."""
        failure = self._parts.following.failure
        if isinstance(failure, StoreError):
            raise as_public(failure, self.url, self.path) from failure
        if failure is not None:
            raise failure
        if self._parts.is_closed or self._parts.following.has_ended:
            raise ClosedError(f"{self.path}: the follower is closed; follow the mirror again")

    def wait(self, lsn: int, *, timeout_s: float | None = None) -> None:
        """Block until the directory has every record up to `lsn`.

        Raises TimeoutError after `timeout_s` seconds (None: no limit), and what `check` raises.
        """
        check_lsn(lsn)
        check_timeout_s(timeout_s)
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        following = self._parts.following
        while (gate := following.gate(lsn)) is not None:
            if not gate.wait(None if until_s is None else until_s - time.monotonic()):
                raise TimeoutError(f"{self.path}: LSN {lsn} did not arrive within {timeout_s} s")
        if lsn > following.lsn:
            self.check()

    @overload
    def promote(self, *, takeover: bool = True, **open_options: Any) -> Journal: ...

    @overload
    def promote(
        self, opens: Callable[..., T], *arguments: Any, takeover: bool = True, **open_options: Any
    ) -> T: ...

    def promote(
        self,
        opens: Callable[..., Any] = Journal.open,
        *arguments: Any,
        takeover: bool = True,
        **open_options: Any,
    ) -> Any:
        """Stop following, and open the directory as the mirror's writer. Return the result of
        `opens`.

        `opens`: the function that opens it, such as `DurableState.open`; it gets the path, the
        `arguments`, `mirror`, `takeover` and the `open_options`. Unless `takeover` is False,
        another writer that holds the mirror is overtaken: it stops with FencedError at its next
        upload. Raises what `opens` raises; the follower is closed then, too.
        """
        self.check()
        self.close()
        options = {"mirror": self._mirror, "takeover": takeover, **open_options}
        if not isinstance(self._disk, PosixDisk):
            options.setdefault("disk", self._disk)
        return opens(self.path, *arguments, **options)

    def close(self) -> None:
        """Stop following, and release the directory. A second call does nothing. Waits for a
        request that is under way."""
        self._parts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._parts.is_closed else f"at LSN {self.lsn}"
        return f"<Follower {self.path} of {self.url} {state}>"


class _Parts:
    """The parts of a follower, for forks and exits."""

    def __init__(self, directory: Directory, store: Store, following: Following) -> None:
        self.directory = directory
        self.following = following
        self.is_closed = False
        self._store = store

    def close(self) -> None:
        if self.is_closed:
            return
        self.following.stop()
        self.following.join()  # each request ends after a bounded time
        self._store.close()
        try:
            process.clear_pid_note(self.directory)
        except OSError as error:
            if not is_disk_error(error):
                raise
        self.directory.close(unlock=True)
        self.is_closed = True
        process.disown(self)

    def abandon(self) -> None:
        self.is_closed = True
        _kept.append(self._store)
        self.following.abandon()
        self.directory.close(unlock=False)

    def finish(self) -> None:
        self.close()


def _prepare(store: Store, aside_on: Disk | None, directory: Directory, mirror: Mirror) -> Known:
    """Bring the directory up to the mirror, and return what both have. `aside_on`: the disk on
    which to put aside what the mirror lacks; None to refuse that."""
    marker = read_marker(directory)
    if marker is not None and marker.restored_lsn is not None:
        raise RestoredError(
            f"{directory.path}: it was restored to LSN {marker.restored_lsn}, and may be written "
            "to; follow the mirror into a new directory"
        )
    if marker is None or marker.url != mirror.shown_url:
        marker = Marker(mirror.shown_url)
    epoch = _check_same(store, directory)
    comparison = compare(store, directory, marker)
    common = comparison.common
    if comparison.verdict in ("ahead", "forked"):
        common = settled(store, directory, comparison, marker)
        if not marker.writer:  # a follower may have been killed before it noted what it got
            comparison.staging.drop()
            comparison = compare(store, directory, marker, had=common)
    if comparison.verdict in ("ahead", "forked"):
        if aside_on is None:
            comparison.staging.drop()
            raise ForkedError(
                f"{directory.path}: it has records that the mirror lacks. Nothing was changed. "
                "Open it with its mirror, which ships them or puts them aside; or follow it with "
                "put_aside=True"
            )
        comparison.fetch()  # what is put aside needs no damaged bytes
        aside = put_directory_aside(aside_on, directory, common)
        text = "%s: the mirror lacks records of the directory, which are in %s now"
        report(logging.WARNING, text, aside.origin, aside.path)
        comparison = compare(store, directory, marker)
    marker = follows(marker, max(epoch, comparison.epoch))  # a claim may have come meanwhile
    write_marker(directory, marker._replace(unclaimed_lsn=None))
    comparison.fetch()
    write_note(directory, comparison.known)  # in case that the follower is killed
    return comparison.known


def _check_same(store: Store, directory: Directory) -> int:
    """Return the epoch of the mirror's last claim, 0 if there is none. Raises OtherJournalError,
    NewerVersionError or LostError unless the directory may follow."""
    claimed, own_id = look(store).claimed, find_journal_id(directory)
    claim = claimed.claim if claimed else None
    if claim is None:
        if own_id is not None:
            raise LostError(
                f"{directory.path}: it has records of journal {own_id}, and the mirror has none"
            )
        return 0
    if own_id not in (None, claim.journal_id):
        raise OtherJournalError(
            f"{directory.path}: it belongs to journal {own_id}, and the mirror to journal "
            f"{claim.journal_id}; nothing was changed; follow into another directory"
        )
    if claim.format_version > SEGMENT_VERSION:
        raise NewerVersionError(
            f"the mirror has format version {claim.format_version}, which is newer than "
            f"{SEGMENT_VERSION}; use a newer journal-engine"
        )
    return claimed.epoch if claimed else 0


def _is_missing(disk: Disk, path: StrPath) -> bool:
    """Return whether there is no directory. Raises what `Disk.open_directory` raises."""
    try:
        disk.open_directory(path, write=False).close(unlock=False)
    except FileNotFoundError as error:
        if not is_disk_error(error, disk):
            raise
        return True
    return False


def _answered(call: Callable[[float], T], until_s: float) -> T:
    """Make requests, and repeat them until `until_s`, a time of the monotonic clock, while the
    store is unreachable. `call` gets the seconds that are left."""
    while True:
        try:
            return call(until_s - time.monotonic())
        except UnreachableError:
            if time.monotonic() + _RETRY_S >= until_s:
                raise
            time.sleep(_RETRY_S)

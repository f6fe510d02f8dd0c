"""Opening: locks and recovers a journal's directory, and starts its Core."""

from __future__ import annotations

import errno
import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from journal._commit.commit_turn import CommitTurn
from journal._commit.writer import NO_SPACE
from journal._disk import process
from journal._disk.disk import Directory, Disk, StrPath, clock_ns, is_disk_error
from journal._disk.posix import disk_or_default, path_of
from journal._engine.checkpoint_store import check_stateless
from journal._engine.core import Core
from journal._format.checkpoint import state_application
from journal._log import report
from journal._names import MIRROR, is_incomplete_copy, is_journal
from journal._recovery.recovery import Recovered, Recovery
from journal._waits import check_timeout_s
from journal.errors import (
    FailedError,
    JournalError,
    NotAJournalError,
    UnsafePathError,
)
from journal.options import Options

if TYPE_CHECKING:  # imported at first use: few journals have a mirror
    from journal._engine.mirroring import Link
    from journal._mirror.mirror import Mirror, MirrorChoice


class Opening:
    """An opening for writing: it locks the directory, recovers the log, and starts a Core.

    A context manager. If it is left with an exception, everything is undone: no thread and no lock
    remains. Otherwise the caller has to close the core.
    """

    def __init__(
        self,
        path: StrPath,
        options: Options,
        disk: Disk | None,
        lock_timeout_s: float | None = 0.0,
        mirror: MirrorChoice = None,
        takeover: bool = False,
    ) -> None:
        check_timeout_s(lock_timeout_s, "lock_timeout_s")
        self._mirror: Mirror | None = None
        self._is_unmirrored = mirror is False
        if takeover or not (mirror is None or mirror is False):
            from journal._mirror.mirror import chosen

            self._mirror = chosen(mirror, takeover, options)
        self._takeover = takeover
        self._link: Link | None = None
        self._journal_id: str | None = None  # from the mirror or its marker
        self._lock_timeout_s = lock_timeout_s
        self._path = path
        self._options = options
        self._disk = disk_or_default(disk)
        self._directory: Directory | None = None
        self._recovery: Recovery | None = None
        self._is_recovering = False
        self._core: Core | None = None

    def recover(self, accepts: tuple[str, ...]) -> Recovery:
        """Open and lock the directory. Return its recovery, whose batches must all be read.

        `accepts`: the applications whose checkpoint may be loaded; if it is empty, any.
        """
        process.check_interpreter(self._path)
        if self._mirror is not None:
            self._mirror._check(path_of(self._path))  # before the directory is made
        directory = self._directory = self._disk.open_directory(self._path, write=True)
        if self._lock_timeout_s == 0:
            directory.lock()
        else:
            from journal._disk.lock_wait import lock_within

            lock_within(directory, self._lock_timeout_s)
        names = checked_names(directory)
        self._attach(directory, names, accepts)
        self._is_recovering = True
        keep = self._options.checkpoints_kept
        holding = self._link.holding if self._link else None
        self._recovery = Recovery(directory, keep=keep, accepts=accepts, holding=holding)
        return self._recovery

    def _attach(self, directory: Directory, names: list[str], accepts: tuple[str, ...]) -> None:
        """Attach the directory to its mirror, if it has one."""
        if self._mirror is not None:
            from journal._engine.mirroring import Link

            self._link = Link(
                self._mirror,
                directory,
                self._disk,
                self._options,
                accepts,
                takeover=self._takeover,
            )
            self._link.attach()
            self._journal_id = self._link.journal_id
        elif MIRROR in names:
            from journal._engine.mirroring import check_unmirrored

            self._journal_id = check_unmirrored(directory, is_allowed=self._is_unmirrored)

    def start(self) -> Core:
        """Finish the recovery, start the flusher, and return its Core."""
        directory, recovery = self._directory, self._recovery
        assert directory is not None
        assert recovery is not None
        if self._options.has_retention and (newest := recovery.checkpoint):
            check_stateless(directory.path, newest.count, newest.application, self._options)
        recovered = recovery.finish()
        if recovered.journal_id is None:
            recovered = recovered._replace(journal_id=self._journal_id)
        if self._link is not None:
            recovered = recovered._replace(epoch=max(recovered.epoch, self._link.epoch))
        elif MIRROR in directory.names():
            from journal._engine.mirroring import note_unmirrored

            note_unmirrored(directory, recovered.last_lsn)
        if recovered.is_new and self._options.application:
            recovered = self._state_application(directory, recovered)
        self._is_recovering = False
        process.write_pid_note(directory, recovered.epoch)
        core = self._core = Core(directory, self._disk, self._options, recovered, self._turn_kind())
        try:
            if self._link is not None:
                core.mirror_with(self._link)
            core.start()
        except BaseException:  # an interrupt; another one may strike when the context is left
            core.drop()
            raise
        return core

    def start_journal(self) -> Core:
        """Do what `start` does, for a Journal without a state. If it was opened without the
        application that the journal states, it appends nothing."""
        core = self.start()
        if core.checkpoint and not self._options.application:
            core.buffer.owner_application = core.checkpoint.application
        return core

    def _turn_kind(self) -> type[CommitTurn]:
        if self._mirror is None or self._mirror.ack == "local":
            return CommitTurn
        from journal._commit.mirrored_turn import MirroredTurn

        return MirroredTurn

    def _state_application(self, directory: Directory, recovered: Recovered) -> Recovered:
        """State the application in a checkpoint, and return `recovered` with the journal's id."""
        journal_id = recovered.journal_id or self._disk.new_id().hex()
        try:
            state_application(
                directory,
                self._options.application,
                journal_id=journal_id,
                epoch=recovered.epoch,
                now_ns=clock_ns(self._disk),
            )
        except OSError as error:
            if error.errno not in NO_SPACE or not is_disk_error(error, directory):
                raise
            report(
                logging.WARNING,
                "%s: there is no space for the checkpoint that states the application: %s; until "
                "there is one, the journal opens for any application",
                directory.path,
                error,
            )
        return recovered._replace(journal_id=journal_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None or self._directory is None:
            return
        core = self._core
        with ExitStack() as undo:  # in the opposite order, whatever one of them raises
            if core:
                undo.callback(core.drop)
            else:
                undo.callback(self._directory.close, unlock=True)
                if self._recovery:
                    undo.callback(self._recovery.close)
            if self._link and not (core and core.mirroring):
                undo.callback(self._link.give_up)
        if core:
            return
        # A disk that can't be read proves nothing about its data, so this is not corruption.
        if not self._is_recovering or isinstance(error, JournalError):
            return
        if isinstance(error, OSError) and is_disk_error(error):
            what = f"{self._directory.path}: can't be recovered: {error}"
            if error.errno == errno.EROFS:
                what += "; read it with JournalReader"
            elif error.errno in (errno.EACCES, errno.EPERM):
                what += "; let this user write it, or read it with JournalReader"
            raise FailedError(what) from error


def checked_names(directory: Directory) -> list[str]:
    """Return the names of the files in a locked directory, which is a journal or empty. Raises
    UnsafePathError if it is neither, and NotAJournalError if it is an incomplete copy."""
    names = directory.names()
    if is_incomplete_copy(names):
        raise NotAJournalError(directory.path, is_incomplete_copy=True)
    if names and not is_journal(names):
        raise UnsafePathError(
            f"the directory contains files, such as {names[0]!r}, but no journal; "
            "give an empty or a new directory",
            path=directory.path,
        )
    return names

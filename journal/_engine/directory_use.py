"""DirectoryUse: who still uses a journal's open directory, and its release by the last of them."""

from __future__ import annotations

import logging

from journal._disk import process
from journal._disk.disk import Directory, is_disk_error
from journal._log import report


class DirectoryUse:
    """Releases the directory and its lock once: when the owner has closed the journal, or, if the
    owner is gone without a close, when the last thread leaves.

    Takes no lock, since a collector may drop the owner in any thread: the fields are changed by
    single atomic operations only.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._users: set[object] = set()
        self._has_owner = True
        self._is_released = False

    def enter(self, user: object) -> None:
        """Note that `user`, which stands for a thread, uses the directory until it leaves."""
        self._users.add(user)

    def leave(self, user: object) -> None:
        """Note that `user` uses it no more. Release it if nobody else does."""
        self._users.discard(user)
        self.release_if_unused()

    def drop_owner(self) -> None:
        """Note that the owner is gone, and will not close the journal."""
        self._has_owner = False

    def release_if_unused(self) -> None:
        """Release it if neither an owner nor a user is left."""
        if not self._has_owner and not self._users:
            self.release()

    def release(self) -> None:
        """Clear the note of who holds the lock, and close the directory. May be repeated."""
        if self._is_released:
            return
        try:
            try:
                process.clear_pid_note(self._directory)
            finally:
                self._directory.close(unlock=True)
        except OSError as error:  # the handle is gone all the same, and the lock with it
            if not is_disk_error(error):
                raise
            report(logging.WARNING, "%s: not closed well: %s", self._directory.path, error)
        self._is_released = True

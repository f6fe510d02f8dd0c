"""DirectoryUse: the users of a journal's open directory, and its release by the last one."""

from __future__ import annotations

import logging

from journal._disk import process
from journal._disk.disk import Directory, is_disk_error
from journal._log import report


class DirectoryUse:
    """Releases the directory and its lock once: when the owner closes the journal, or, if the owner
    is gone without a close, when the last thread leaves.

    It takes no lock, because the garbage collector may drop the owner in any thread. The fields are
    changed only by single atomic operations.
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
        """Note that `user` no longer uses the directory. Release it if nobody does."""
        self._users.discard(user)
        self.release_if_unused()

    def drop_owner(self) -> None:
        """Note that the owner is gone and will not close the journal."""
        self._has_owner = False

    def release_if_unused(self) -> None:
        """Release the directory if neither an owner nor a user is left."""
        if not self._has_owner and not self._users:
            self.release()

    def release(self) -> None:
        """Clear the note that names the writer, and close the directory. May be repeated."""
        if self._is_released:
            return
        try:
            try:
                process.clear_pid_note(self._directory)
            finally:
                self._directory.close(unlock=True)
        except OSError as error:  # the handle is gone nevertheless, and the lock with it
            if not is_disk_error(error):
                raise
            path = self._directory.path
            report(logging.WARNING, "%s: the directory was not closed cleanly: %s", path, error)
        self._is_released = True

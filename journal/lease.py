"""DirectoryLease: the directory and its lock, held until nobody uses them any more."""

from __future__ import annotations

import logging

from journal import process
from journal.log import report
from journal.storage import Directory, is_of_disk


class DirectoryLease:
    """Releases the directory when the owner closes it; or, if the owner was dropped, when the last
    thread that uses it has ended."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        # Changed by single atomic operations only.
        self._users: set[object] = set()
        self._is_owned = True
        self._is_released = False

    def add(self, user: object) -> None:
        """Note that a thread is going to use the directory. `user` stands for it."""
        self._users.add(user)

    def withdraw(self, user: object) -> None:
        """Note that a thread that was to use the directory has never started."""
        self._users.discard(user)

    def leave(self, user: object) -> None:
        """Note that a thread has ended, as the last thing that it does."""
        self._users.discard(user)
        self.release_if_unused()

    def disown(self) -> None:
        """Note that the owner was dropped, and will never close the directory."""
        self._is_owned = False

    def release_if_unused(self) -> None:
        """Release the directory if neither an owner nor a thread is left that would do it."""
        if not self._is_owned and not self._users:
            self.release()

    def release(self) -> None:
        """Close the directory, and free its lock. Calling it again does nothing."""
        if self._is_released:
            return
        try:
            try:
                process.unsign(self._directory)
            finally:
                self._directory.close(unlock=True)
        except OSError as error:  # the handle is gone all the same, and the lock with it
            if not is_of_disk(error):
                raise
            report(logging.WARNING, "%s: not closed well: %s", self._directory.path, error)
        self._is_released = True

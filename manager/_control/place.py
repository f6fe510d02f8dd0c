"""Place: the socket through which the manager of a state takes requests, in the directory `control`
beside the journal's files.

Only the owner of the state can reach it: the directory has mode 0700 and the socket 0600, and both
sides check the other's uid. Its maker holds the writer's lock, so a socket that is there already is
one that a killed writer has left.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import sys
from contextlib import suppress

from journal import UnsafePathError
from manager.companion import open_companion

DIRECTORY = "control"
SOCKET = "socket"
_ADDRESS_BYTES_MAX = 103 if sys.platform == "darwin" else 107
_HANDLES = "/proc/self/fd"
_BACKLOG = 64
_CONNECT_S = 10.0
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_XUCRED = struct.Struct("2I")  # the beginning of struct xucred on macOS: version, uid
_LOCAL_PEERCRED = 1


class Listener:
    """The socket of a writer, which listens."""

    def __init__(self, fd: int, listening: socket.socket) -> None:
        self._fd = fd
        self.socket = listening

    @classmethod
    def open(cls, state_path: str) -> Listener:
        """Make the socket, in place of a stale one. The caller holds the writer's lock.

        Raises UnsafePathError, and OSError, with ENAMETOOLONG if the system has no way to name the
        socket.
        """
        fd = open_companion(state_path, DIRECTORY, write=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path = os.path.join(state_path, DIRECTORY, SOCKET)
            _remove_stale(fd, path)
            listening.bind(_address(fd, path))
            os.chmod(SOCKET, 0o600, dir_fd=fd)
            listening.listen(_BACKLOG)
            listening.setblocking(False)
        except BaseException:
            listening.close()
            os.close(fd)
            raise
        return cls(fd, listening)

    def close(self) -> None:
        """Close the socket, and remove its name. The caller still holds the writer's lock."""
        with suppress(OSError):
            os.unlink(SOCKET, dir_fd=self._fd)
        self.forget()

    def forget(self) -> None:
        """Close the handles of this process only, as in a forked child."""
        self.socket.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def connect(state_path: str) -> socket.socket | None:
    """Return a connection to the writer of the state, or None if none listens.

    Raises UnsafePathError if the socket is another user's, and OSError.
    """
    try:
        fd = open_companion(state_path, DIRECTORY)
    except FileNotFoundError:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = os.path.join(state_path, DIRECTORY, SOCKET)
    try:
        connection.settimeout(_CONNECT_S)
        connection.connect(_address(fd, path))
        if not is_own(connection):
            raise UnsafePathError("another user's process listens there; move it away", path=path)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError) and not isinstance(error, UnsafePathError):
            error.filename = path
        raise
    finally:
        os.close(fd)
    return connection


def is_own(connection: socket.socket) -> bool:
    """Return whether the process at the other end has this process's effective uid."""
    if sys.platform == "darwin":
        credentials = connection.getsockopt(0, _LOCAL_PEERCRED, _XUCRED.size)
        uid = _XUCRED.unpack(credentials)[1]
    else:
        credentials = connection.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
        uid = _CREDENTIALS.unpack(credentials)[1]
    return bool(uid == os.geteuid())


def _address(fd: int, path: str) -> str:
    """Return a name of the socket that is short enough for the system.

    The handle of its directory gives one of any path, and can't be led elsewhere by a symlink.
    """
    if os.path.exists(f"{_HANDLES}/{fd}"):
        return f"{_HANDLES}/{fd}/{SOCKET}"
    if len(os.fsencode(path)) > _ADDRESS_BYTES_MAX:
        problem = (
            f"has over {_ADDRESS_BYTES_MAX} bytes, too many for a socket; "
            "use a state with a shorter path, or open it without control"
        )
        raise OSError(errno.ENAMETOOLONG, problem, path)
    return path


def _remove_stale(fd: int, path: str) -> None:
    try:
        mode = os.stat(SOCKET, dir_fd=fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UnsafePathError("is not a socket; move it away", path=path)
    os.unlink(SOCKET, dir_fd=fd)

"""Mounts: where a path leads, and the kind of file system that it is on."""

from __future__ import annotations

import os
import sys

from journal._mutex import is_raised_by_call

# A client of these may repeat a request whose answer was lost, so exclusive creation is not exact.
NETWORK_FILE_SYSTEMS = frozenset(("nfs", "nfs4"))


def file_system_of(path: str) -> str | None:
    """Return the type of the file system that holds `path`, such as "ext4". Return None where the
    system does not name it."""
    if sys.platform != "linux":
        return None
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                # proc_pid_mountinfo(5): the third field is the device, and the type follows " - ".
                if line.split(" ", 3)[2] == wanted:
                    return line.partition(" - ")[2].split(" ", 1)[0]
    except OSError as error:
        if not is_raised_by_call(error):
            raise
    return None


def is_inside(path: str, directory: str) -> bool:
    """Return whether `path` leads to the directory, or to a place in it."""
    path, directory = os.path.realpath(path), os.path.realpath(directory)
    return os.path.commonpath((path, directory)) == directory

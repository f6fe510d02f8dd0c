"""The holder of the lock on a directory, found in the kernel's lists of locks.

flock(2) has no call that names the holder of a lock.
"""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import islice

_LOCKS_BYTES = 4096  # one page; no system has smaller ones
# The number of descriptors to read for one process. The lock is taken early, so its descriptor is
# among the lowest. Reading a descriptor takes 10 us.
_DESCRIPTORS = 64


def lock_holder(directory: int, likely_pid: int | None) -> int | None:
    """Return the pid of the live process that locked the open `directory` with flock.

    Return 0 if that process has died and a fork of it still holds the lock, and None if nobody
    holds it. A holder in another pid namespace (container) is not seen.

    `likely_pid`: the process to look at first. Looking at one process takes microseconds; the list
    of all locks takes milliseconds, because the kernel stops the locking on every processor for it.
    Raises FileNotFoundError on a system without /proc/locks, such as macOS, and PermissionError
    in a sandbox that forbids reading it.
    """
    inode = listed_inode(directory)
    if likely_pid is not None and (pid := _holder_in(likely_pid, inode)) is not None:
        return pid
    for _ in range(3):
        pid, is_sure = _listed_holder(inode)
        if pid is not None or is_sure:
            return pid
    return None


def is_alive(pid: int) -> bool:
    """Return whether the process exists."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:  # it belongs to another user, so it is alive
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def listed_inode(directory: int) -> bytes:
    """Return the name of an open directory in /proc/locks, such as `fe:00:1191`.

    The numbers are those of its file system. fstat may return others: btrfs has a device number of
    its own for each subvolume.
    """
    with open(f"/proc/self/fdinfo/{directory}", "rb") as info:
        facts = dict(line.split()[:2] for line in info)
    status = os.fstat(directory)
    major, minor = os.major(status.st_dev), os.minor(status.st_dev)
    with open("/proc/self/mountinfo", "rb") as mounts:
        for line in mounts:
            mount_id, _, numbers = line.split()[:3]
            if mount_id == facts.get(b"mnt_id:"):  # gVisor has no mnt_id
                major, minor = map(int, numbers.split(b":"))
    return b"%02x:%02x:%d" % (major, minor, int(facts.get(b"ino:", status.st_ino)))


def _holder_in(pid: int, inode: bytes) -> int | None:
    """Return the holder of the lock, if a descriptor of process `pid` has the lock."""
    folder = f"/proc/{pid}/fdinfo"
    # An OSError means that the process has ended or belongs to another user.
    with suppress(OSError), os.scandir(folder) as descriptors:
        for descriptor in islice(descriptors, _DESCRIPTORS):  # the lowest ones come first
            with suppress(OSError), open(descriptor.path, "rb", buffering=0) as info:
                locks = info.read(_LOCKS_BYTES).replace(b"lock:", b"")
                if (holder := _holder_of(locks, inode)) is not None:
                    return holder
    return None


def _listed_holder(inode: bytes) -> tuple[int | None, bool]:
    """Return the holder that /proc/locks names, and whether the answer is certain.

    The kernel lists the locks in pages, and ends a page early if a lock and its waiters don't fit.
    So None is not certain if there is a second page: a lock that moves from one page to another
    between two reads is missed.
    """
    with open("/proc/locks", "rb", buffering=0) as locks:
        # Read only as much as needed: each read waits for all processors, which may take
        # milliseconds.
        listed = locks.read(_LOCKS_BYTES)
        if not listed:
            return None, True
        if (pid := _holder_of(listed, inode)) is not None:
            return pid, True
        more = locks.readall()
        return _holder_of(listed + more, inode), not more


def _holder_of(listed: bytes, inode: bytes) -> int | None:
    """Return the holder in lines such as `1: FLOCK ADVISORY WRITE 4257 fe:00:1191 0 EOF`."""
    for line in listed.splitlines():
        fields = line.split()
        # A waiter's line has a `->` there, so one field more. The last line may be cut off.
        if len(fields) == 8 and fields[1] == b"FLOCK" and fields[5] == inode:
            pid = int(fields[4])
            # The process that took the lock may have died, while a fork of it still holds it.
            return pid if is_alive(pid) else 0
    return None

"""Who holds the lock on a directory: flock(2) can not be asked, so the kernel's lists are read."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import islice

_LOCKS_BYTES = 4096  # no page is smaller
_DESCRIPTORS = 64  # of a process: a lock is taken early, and to look at one takes 10 us


def lock_holder(directory: int, likely_pid: int | None) -> int | None:
    """The pid of the live process that locked the open `directory` with flock, 0 if that has died
    and left the lock to a fork; None if nobody has it.

    `likely_pid` is only where to look first: to ask one process takes microseconds, all of them
    milliseconds, for the kernel stops every processor's locking. Raises FileNotFoundError where
    there is no /proc/locks: macOS. A holder in another pid namespace (container) is not seen.
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
    """Whether there is such a process."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:  # of another user, so alive
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def listed_inode(directory: int) -> bytes:
    """An open directory as /proc/locks names it, `fe:00:1191`: as its file system does.

    fstat may say otherwise: btrfs has a device number for each subvolume.
    """
    with open(f"/proc/self/fdinfo/{directory}", "rb") as info:
        facts = dict(line.split()[:2] for line in info)
    found = os.fstat(directory)
    major, minor = os.major(found.st_dev), os.minor(found.st_dev)
    with open("/proc/self/mountinfo", "rb") as mounts:
        for line in mounts:
            mount_id, _, numbers = line.split()[:3]
            if mount_id == facts.get(b"mnt_id:"):  # gVisor tells none
                major, minor = map(int, numbers.split(b":"))
    return b"%02x:%02x:%d" % (major, minor, int(facts.get(b"ino:", found.st_ino)))


def _holder_in(pid: int, inode: bytes) -> int | None:
    """The holder that a descriptor of process `pid` names, if one has the lock."""
    folder = f"/proc/{pid}/fdinfo"
    with suppress(OSError), os.scandir(folder) as descriptors:  # it has ended, or is another user's
        for descriptor in islice(descriptors, _DESCRIPTORS):  # they are listed from the lowest on
            with suppress(OSError), open(descriptor.path, "rb", buffering=0) as info:
                locks = info.read(_LOCKS_BYTES).replace(b"lock:", b"")
                if (holder := _holder_of(locks, inode)) is not None:
                    return holder
    return None


def _listed_holder(inode: bytes) -> tuple[int | None, bool]:
    """The holder that /proc/locks names.

    And whether that is sure: the kernel lists locks a page at a time, less where those that
    wait for one would not fit, and a lock that moves between two pages may be missed.
    """
    with open("/proc/locks", "rb", buffering=0) as locks:
        # No more than needed: a call may take milliseconds, it waits for all processors.
        listed = locks.read(_LOCKS_BYTES)
        if not listed:
            return None, True
        if (pid := _holder_of(listed, inode)) is not None:
            return pid, True
        more = locks.readall()
        return _holder_of(listed + more, inode), not more


def _holder_of(listed: bytes, inode: bytes) -> int | None:
    """From lines such as `1: FLOCK ADVISORY WRITE 4257 fe:00:1191 0 EOF`."""
    for line in listed.splitlines():
        fields = line.split()
        # Those that wait have `->` there; the last one may be cut off.
        if len(fields) == 8 and fields[1] == b"FLOCK" and fields[5] == inode:
            pid = int(fields[4])
            # A fork may hold the lock of a parent that has died.
            return pid if is_alive(pid) else 0
    return None

"""Guard: a small process that outlives its runner just long enough to kill the runner's commands.

A runner that is killed with SIGKILL can do nothing more, but the kernel closes its pipes. The guard
reads one of them. Each line is a request:

    lock HEX    wait for the lock on the file of this path (in hex), hold it until exit, answer "ok"
    +GROUP      this process group is about to run a command
    -GROUP      no process of this group is left

When the pipe ends, the guard kills the remaining groups and waits until they have ended. It holds
its lock until then. The guard of the next runner requests the same lock, so it answers only when no
process of the run before is left.

The guard runs as a script, by its path. It needs only the standard library, so it starts in 10 ms.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

_POLL_S = 0.005
_GONE = -1


def main() -> None:
    # A terminal's signals are for the runner. The guard ignores them, because the runner may have
    # commands that are still to be killed.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    leaders: dict[int, int | None] = {}
    for line in sys.stdin.buffer:
        verb, value = line[:1], line[1:]
        if verb == b"+":
            leaders[int(value)] = _open_process(int(value))
        elif verb == b"-":
            leader = leaders.pop(int(value), None)
            if leader is not None and leader != _GONE:
                os.close(leader)
        else:
            _lock(bytes.fromhex(line.split()[1].decode()))
            os.write(1, b"ok\n")
    groups = {group for group, leader in leaders.items() if not is_reused(group, leader)}
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    while groups and is_running(groups):
        time.sleep(_POLL_S)


def _open_process(pid: int) -> int | None:
    """Return a handle of the process, _GONE if it was reaped, or None if none can be opened."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return _GONE
    except (AttributeError, OSError):
        return None


def is_reused(group: int, leader: int | None) -> bool:
    """Return whether the number of a group has become that of a stranger.

    The kernel gives the number away only when the leader was reaped and no other process of the
    group is left. So if the leader was reaped, a process with its number is a stranger. `leader` is
    what `_open_process` returned for the leader.
    """
    if leader is None:
        return False
    try:
        if leader != _GONE:
            signal.pidfd_send_signal(leader, 0)
            return False
    except ProcessLookupError:
        pass  # it was reaped
    except PermissionError:
        return False  # it exists, as another user's
    try:
        os.kill(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def is_running(groups: set[int]) -> bool:
    """Return whether a process of `groups` is running. A zombie does not count."""
    if not os.path.exists("/proc/self/stat"):  # on macOS, where init reaps zombies at once
        return any(_exists(group) for group in groups)
    return any(running_pids(groups))


def running_pids(groups: set[int]) -> Iterator[int]:
    """Yield the processes of `groups` that are running, if the system lists them. A zombie does not
    count.
    """
    for name in os.listdir("/proc") if os.path.exists("/proc/self/stat") else ():
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The fields after the command, which may contain any character: the state, the
                # parent and the process group.
                state, _, group = file.read().rpartition(b")")[2].split()[:3]
                if int(group) in groups and state not in b"ZXx":
                    yield int(name)


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


def _lock(path: bytes) -> None:
    with suppress(FileNotFoundError):  # on a full disk, even this file may be missing
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(handle, fcntl.LOCK_EX)


if __name__ == "__main__":
    main()

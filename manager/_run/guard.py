"""Guard: a small process beside a runner that outlives it, by just enough to clear up after it.

A runner that is killed with SIGKILL can do nothing more, but the kernel closes its pipes. The
guard reads one of them, a command a line:

    lock HEX    lock the file of this path (in hex) until exit; waits, then answers "ok"
    +GROUP      this process group is about to run a command
    -GROUP      nothing of it is left

At the end of the pipe it kills the groups that are left and stays until they are gone. It holds
its lock as long, so the guard of the next runner, which asks for the same lock, answers only
when nothing of the run before is left.

It runs as a script, by its path: it needs the standard library alone and is up in 10 ms.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from contextlib import suppress

_POLL_S = 0.005


def main() -> None:
    # A terminal's signals are meant for the runner, which may have children yet to be killed.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        verb, value = line[:1], line[1:]
        if verb == b"+":
            groups.add(int(value))
        elif verb == b"-":
            groups.discard(int(value))
        else:
            _lock(bytes.fromhex(line.split()[1].decode()))
            os.write(1, b"ok\n")
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    while groups and is_running(groups):
        time.sleep(_POLL_S)


def is_running(groups: set[int]) -> bool:
    """Whether a process of these groups still runs; one that only waits to be reaped does not."""
    if not os.path.exists("/proc/self/stat"):  # macOS, where init reaps at once
        return any(_exists(group) for group in groups)
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # After the command, which may hold anything: state, parent, process group.
                state, _, group = file.read().rpartition(b")")[2].split()[:3]
                if int(group) in groups and state not in b"ZXx":
                    return True
    return False


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


def _lock(path: bytes) -> None:
    with suppress(FileNotFoundError):  # a full disk may have had no room even for this file
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(handle, fcntl.LOCK_EX)


if __name__ == "__main__":
    main()

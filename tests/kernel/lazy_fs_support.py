"""A mount of `lazy_fs` for a test, and the reason why a machine can't have one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import pytest

from tests.support import TIMEOUT_S


def obstacle() -> str:
    """Return what keeps this machine from mounting, or an empty text."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return str(error)
    return ""


class Mount:
    """The file system in a `with`, served by a process of its own."""

    def __init__(self, path: Path, *, limit_s: float) -> None:
        self.path = path
        self._limit_s = limit_s

    def command(self, *words: object) -> None:
        os.setxattr(self.path, "user.lazy", " ".join(map(str, words)).encode())

    def __enter__(self) -> Mount:
        self.path.mkdir()
        self._server = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.kernel.lazy_fs", str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # Once the server is dead, no call on the mount blocks.
        self._watchdog = threading.Timer(self._limit_s, self._server.kill)
        self._watchdog.start()
        assert self._server.stdout
        line = self._server.stdout.readline()
        if line != "mounted\n":
            output = line + self._end()
            if "not permitted" in output:
                pytest.skip(f"cannot mount: {line}")
            pytest.fail(output)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error:
            with suppress(OSError):  # for analysis
                shutil.copytree(self.path, self.path.with_name(f"{self.path.name}-left"))
        output = self._end()
        assert (self._server.returncode, output) == (0, "")

    def _end(self) -> str:
        """Unmount, whatever has happened. Return what the server printed."""
        try:
            output = self._server.communicate(timeout=TIMEOUT_S)[0]
        except subprocess.TimeoutExpired:
            self._server.kill()
            output = self._server.communicate()[0]
        self._watchdog.cancel()
        self._watchdog.join()
        if self._server.returncode:
            unmount = ["fusermount3", "-u", "-z", str(self.path)]
            output += subprocess.run(unmount, capture_output=True, text=True).stderr
        return output

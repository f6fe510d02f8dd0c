"""Pipes: the pipes of a journal's gates, which are used again when their gate is gone.

The flusher makes a pipe ready before it is needed. The first waiter, which makes the gate, holds
the log buffer's lock; a system call would let other threads run, which then wait for it.
"""

from __future__ import annotations

from weakref import ref

from journal._disk.pipe import Pipe, new_pipe

# The gate of the batch that fills takes one while the next is made ready. Gates have pipes while
# their waiters pass: mostly two or three gates.
_READY, _USED_MAX = 2, 6


class Pipes:
    def __init__(self) -> None:
        self._ready: list[Pipe] = []
        self._used: list[tuple[Pipe, ref[object]]] = []

    def prepare(self) -> None:
        """Make pipes ready, unless too many are used. Only the flusher calls this."""
        for index, (pipe, gate) in reversed(list(enumerate(self._used))):
            if gate() is None:
                del self._used[index]
                if pipe.shut():
                    self._ready.append(pipe)
        if len(self._ready) < _READY and len(self._used) < _USED_MAX and (new := new_pipe()):
            self._ready.append(new)

    def take(self) -> Pipe | None:
        """Return a pipe for a gate, if one is ready. Call `used_by` with both then."""
        return self._ready.pop() if self._ready else None

    def used_by(self, gate: object, pipe: Pipe) -> None:
        """Keep the pipe for later, when the gate is gone."""
        self._used.append((pipe, ref(gate)))

    def clear(self) -> None:
        """Drop all pipes. Those of gates are closed with them."""
        self._ready.clear()
        self._used.clear()

    def abandon(self) -> None:
        """Close all pipes, in a forked child."""
        for pipe in (*self._ready, *(pipe for pipe, _ in self._used)):
            pipe.abandon()
        self.clear()

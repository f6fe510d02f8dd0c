"""Backpressure: how many bytes may wait to be written, and when updates wait for an overdue
compaction.
"""

from __future__ import annotations

from journal._commit.gate import Gate
from journal.errors import BufferFullError

_NEVER = float("inf")


class Backpressure:
    """The log buffer's bounds, the bytes being committed, and the gate of waiters for room.

    The log buffer's lock guards it; `limit_bytes` and `committing_bytes` may be read without the
    lock. The log buffer counts the bytes of the filling batch and passes them with each call.
    """

    def __init__(self, bound_bytes: int) -> None:
        self.bound_bytes = bound_bytes
        self.committing_bytes = 0  # taken out of the log buffer, but not yet durable
        self._held_bytes = 0  # of these, committed here and held until a mirror has them
        self.stalls = 0
        # There is room while fewer bytes than this are used. It is half of the bound, or the number
        # of bytes that the log may still grow by before updates wait for a compaction, if less.
        self.limit_bytes: float = bound_bytes / 2
        self._log_bytes, self._hold_bytes = 0, _NEVER
        self._gate: Gate | None = None

    @property
    def free_bytes(self) -> int:
        """The number of bytes that the filling batch may have."""
        return self.bound_bytes - self.committing_bytes

    def check(self, filling_bytes: int, urgent: bool) -> None:
        """Raise BufferFullError if the filling batch may not grow to `filling_bytes`. An urgent
        record may exceed the bound by a quarter."""
        used_bytes, bound = filling_bytes + self.committing_bytes, self.bound_bytes
        if used_bytes > bound and not (urgent and used_bytes <= bound * 5 // 4):
            self.stalls += 1
            raise BufferFullError(
                f"the log buffer is full: {used_bytes} bytes would wait to be written, more than "
                f"buffer_bytes={bound}; nothing was appended. Wait first: wait_room(), or in an "
                "event loop `await room()`, or `await durable()` of a DurableDict"
            )

    def gate(self) -> Gate:
        """Return the gate that opens when there is room."""
        if self._gate is None or self._gate.opened:
            self._gate = Gate()
        return self._gate

    def last_gate(self) -> Gate | None:
        """Return the current gate, if any, which opens when the journal fails or ends."""
        return self._gate

    def begin_commit(self, size: int) -> None:
        """Note that `size` bytes are being committed. A size of 0 means that none are."""
        self.committing_bytes = self._held_bytes + size

    def end_commit(self, log_bytes: int, filling_bytes: int) -> Gate | None:
        """Note that the commit is durable, and the log's size. Return the gate to open, if any."""
        self.committing_bytes = self._held_bytes
        return self._update_limit(log_bytes, self._hold_bytes, filling_bytes)

    def hold(self, size: int) -> None:
        """Note that `size` bytes are committed, and held until a mirror has them."""
        self._held_bytes = size

    def release(self, size: int, log_bytes: int, filling_bytes: int) -> Gate | None:
        """Note that only `size` bytes are held from now on. Return the gate to open, if any."""
        self.committing_bytes -= self._held_bytes - size
        self._held_bytes = size
        return self._update_limit(log_bytes, self._hold_bytes, filling_bytes)

    def hold_from(self, log_bytes: float, filling_bytes: int) -> Gate | None:
        """Let the log grow to `log_bytes` before updates wait. Return the gate to open, if any."""
        return self._update_limit(self._log_bytes, log_bytes, filling_bytes)

    def give_room(self, room_bytes: float, filling_bytes: int) -> Gate | None:
        """Let the log grow by `room_bytes` more. Return the gate to open, if any."""
        used_bytes = self._log_bytes + filling_bytes + self.committing_bytes
        hold_bytes = max(self._hold_bytes, used_bytes) + room_bytes
        return self._update_limit(self._log_bytes, hold_bytes, filling_bytes)

    def _update_limit(self, log_bytes: int, hold_bytes: float, filling_bytes: int) -> Gate | None:
        # Uses the latest of both numbers, because the callers that wait for room commit nothing,
        # so no later commit would correct a stale limit.
        self._log_bytes, self._hold_bytes = log_bytes, hold_bytes
        growth_bytes = hold_bytes - log_bytes
        if growth_bytes <= 0 < self.limit_bytes:
            self.stalls += 1
        self.limit_bytes = min(self.bound_bytes / 2, growth_bytes)
        if self._gate is None or filling_bytes + self.committing_bytes >= self.limit_bytes:
            return None
        return self._gate

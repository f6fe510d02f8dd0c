"""Room: backpressure. How many bytes may wait to be written, and for how long updates go on beside
a compaction that is behind.
"""

from __future__ import annotations

from journal._commit.gate import Gate
from journal.errors import BufferFullError

_NEVER = float("inf")


class Room:
    """Two bounds, and the gate of those who wait for room. Guarded by the log buffer's lock; only
    `limit_bytes` may be read without."""

    def __init__(self, bound_bytes: int) -> None:
        self.bound_bytes = bound_bytes
        self.stalls = 0
        # There is room while fewer bytes are used: half of the bound, or what the log may still
        # grow by, from where it stood at the last commit to where updates wait for a compaction.
        self.limit_bytes: float = bound_bytes / 2
        self._log_bytes, self._hold_bytes = 0, _NEVER
        self._gate: Gate | None = None

    def check(self, used_bytes: int, urgent: bool) -> None:
        """Raise BufferFullError if so many bytes are too many. An urgent record may take a quarter
        more than the bound."""
        bound = self.bound_bytes
        if used_bytes > bound and not (urgent and used_bytes <= bound * 5 // 4):
            self.stalls += 1
            raise BufferFullError(
                f"{used_bytes} bytes would wait to be written, over buffer_bytes={bound}; "
                "nothing was appended: wait_room() first"
            )

    def gate(self) -> Gate:
        """Return the gate that opens when there is room."""
        if self._gate is None or self._gate.opened:
            self._gate = Gate()
        return self._gate

    def hold_from(self, log_bytes: float, used_bytes: int) -> Gate | None:
        """Let the log grow to `log_bytes` before updates wait. Return the gate to open, if any."""
        return self._limit(self._log_bytes, log_bytes, used_bytes)

    def grew(self, log_bytes: int, used_bytes: int) -> Gate | None:
        """Note where the log stands after a commit. Return the gate to open, if any."""
        return self._limit(log_bytes, self._hold_bytes, used_bytes)

    def last_gate(self) -> Gate | None:
        """Return the gate that is to open once there is nothing to wait for any more."""
        return self._gate

    def _limit(self, log_bytes: int, hold_bytes: float, used_bytes: int) -> Gate | None:
        # Whoever waits for room commits nothing, so the latest of both numbers decides.
        self._log_bytes, self._hold_bytes = log_bytes, hold_bytes
        if hold_bytes <= log_bytes and self.limit_bytes > 0:
            self.stalls += 1
        self.limit_bytes = min(self.bound_bytes / 2, hold_bytes - log_bytes)
        return self._gate if used_bytes < self.limit_bytes else None

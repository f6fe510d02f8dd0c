"""Backpressure: how many bytes may wait to be written, and for how long updates go on beside
a compaction that is behind.
"""

from __future__ import annotations

from journal._commit.gate import Gate
from journal.errors import BufferFullError

_NEVER = float("inf")


class Backpressure:
    """Two bounds, what is being committed, and the gate of those who wait for room.

    Guarded by the log buffer's lock; `limit_bytes` and `committing_bytes` may be read without. The
    bytes of the batch that fills are the log buffer's to count, and given with each call.
    """

    def __init__(self, bound_bytes: int) -> None:
        self.bound_bytes = bound_bytes
        self.committing_bytes = 0  # taken out of the log buffer, and not yet durable
        self.stalls = 0
        # There is room while fewer bytes are used: half of the bound, or what the log may still
        # grow by, from where it stood at the last commit to where updates wait for a compaction.
        self.limit_bytes: float = bound_bytes / 2
        self._log_bytes, self._hold_bytes = 0, _NEVER
        self._gate: Gate | None = None

    @property
    def free_bytes(self) -> int:
        """Return how many bytes the batch that fills may have."""
        return self.bound_bytes - self.committing_bytes

    def check(self, filling_bytes: int, urgent: bool) -> None:
        """Raise BufferFullError if the batch that fills may not grow to `filling_bytes`. An urgent
        record may take a quarter more than the bound."""
        used_bytes, bound = filling_bytes + self.committing_bytes, self.bound_bytes
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

    def last_gate(self) -> Gate | None:
        """Return the gate that is to open once there is nothing to wait for any more."""
        return self._gate

    def begin_commit(self, size: int) -> None:
        """Note that `size` bytes are being committed; 0: that they are not, after all."""
        self.committing_bytes = size

    def end_commit(self, log_bytes: int, filling_bytes: int) -> Gate | None:
        """Note that they are durable, and the log's size. Return the gate to open, if any."""
        self.committing_bytes = 0
        return self._limit(log_bytes, self._hold_bytes, filling_bytes)

    def hold_from(self, log_bytes: float, filling_bytes: int) -> Gate | None:
        """Let the log grow to `log_bytes` before updates wait. Return the gate to open, if any."""
        return self._limit(self._log_bytes, log_bytes, filling_bytes)

    def _limit(self, log_bytes: int, hold_bytes: float, filling_bytes: int) -> Gate | None:
        # Whoever waits for room commits nothing, so the latest of both numbers decides.
        self._log_bytes, self._hold_bytes = log_bytes, hold_bytes
        if hold_bytes <= log_bytes and self.limit_bytes > 0:
            self.stalls += 1
        self.limit_bytes = min(self.bound_bytes / 2, hold_bytes - log_bytes)
        used_bytes = filling_bytes + self.committing_bytes
        return self._gate if used_bytes < self.limit_bytes else None

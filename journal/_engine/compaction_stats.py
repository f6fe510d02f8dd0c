"""CompactionStats: how many compactions succeeded and failed since open."""

from __future__ import annotations

from journal._mutex import HandlerSafeLock
from journal.errors import ClosedError


class CompactionStats:
    """Counts since open. `succeeded` is called under the compactor's lock, `failed` without it; any
    thread may read."""

    def __init__(self) -> None:
        self.compactions = 0
        self.compaction_ns = self.checkpoint_bytes = 0
        # Guards the two fields below. The compactor's lock may be held for too long.
        self._failure_lock = HandlerSafeLock()
        # Only the text of the last error is kept: its frames would keep the owner's state alive.
        self.failures, self.last_error = 0, ""
        self._gave_up = False  # whether the last attempt ended with a ClosedError

    def succeeded(self, checkpoint_bytes: int, duration_ns: int) -> None:
        """Count a compaction that succeeded."""
        self.compactions += 1
        self.compaction_ns += duration_ns
        self.checkpoint_bytes += checkpoint_bytes
        self._gave_up = False

    def failed(self, error: BaseException, *, is_stopping: bool) -> str:
        """Count a failed compaction. Return the error as text, or "" if it was given up."""
        # A journal that closes refuses compactions shortly before `is_stopping` is set, so the
        # first ClosedError is not counted. If the next compaction is refused as well, the journal
        # is open, and compaction does not work.
        gave_up_before, self._gave_up = self._gave_up, isinstance(error, ClosedError)
        if self._gave_up and (is_stopping or not gave_up_before):
            return ""
        text = _text_of(error)
        with self._failure_lock:
            self.last_error = text
            self.failures += 1
        return text


def _text_of(error: BaseException) -> str:
    """Return the error's type and message. Its `__str__` is foreign code, which may raise."""
    name = "an error without a name"
    try:
        name = type(error).__name__
        return f"{name}: {error}".removesuffix(": ")
    except BaseException:
        return name

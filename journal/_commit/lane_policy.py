"""LanePolicy: how many syncs may be in flight, as the measured ones decide.

A crowd of waiters comes back one after the other, and that takes a part of the time of a slow sync.
If the disk takes several syncs side by side, one part of the crowd comes back while the others'
syncs are in flight. A disk that takes them in turn makes each one longer; then they stay alone.
"""

from __future__ import annotations

from collections import deque

_CROWD_A_LANE = 48  # a smaller crowd comes back too quickly to gain anything
SLOW_SYNC_NS = 1_000_000
# A crowd that comes back in less than a quarter of a sync gains nothing. Nor does one that takes
# over four syncs: they are then a small part of the time, and lanes make the commits smaller.
_RETURN_PART = 4
_SAMPLES = 9
_PAUSE_MIN, _PAUSE_MAX = 1024, 65536  # commits until syncs side by side are tried again


class LanePolicy:
    """Counts `lanes` from the last syncs. It is used in one thread at a time."""

    def __init__(self, lanes_max: int) -> None:
        self._lanes_max = lanes_max
        self.lanes = 1
        self._alone_ns: deque[int] = deque(maxlen=_SAMPLES)
        self._return_ns: deque[int] = deque(maxlen=_SAMPLES)
        self._beside_ns: deque[int] = deque(maxlen=_SAMPLES)
        self._pause = 0  # commits
        self._next_pause = _PAUSE_MIN

    def note_alone(self, sync_ns: int, return_ns: int, crowd: int) -> None:
        """Note a slow sync that was alone, and the time before it in which its waiters came back.
        `crowd`: the number of waiters expected for the next one."""
        if crowd < 2 * _CROWD_A_LANE:
            return
        self._alone_ns.append(sync_ns)
        self._return_ns.append(return_ns)
        if self._pause:
            self._pause -= 1
        elif len(self._alone_ns) == _SAMPLES:
            return_ns, alone_ns = _median(self._return_ns), _median(self._alone_ns)
            if not alone_ns / _RETURN_PART <= return_ns <= alone_ns * _RETURN_PART:
                return
            self._beside_ns.clear()
            self.lanes = min(crowd // _CROWD_A_LANE, self._lanes_max)

    def note_beside(self, sync_ns: int, crowd: int, *, has_company: bool) -> None:
        """Note a sync in a lane. `has_company`: another one was in flight meanwhile."""
        if crowd < 2 * _CROWD_A_LANE:
            self.lanes = 1  # a lane costs two thread switches
        if self.lanes == 1 or not has_company:
            return
        self._beside_ns.append(sync_ns)
        if len(self._beside_ns) < _SAMPLES:
            return
        beside_ns = _median(self._beside_ns)
        if beside_ns > _median(self._alone_ns) + _median(self._return_ns) // 2:
            self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause, _PAUSE_MAX)
            self.lanes = 1
            return
        self._next_pause = _PAUSE_MIN
        if beside_ns < SLOW_SYNC_NS:
            self.lanes = 1


def _median(samples: deque[int]) -> int:
    return sorted(samples)[len(samples) // 2]

"""Roster: the workers that a manager has heard of since its dispatcher was opened."""

from __future__ import annotations

from dataclasses import dataclass, field

_WORKERS_MAX = 10_000


@dataclass(slots=True)
class KnownWorker:
    """A worker, as its last requests have described it."""

    worker: str
    """The id of the worker."""

    seen_s: float
    """The time of its last sign of life, by the monotonic clock."""

    slots: int = 0
    """The number of agents that it can still take, as it said last."""

    queues: list[str] = field(default_factory=list)
    """The queues that it serves."""

    machine: str = ""
    """The name of its machine, as it says."""

    number: int = 0
    """The number of its newest request for agents."""


class Roster(dict[str, KnownWorker]):
    """The known workers, by their ids. Those that have been silent longest are forgotten."""

    def seen(self, worker: str, now_s: float) -> KnownWorker:
        """Note a sign of life of a worker, and return what is known of it."""
        known = self.setdefault(worker, KnownWorker(worker, now_s))
        known.seen_s = now_s
        return known

    def shrink(self) -> None:
        """Forget the workers that have been silent longest if there are too many."""
        if len(self) <= _WORKERS_MAX:
            return
        oldest = sorted(self.values(), key=lambda known: known.seen_s)
        for known in oldest[: len(oldest) - _WORKERS_MAX // 2]:
            del self[known.worker]

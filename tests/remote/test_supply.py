"""The agents that a worker may be given next, of a long queue."""

from __future__ import annotations

import pytest

from journal.testing import SimulatedDisk
from manager import Limits, SubAgentManager
from manager._remote.supply import FleetSupply
from manager.limits import HOLD_AGENTS_MAX
from manager.queue import Queue

ROOMY = Limits(max_running=10**6, max_admitted=10**6)
AGENTS = 4 * HOLD_AGENTS_MAX


@pytest.mark.parametrize("refused", [0, 1, HOLD_AGENTS_MAX, AGENTS])
def test_each_queued_agent_is_a_candidate_once(
    refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each queued agent is a candidate once, in order, even if the first ones can't be started and
    stay in the queue. One hold of the lock looks at no more agents than twice the refused ones,
    and some more."""
    counts: list[int | None] = []
    first = Queue.first

    def noted(queue: Queue, types: list[str], count: int | None, queues: list[str]) -> list[str]:
        counts.append(count)
        return first(queue, types, count, queues)

    with SubAgentManager.open("/", state_dir="s", disk=SimulatedDisk(), limits=ROOMY) as manager:
        ids = [manager.spawn("p", agent_type="t", queued=True).agent_id for _ in range(AGENTS)]
        monkeypatch.setattr(Queue, "first", noted)
        seen: list[str] = []
        for agent_id in FleetSupply(manager._state).candidates({"t"}, {"default"}):
            seen.append(agent_id)
            if len(seen) > refused:
                manager.start(agent_id)
        assert seen == ids
        assert all(count and count <= 2 * refused + HOLD_AGENTS_MAX for count in counts)

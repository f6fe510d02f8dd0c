"""A plain model of a fleet: agents in a dict, and what each call does to them or raises."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from manager import (
    Agent,
    Limits,
    ManagerError,
    UnknownAgentError,
)

LIVE = ("queued", "running", "interrupted")

Resolved = Agent | type[ManagerError]


@dataclass
class Model:
    """A fleet's agents, in dicts.

     `sources` has the counted sources of usage, by agent. `own` maps each agent ever spawned to the
    tokens that it used itself, and `parents` to its  parent. Both keep removed agents. No agent is
    mutated, so a copy of the dicts is a copy of the  model.
    """

    limits: Limits
    agents: dict[str, Agent] = field(default_factory=dict)
    own: dict[str, int] = field(default_factory=dict)
    parents: dict[str, str | None] = field(default_factory=dict)
    sources: set[tuple[str, str]] = field(default_factory=set)  # of usage, by agent

    def copy(self) -> Model:
        dicts = self.agents.copy(), self.own.copy(), self.parents.copy()
        return Model(self.limits, *dicts, self.sources.copy())

    # --- queries ---

    def resolve(self, ref: str) -> Resolved:
        if ref in self.agents:
            return self.agents[ref]
        named = [agent for agent in self.agents.values() if agent.name == ref]
        live = [agent for agent in named if agent.status in LIVE]
        by_age = sorted(named, key=lambda agent: (agent.attempt, agent.created_at_ms))
        return (live or by_age)[-1] if named else UnknownAgentError

    def next_attempt(self, name: str) -> int:
        """Return the attempt of a new agent of this name."""
        named = [agent.attempt for agent in self.agents.values() if agent.name == name]
        return max(named, default=0) + 1

    def live(self) -> list[Agent]:
        return [agent for agent in self.agents.values() if agent.status in LIVE]

    def is_full(self) -> bool:
        running = [agent for agent in self.agents.values() if agent.status == "running"]
        return len(running) >= self.limits.max_running

    def is_name_in_use(self, name: str) -> bool:
        return any(agent.name == name for agent in self.live())

    def lineage(self, agent_id: str | None) -> list[str]:
        """Return the agent and its ancestors, up to the root."""
        line = []
        while agent_id is not None:
            line.append(agent_id)
            agent_id = self.parents[agent_id]
        return line

    def descendants(self, agent_id: str) -> list[Agent]:
        """Return all descendants that are still in the fleet."""
        return [
            agent
            for agent in self.agents.values()
            if agent_id in self.lineage(agent.agent_id) and agent.agent_id != agent_id
        ]

    def is_spent(self, agent_id: str | None, new_budget: int | None = None) -> bool:
        """Return whether the agent, which may be about to get a new budget, can't start."""
        agents = [self.agents[above] for above in self.lineage(agent_id)]
        if new_budget is not None:
            agents[0] = replace(agents[0], token_budget=new_budget)
        return any(a.token_budget is not None and a.tokens_used >= a.token_budget for a in agents)

    def used(self, agent_id: str) -> int:
        """Return the agent's own tokens plus those of all descendants ever spawned."""
        return sum(used for each, used in self.own.items() if agent_id in self.lineage(each))

    # --- changes ---

    def put(self, agent: Agent, *, added: int = 0) -> None:
        """Store the agent as it is now, after it used `added` more tokens."""
        agent_id = agent.agent_id
        self.agents[agent_id] = agent
        self.parents.setdefault(agent_id, agent.parent_id)
        self.own[agent_id] = self.own.get(agent_id, 0) + added
        for above in self.lineage(agent_id)[1:] if added else ():
            self.agents[above] = replace(
                self.agents[above], tokens_used=self.used(above), lsn=agent.lsn
            )

    def remove(self, agent_id: str) -> None:
        del self.agents[agent_id]

    def check_retained(self, before: dict[str, Agent], at_ms: int) -> None:
        """Check what retention has left of the agents `before`."""
        limits = self.limits
        assert limits.keep_ended_s is not None
        assert limits.keep_ended_max is not None
        before_ms = at_ms - limits.keep_ended_s * 1000
        left = self.agents
        parents = {agent.parent_id for agent in left.values()}
        ended_before = [agent for agent in before.values() if agent.status not in LIVE]
        ended = [agent for agent in ended_before if agent.agent_id in left]

        def is_awaited(agent: Agent) -> bool:
            parent = before.get(agent.parent_id or "")
            if parent is None or agent.taken_by is not None:
                return False
            return parent.ended_at_ms is None or parent.ended_at_ms > before_ms

        for agent in before.values():
            if agent.agent_id not in left:
                assert agent.ended_at_ms is not None
                assert agent.agent_id not in parents
                assert not is_awaited(agent)
        free = [a for a in ended if a.agent_id not in parents and not is_awaited(a)]
        assert all(a.ended_at_ms > before_ms for a in free if a.ended_at_ms is not None)
        assert not free or len(ended) <= limits.keep_ended_max
        young = [a for a in ended_before if a.agent_id not in left]
        young = [a for a in young if a.ended_at_ms is not None and a.ended_at_ms > before_ms]
        assert not young or len(ended) >= limits.keep_ended_max

    def removable(self, ended_before_ms: float) -> set[str]:
        """Return the ids that cleanup removes: agents that ended by then, with all descendants."""

        def is_old(agent: Agent) -> bool:
            return agent.ended_at_ms is not None and agent.ended_at_ms <= ended_before_ms

        return {
            agent.agent_id
            for agent in self.agents.values()
            if is_old(agent) and all(map(is_old, self.descendants(agent.agent_id)))
        }

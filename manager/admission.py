"""Admission: the checks that decide under the lock whether a change of an agent is allowed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from manager import records
from manager.agent import ENDED, TRANSITIONS, VERBS, Row, get
from manager.errors import (
    AlreadyTakenError,
    BudgetError,
    CapacityError,
    NameInUseError,
    TransitionError,
)
from manager.layouts import Record
from manager.names import Names

if TYPE_CHECKING:
    from manager.limits import Limits


class Admission:
    """The checks of a fleet. Each takes constant time, but for one step for each ancestor."""

    rows: Mapping[str, Row]
    counts: dict[str, int]
    by_name: Names

    @abstractmethod
    def find(self, ref: str) -> Row: ...

    def refuse_verb(self, row: Row, verb: str, target: str) -> None:
        """Raise TransitionError, because `verb` is not allowed in that agent's status."""
        status = get.status(row)
        allowed = TRANSITIONS[status]
        names = get.agent_id(row), get.name(row)
        sources = VERBS[verb][0]
        needs = ["ended"] if sources == ENDED else [s for s in sources if s != status]
        raise TransitionError(*names, status, target, verb, allowed, needs)

    def is_due(self, row: Row, verb: str, target: str, limits: Limits, record: Record) -> bool:
        """Return whether `record` of `verb` changes the agent. Raise an error unless it may give
        the agent the status `target` now."""
        status = get.status(row)
        if status not in VERBS[verb][0]:
            if verb == "cancel":  # of an agent that has ended
                return False
            self.refuse_verb(row, verb, target)
        if target == "running":
            if status != "running":
                is_resume = record[records.KIND] == "resume"
                budgets = record[records.TOKEN_BUDGET_OF_RESUME :] if is_resume else ()
                self.check_budget(row, *budgets)
                self.check_running(limits)
        elif target == status and verb != "answer":
            self.refuse_verb(row, verb, target)
        return True

    def check_take(self, row: Row, taker: Row, record: Record | None) -> None:
        """Raise an error unless `taker` may take the result of the agent of `row`.

        `record` is the taker's progress, or None.
        """
        if get.status(row) not in ENDED:
            self.refuse_verb(row, "take", "taken")
        names = get.agent_id(row), get.name(row)
        taken_by, at_ms = get.taken_by(row), get.taken_at_ms(row)
        if taken_by is not None and at_ms is not None:
            raise AlreadyTakenError(*names, taken_by, at_ms)
        if get.agent_id(taker) == names[0]:
            raise ValueError(f"by must be another agent than {names[0]}, whose result is taken")
        if record is not None and get.status(taker) != "running":
            self.refuse_verb(taker, "update_checkpoint", "running")

    def check_admission(
        self, name: str | None, parent_ref: str | None, limits: Limits, *, queued: bool
    ) -> Row | None:
        """Return the parent of a new agent, or None. Raise an error unless it may be admitted."""
        parent = None if parent_ref is None else self.find(parent_ref)
        self.check_budget(parent)
        self.check_spawn(name, parent, limits)
        if not queued:
            self.check_running(limits)
        return parent

    def check_running(self, limits: Limits) -> None:
        """Raise CapacityError unless one more agent may run."""
        if self.counts["running"] >= limits.max_running:
            advice = "wait until an agent ends, spawn with queued=True, or raise the limit"
            raise CapacityError("max_running", limits.max_running, self.counts, advice)

    def check_spawn(self, name: str | None, parent: Row | None, limits: Limits) -> None:
        """Raise CapacityError or NameInUseError unless an agent with this name and parent may be
        admitted.
        """
        depth = 0 if parent is None else get.spawn_depth(parent) + 1
        if parent is not None and depth > limits.max_depth:
            cause = f"a child of agent {get.agent_id(parent)} would be at depth {depth}"
            advice = "spawn it below another agent, or raise the limit"
            raise CapacityError("max_depth", limits.max_depth, self.counts, f"{cause}; {advice}")
        if name is not None and (holder := self.by_name.live(name)) is not None:
            raise NameInUseError(name, holder, get.status(self.rows[holder]))
        if name is not None and (row := self.rows.get(name)) is not None:
            raise NameInUseError(name, name, get.status(row))  # an imported agent's id
        counts = self.counts
        live = counts["queued"] + counts["running"] + counts["interrupted"]
        if live >= limits.max_admitted:
            advice = f"{live} agents have not ended; wait, cancel some, or raise the limit"
            raise CapacityError("max_admitted", limits.max_admitted, counts, advice)

    def check_budget(self, row: Row | None, new_budget: int | None = None) -> None:
        """Raise BudgetError if the budget of the agent, or of an ancestor, is spent.

        `new_budget` is the budget that the agent is about to get; None means that it keeps its own.
        """
        while row is not None:
            budget, new_budget = new_budget or get.token_budget(row), None
            if budget is not None and get.tokens_used(row) >= budget:
                raise BudgetError(get.agent_id(row), get.name(row), budget, get.tokens_used(row))
            parent_id = get.parent_id(row)
            row = None if parent_id is None else self.rows[parent_id]

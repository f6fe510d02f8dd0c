"""Programs that test a state machine, and that use `manager`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import assert_type

from hypothesis.strategies import DataObject, integers

from journal import Record, StatsSource
from journal.testing import (
    Bounds,
    BrokenPromiseError,
    Change,
    ExplorationReport,
    History,
    ManualOptions,
    Medium,
    Mutation,
    Operation,
    Outcome,
    Owner,
    Query,
    SimulatedDirectory,
    SimulatedDisk,
    SimulatedFile,
    explore,
    fates,
    keep,
    lose,
    seeded,
)
from journal.testing.machine import CrashMachine, Draw, Step
from manager import (
    OPTIONAL_RECORD_FIELDS,
    Agent,
    AgentChange,
    AgentResult,
    AlreadyTakenError,
    AmbiguousNameError,
    BudgetError,
    CapacityError,
    Changes,
    FleetTransaction,
    FleetTransactionContext,
    FleetView,
    LegacyError,
    Limits,
    ManagerError,
    NameInUseError,
    Progress,
    Status,
    SubAgentManager,
    TransitionError,
    UnknownAgentError,
    WorkContext,
    Worker,
    follow_fleet,
    read_fleet,
    read_fleets,
    read_history,
    run_workers,
)
from tests.project.typed_programs.journals import Jobs

# --- crash tests ---


class JobsMachine(CrashMachine[Jobs]):
    machine = Jobs

    def draw_record(self, draw: Draw, machine: Jobs) -> Record | None:
        return ["queued", str(draw(integers(0, 9)))]

    def steps(self, data: DataObject) -> dict[str, Step]:
        return {**super().steps(data), "nothing": lambda: None}


def use_testing() -> None:
    def work(owner: Owner[Jobs]) -> None:
        assert_type(owner.append(["queued", "a"]), int)
        owner.wait()

    assert_type(explore(Jobs, work, bounds=Bounds()), ExplorationReport)
    disk = SimulatedDisk()
    directory: SimulatedDirectory = disk.open_directory("/d", write=True)
    file: SimulatedFile = directory.open("f", "create")
    medium: Medium = disk.snapshot()
    outcomes: Iterable[Outcome] = [keep, lose, seeded(3)]
    change: Mutation = "sync"
    question: Query = "names"
    operations: list[Operation] = [change, question]
    disk.fail(operations[0], 5)
    disk.power_cut(next(iter(outcomes)))
    print(file, medium, fates(Change("write", "/d/f", 0, b"")), ManualOptions, History)
    disk.fail("synchronize", 5)  # type: ignore[arg-type]
    raise BrokenPromiseError("P1")


# --- a manager ---


async def count(context: WorkContext) -> str:
    assert_type(await context.checkpoint({"at": 1}), Agent)
    assert_type(context.cancelled.is_set(), bool)
    return f"{context.agent.name} is done"


async def use_workers(manager: SubAgentManager) -> None:
    worker: Worker = count
    print(OPTIONAL_RECORD_FIELDS["resume"] + 1)
    assert_type(manager.find_or_spawn("count", name="a", queued=True), Agent)
    await run_workers(manager, {"count": worker})
    async for child in manager.results("lead"):
        assert_type(child, Agent)
        try:
            manager.take(child.agent_id, by="lead", checkpoint={"took": child.result})
        except AlreadyTakenError as error:
            assert_type(error.taken_by, str)
    events: list[Progress] = manager.events("a", after=3)
    assert_type(events[0]["number"], int)
    assert_type(manager.find("nobody"), Agent | None)
    await run_workers(manager, {"count": len})  # type: ignore[dict-item]


async def use_manager(workspace: Path) -> None:
    with SubAgentManager.open(workspace, limits=Limits(max_running=4)) as manager:
        agent: Agent = manager.spawn("count the words", name="counter", token_budget=100)
        status: Status = agent.status
        result = AgentResult("42", status="completed")
        manager.update_from_result(agent.agent_id, result)
        changes: Changes = manager.changes()
        source: StatsSource = manager
        print(status, changes, source)
        transaction: FleetTransactionContext = manager.transaction()
        with transaction as t:
            assert_type(t, FleetTransaction)
            assert_type(t.spawn("check it"), str)
            t[manager.tables.table("answers")]["counter"] = 42
            t.spawn(3)  # type: ignore[arg-type]
        manager.spawn(3)  # type: ignore[arg-type]
        AgentResult("42", status="done")  # type: ignore[arg-type]
        print(agent.nope)  # type: ignore[attr-defined]
        try:
            manager.wait_durable()
        except (BudgetError, CapacityError, NameInUseError, TransitionError) as error:
            problem: ManagerError = error
            raise LegacyError("fleet.json", "x") from problem
        except (AmbiguousNameError, UnknownAgentError):
            pass
    fleet: FleetView = read_fleet(workspace / ".subagents")
    history: list[AgentChange] = read_history(workspace / ".subagents", agent.agent_id)
    views: list[FleetView] = read_fleets(workspace / ".subagents", (0, fleet.lsn))
    read_fleets(workspace, [None])  # type: ignore[list-item]
    print(fleet, views, history, follow_fleet(workspace))

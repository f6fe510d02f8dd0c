"""A manager of sub-agents that survive their process: every change is journaled.

with SubAgentManager.open(".") as manager:
    agent = manager.spawn("count the words", name="counter")
    manager.update_from_result(agent.agent_id, AgentResult("42"))
    manager.wait_durable()
"""

from __future__ import annotations

import importlib

# Not a public name: `typing.get_type_hints` looks up the types of public fields here.
from dataclasses import KW_ONLY as KW_ONLY
from typing import TYPE_CHECKING

import journal

# A file or folder called `journal` in the user's own program may come before ours on sys.path.
if not {"DurableState", "CowTable", "UnsafePathError"} <= set(dir(journal)):
    location = journal.__file__ or list(getattr(journal, "__path__", []))
    raise ImportError(
        "manager needs the journal package that it was installed with, but `import journal` found "
        f"{location}; rename that file or folder, or remove it from sys.path",
        name="journal",
        path=journal.__file__,
    )

from manager.agent import JSON, Agent, Lease, Progress, Status
from manager.errors import (
    AlreadyTakenError,
    AmbiguousNameError,
    BudgetError,
    CapacityError,
    DispatchError,
    LegacyError,
    ManagerError,
    NameInUseError,
    TransitionError,
    UnknownAgentError,
)

if TYPE_CHECKING:
    from manager._remote.dispatcher import Dispatcher, WorkerInfo
    from manager._remote.serving import serve
    from manager.changes import Changes
    from manager.history import AgentChange, read_history
    from manager.layouts import OPTIONAL_RECORD_FIELDS, RECORD_FIELDS
    from manager.limits import Limits
    from manager.machine import fleet_machine
    from manager.manager import SubAgentManager
    from manager.records import APPLICATION_PREFIX
    from manager.result import AgentResult
    from manager.transaction import FleetTransaction, FleetTransactionContext
    from manager.values import AGENT_ID_PATTERN
    from manager.view import FleetView, follow_fleet, read_fleet, read_fleets
    from manager.worker import WorkContext, Worker, run_workers
    from manager.workspace import StrPath

__all__ = [
    "AGENT_ID_PATTERN",
    "APPLICATION_PREFIX",
    "JSON",
    "OPTIONAL_RECORD_FIELDS",
    "RECORD_FIELDS",
    "Agent",
    "AgentChange",
    "AgentResult",
    "AlreadyTakenError",
    "AmbiguousNameError",
    "BudgetError",
    "CapacityError",
    "Changes",
    "DispatchError",
    "Dispatcher",
    "FleetTransaction",
    "FleetTransactionContext",
    "FleetView",
    "Lease",
    "LegacyError",
    "Limits",
    "ManagerError",
    "NameInUseError",
    "Progress",
    "Status",
    "StrPath",
    "SubAgentManager",
    "TransitionError",
    "UnknownAgentError",
    "WorkContext",
    "Worker",
    "WorkerInfo",
    "fleet_machine",
    "follow_fleet",
    "read_fleet",
    "read_fleets",
    "read_history",
    "run_workers",
    "serve",
]

# The modules of names that are imported only on first use. So reading a fleet does not load the
# code that writes one, and reading a log loads neither.
_MODULES = {
    "AGENT_ID_PATTERN": "manager.values",
    "APPLICATION_PREFIX": "manager.records",
    **dict.fromkeys(("OPTIONAL_RECORD_FIELDS", "RECORD_FIELDS"), "manager.layouts"),
    "AgentChange": "manager.history",
    "AgentResult": "manager.result",
    "Changes": "manager.changes",
    **dict.fromkeys(("Dispatcher", "WorkerInfo"), "manager._remote.dispatcher"),
    **dict.fromkeys(("FleetTransaction", "FleetTransactionContext"), "manager.transaction"),
    "Limits": "manager.limits",
    "StrPath": "manager.workspace",
    "SubAgentManager": "manager.manager",
    **dict.fromkeys(("WorkContext", "Worker", "run_workers"), "manager.worker"),
    "fleet_machine": "manager.machine",
    **dict.fromkeys(("FleetView", "follow_fleet", "read_fleet", "read_fleets"), "manager.view"),
    "read_history": "manager.history",
    "serve": "manager._remote.serving",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})

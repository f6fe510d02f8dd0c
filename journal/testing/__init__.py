"""Crash tests: a simulated disk that fails and loses power, and an explorer of every crash.

    disk = SimulatedDisk()
    with Journal.open("/jobs", disk=disk) as journal:
        ...
    disk.power_cut(drawn(lambda most: data.draw(integers(0, most))))  # Hypothesis decides

`explore` runs a workload once and judges every crash that could have struck during it. The workload
uses an `Owner`, which holds a state machine and its journal on the simulated disk.
`journal.testing.machine` has a Hypothesis machine that crashes a state machine at random, and
`journal.testing.fixtures` has fixtures for pytest. The engine does not import this package.
"""

from __future__ import annotations

from journal.testing.disk import (
    Mutation,
    Operation,
    Query,
    SimulatedDirectory,
    SimulatedDisk,
    SimulatedFile,
)
from journal.testing.explorer import ExplorationReport, explore
from journal.testing.history import BrokenPromiseError, History
from journal.testing.medium import Medium
from journal.testing.outcome import Change, Outcome, drawn, fates, keep, lose, seeded
from journal.testing.outcomes import Bounds
from journal.testing.owner import ManualOptions, Owner

__all__ = [
    "Bounds",
    "BrokenPromiseError",
    "Change",
    "ExplorationReport",
    "History",
    "ManualOptions",
    "Medium",
    "Mutation",
    "Operation",
    "Outcome",
    "Owner",
    "Query",
    "SimulatedDirectory",
    "SimulatedDisk",
    "SimulatedFile",
    "drawn",
    "explore",
    "fates",
    "keep",
    "lose",
    "seeded",
]

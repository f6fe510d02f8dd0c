"""For tests of the engine, and of what is built on it: a disk that fails and loses power.

    disk = SimulatedDisk()
    with Journal.open("/jobs", disk=disk) as journal:
        ...
    disk.power_cut(drawn(lambda most: data.draw(integers(0, most))))  # Hypothesis decides

`explore` runs a workload once and judges every crash that could have struck in it; `Owner` is who
runs it. `journal.testing.machine` has a Hypothesis machine that crashes a state machine at random,
`journal.testing.fixtures` fixtures for pytest. Nothing in the engine imports this.
"""

from __future__ import annotations

from journal.testing.disk import SimulatedDirectory, SimulatedDisk, SimulatedFile
from journal.testing.explorer import ExplorationReport, explore
from journal.testing.history import BrokenPromiseError, History
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
    "Outcome",
    "Owner",
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

"""For tests of the engine, and of what is built on it: a disk that fails and loses power.

    disk = SimulatedDisk()
    with Journal.open("/jobs", disk=disk) as journal:
        ...
    disk.power_cut(drawn(lambda most: data.draw(integers(0, most))))  # Hypothesis decides

Nothing in the engine imports this.
"""

from __future__ import annotations

from journal.testing.disk import SimulatedDirectory, SimulatedDisk, SimulatedFile
from journal.testing.outcome import Change, Outcome, drawn, keep, lose, seeded

__all__ = [
    "Change",
    "Outcome",
    "SimulatedDirectory",
    "SimulatedDisk",
    "SimulatedFile",
    "drawn",
    "keep",
    "lose",
    "seeded",
]

"""Weakenings of the reading of a fleet as of several moments."""

from __future__ import annotations

from proof.weakenings import Weakening

MOMENTS = ("tests/manager/test_view_moments.py",)

ALL_OF = (
    Weakening(
        "earlier_fleet_changed_by_later_records",
        "manager/fleet_reader.py",
        "fleets.append((fleet.copied(), lsn))",
        "fleets.append((fleet, lsn))",
        MOMENTS,
    ),
    Weakening(
        "later_fleet_from_the_earlier_past_a_checkpoint",
        "manager/fleet_reader.py",
        "if not fleets or (base is not None and base.lsn > fleets[-1][1]):",
        "if not fleets:",
        MOMENTS,
    ),
    Weakening(
        "copied_fleet_without_its_session",
        "manager/fleet.py",
        "copy.boot_id = self.boot_id",
        "pass",
        MOMENTS,
    ),
)

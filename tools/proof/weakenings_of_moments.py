"""Weakenings of the reading of a fleet as of several moments, and of lists of one status."""

from __future__ import annotations

from proof.weakenings import Weakening

LISTS = ("tests/manager/test_recent.py",)
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
    Weakening(
        "list_of_a_status_without_archived_agents",
        "manager/recent.py",
        "not include_archived or len(rows) == count",
        "True",
        LISTS,
    ),
    Weakening(
        "agent_listed_with_its_last_status",
        "manager/fleet.py",
        "            self._recent[before].pop(agent_id, None)\n",
        "",
        LISTS,
    ),
    Weakening(
        "list_of_a_status_with_old_tokens",
        "manager/fleet.py",
        "            self._recent[row[STATUS]][agent_id] = row\n",
        "",
        LISTS,
    ),
    Weakening(
        "removed_agent_listed",
        "manager/fleet.py",
        "        self._recent[row[STATUS]].pop(agent_id, None)\n",
        "",
        LISTS,
    ),
    Weakening(
        "list_of_a_status_in_the_order_of_changes",
        "manager/manager.py",
        "            rows.sort(key=lambda row: position(get.agent_id(row)) or 0)\n",
        "            pass\n",
        LISTS,
    ),
)

"""Weakenings of composites."""

from __future__ import annotations

from proof.weakenings import Weakening

COMPOSITE = "journal/_state/composite.py"
ON_COMPOSITES = ("tests/engine/test_composite.py", "tests/crash/test_composite_crash.py")

ALL_OF = (
    Weakening(
        "application_of_a_part_unchecked",
        "journal/_state/state_machine.py",
        "    if application in accepts:",
        "    if True:",
        ON_COMPOSITES,
    ),
    Weakening(
        "application_of_a_checkpoint_unchecked",
        "journal/_state/loading.py",
        "if problem := why_refused(machine, checkpoint.application):",
        'if problem := "":',
        ON_COMPOSITES,
    ),
    Weakening(
        "data_of_a_missing_part_dropped",
        COMPOSITE,
        "        self._machine(name).apply(lsn, inner)",
        "        if name in self._parts:\n            self._machine(name).apply(lsn, inner)",
        ON_COMPOSITES,
    ),
    Weakening(
        "parts_frozen_late",
        COMPOSITE,
        "            items = machine.freeze()\n            check_items(machine, items)\n",
        "            items = (item for m in [machine] for item in m.freeze())\n",
        ON_COMPOSITES,
    ),
    Weakening(
        "items_of_parts_unchecked",
        COMPOSITE,
        "            check_items(machine, items)\n",
        "",
        ON_COMPOSITES,
    ),
    Weakening(
        "only_the_first_line_of_a_part_is_wrapped",
        COMPOSITE,
        'lines = item.lines.replace(b",\\n", b"],\\n" + head)',
        "lines = item.lines",
        ON_COMPOSITES,
    ),
    Weakening(
        "depth_of_a_parts_record_unchecked",
        "journal/_format/record.py",
        "        _check_unpacks(made._packed)\n",
        "        pass\n",
        ON_COMPOSITES,
    ),
)

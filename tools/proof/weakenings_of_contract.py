"""Weakenings of the checks of a state machine: its members, and items that do not change."""

from __future__ import annotations

from proof.weakenings import Weakening

CONTRACT = ("tests/engine/test_contract.py",)
KIT = ("tests/crash/test_testing_contract.py",)

ALL_OF = (
    Weakening(
        "any_machine_is_accepted",
        "journal/_state/durable_state.py",
        "        check_machine(machine)\n",
        "",
        CONTRACT,
    ),
    Weakening(
        "a_generator_function_may_freeze",
        "journal/_callbacks.py",
        "or not code.co_flags & _FLAGS_OF_LATER:",
        "or True:",
        CONTRACT,
    ),
    Weakening(
        "any_items_are_accepted",
        "journal/_state/durable_state.py",
        "        check_items(self._machine, items)\n",
        "",
        CONTRACT,
    ),
    Weakening(
        "a_wrapped_generator_may_freeze",
        "journal/_state/contract.py",
        "if items.gi_code in _codes_of_freeze(machine):",
        "if False:",
        CONTRACT,
    ),
    Weakening(
        "items_are_not_read_late",
        "journal/testing/owner.py",
        "            held.check(lsn)\n",
        "            pass\n",
        KIT,
    ),
    Weakening(
        "late_items_are_not_compared",
        "journal/testing/history.py",
        "if now != self._before:",
        "if False:",
        KIT,
    ),
)

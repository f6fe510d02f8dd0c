"""Weakenings of the checks of a state machine: its members, items that do not change, and the
states that the crash kit compares."""

from __future__ import annotations

from proof.weakenings import Weakening

CONTRACT = ("tests/engine/test_contract.py",)
KIT = ("tests/crash/test_testing_contract.py",)
MACHINE = ("tests/crash/test_testing_machine.py",)
STATES = ("tests/crash/test_testing_states.py",)
SEQUELS = ("tests/crash/test_explorer_sequels.py",)
ARGUMENTS = ("tests/crash/test_testing_arguments.py",)
CALLS = ("tests/engine/test_wrong_calls.py",)

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
    Weakening(
        "parts_of_a_mapping_are_not_compared",
        "journal/testing/history.py",
        "not in (object.__eq__, Mapping.__eq__, dict.__eq__)",
        "is not object.__eq__",
        STATES,
    ),
    Weakening(
        "rows_of_a_mapping_are_not_compared",
        "journal/testing/history.py",
        "    if isinstance(machine, Mapping) and not _same(machine, other):",
        "    if False:",
        STATES,
    ),
    Weakening(
        "slots_are_not_compared",
        "journal/testing/history.py",
        "if type(value) is MemberDescriptorType]",
        "if False]",
        STATES,
    ),
    Weakening(
        "tables_that_only_a_replay_makes_are_not_compared",
        "journal/testing/history.py",
        "in tables | others:",
        "in tables:",
        STATES,
    ),
    Weakening(
        "none_equals_any_value",
        "journal/testing/history.py",
        "else type(one) is type(other)",
        "else True",
        STATES,
    ),
    Weakening(
        "tables_in_memory_are_not_compared",
        "journal/testing/history.py",
        '        self._check_parts("live", machine, self.last_lsn, _LIVE_CAUSES)\n',
        "",
        STATES,
    ),
    Weakening(
        "items_in_memory_are_not_compared",
        "journal/testing/history.py",
        '        self._check_items("live", machine, self.last_lsn, f": {_LIVE_CAUSES}")\n',
        "",
        STATES,
    ),
    Weakening(
        "order_of_items_is_not_explained",
        "journal/testing/history.py",
        "if sorted(state) == sorted(replayed):",
        "if False:",
        STATES,
    ),
    Weakening(
        "close_does_not_compare",
        "journal/testing/owner.py",
        "        self._check_live()\n        self.state.close()",
        "        self.state.close()",
        STATES,
    ),
    Weakening(
        "kill_does_not_compare",
        "journal/testing/owner.py",
        '        """\n        self._check_live()\n        self.promised()',
        '        """\n        self.promised()',
        STATES,
    ),
    Weakening(
        "power_cut_does_not_compare",
        "journal/testing/owner.py",
        "        check_outcome(outcome)\n        self._check_live()",
        "        check_outcome(outcome)",
        STATES,
    ),
    Weakening(
        "end_does_not_compare",
        "journal/testing/owner.py",
        "            if error is None:\n",
        "            if False:\n",
        STATES,
    ),
    Weakening(
        "end_of_a_random_run_does_not_compare",
        "journal/testing/machine.py",
        "self.owner.__exit__(*sys.exc_info())",
        "self.owner.end()",
        STATES,
    ),
    Weakening(
        "state_left_half_way_is_compared",
        "journal/testing/owner.py",
        "if state is not None and state._progress.broken is None:",
        "if state is not None:",
        STATES,
    ),
    Weakening(
        "records_of_a_batch_are_not_decoded",
        "journal/testing/machine.py",
        "bare(pack(record))",
        "bare(record)",
        MACHINE,
    ),
    Weakening(
        "images_are_not_selected",
        "journal/testing/outcomes.py",
        "return count > 0 and int.from_bytes(self.key) % count == 0",
        "return False",
        SEQUELS,
    ),
    Weakening(
        "any_disk_is_opened",
        "journal/_disk/posix.py",
        '    if isinstance(disk, type) or not hasattr(disk, "open_directory"):',
        "    if False:",
        CALLS,
    ),
    Weakening(
        "crash_that_never_strikes_is_set",
        "journal/testing/process.py",
        '        check_whole("count", count)\n',
        "",
        ARGUMENTS,
    ),
)

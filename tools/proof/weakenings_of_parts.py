"""Weakenings of tables that are a part of a Composite."""

from __future__ import annotations

from proof.weakenings import Weakening

PART = "journal/_state/state_part.py"
TRANSACTION = "journal/_tables/transaction.py"
IN_STATE = ("tests/tables/test_tables_in_state.py",)
AS_PART = ("tests/tables/test_tables_as_part.py",)
FLEET_TABLES = (
    "tests/manager/test_manager_transactions.py",
    "tests/manager/test_manager_tables.py",
)
SHOWN = ("tests/inspect/test_inspect_tables_of_parts.py",)

ALL_OF = (
    Weakening(
        "records_of_other_parts_left_out",
        PART,
        "            for name, record, _ in companions:",
        "            for name, record, _ in []:",
        IN_STATE,
    ),
    Weakening(
        "records_of_other_parts_are_not_counted",
        TRANSACTION,
        "        self._count_one()\n        self.companions.append",
        "        self.companions.append",
        IN_STATE,
    ),
    Weakening(
        "ended_transaction_takes_a_record",
        TRANSACTION,
        "        self._check_open()\n        self._count_one()\n        self.companions",
        "        self._count_one()\n        self.companions",
        IN_STATE,
    ),
    Weakening(
        "raw_records_of_tables_accepted",
        TRANSACTION,
        "        if isinstance(self._parts[part], TablesMachine):",
        "        if False:",
        IN_STATE,
    ),
    Weakening(
        "name_of_a_part_takes_no_room",
        PART,
        "state._bytes_max - around_bytes",
        "state._bytes_max",
        AS_PART,
    ),
    Weakening(
        "later_in_state_drops_pieces_again",
        "journal/_tables/machine.py",
        "        if self.is_open:\n            return []\n",
        "",
        AS_PART,
    ),
    Weakening(
        "expired_rows_of_a_part_stay_in_checkpoints",
        "journal/_tables/tables.py",
        "        state._before_freeze(remove_expired_before_freeze)\n",
        "",
        AS_PART,
    ),
    Weakening(
        "application_of_the_part_to_read_is_unchecked",
        "journal/_tables/tables_view.py",
        "        return whole.why_refused(application)",
        '        return ""',
        AS_PART,
    ),
    Weakening(
        "changes_of_other_parts_delivered",
        "journal/_state/composite.py",
        "        return record[1] if record[0] == name and len(record) == 2 else None",
        "        return record[1]",
        AS_PART,
    ),
    Weakening(
        "transaction_is_several_batches",
        PART,
        "        return self.whole.update_batch(decide_all, urgent=urgent)",
        "        ones = self.whole.read(decide_all)\n"
        "        return max((self.whole.update(lambda _, x=x: x) for x in ones), default=None)",
        ("tests/crash/test_fleet_tables_crash.py",),
    ),
    Weakening(
        "verbs_are_checked_against_the_fleet_alone",
        "manager/transaction.py",
        "            self._draft.apply(0, record)\n",
        "",
        FLEET_TABLES,
    ),
    Weakening(
        "transaction_changes_any_number_of_agents",
        "manager/transaction.py",
        "        if self._count > HOLD_AGENTS_MAX:",
        "        if False:",
        FLEET_TABLES,
    ),
    Weakening(
        "unchecked_records_of_agents_accepted",
        "manager/fleet.py",
        "            if type(record) is not PackedRecord or record is not self._approved:",
        "            if False:",
        FLEET_TABLES,
    ),
    Weakening(
        "tables_alone_are_taken_for_a_fleet",
        "manager/fleet.py",
        "if records.is_of_tables(record) and lsn > 1:",
        "if records.is_of_tables(record):",
        FLEET_TABLES,
    ),
    Weakening(
        "transaction_wakes_nobody",
        "manager/transaction.py",
        "            self._updates.committed(self._transaction.lsn, self._transaction._changed)",
        "            pass",
        FLEET_TABLES,
    ),
    Weakening(
        "pieces_of_a_fleet_stay",
        "manager/manager.py",
        "            _ = self.tables  # drops the pieces of values that a crash left",
        "            pass",
        FLEET_TABLES,
    ),
    Weakening(
        "tables_of_a_fleet_close_without_it",
        "manager/tables.py",
        "        tables._manager = weakref.ref(manager)\n",
        "",
        FLEET_TABLES,
    ),
    Weakening(
        "packed_values_of_a_part_shown",
        "tools/journal_inspect/rendering/renderer.py",
        "            return [record[0], self.record(of_tables)]",
        "            return plain(record)",
        SHOWN,
    ),
)

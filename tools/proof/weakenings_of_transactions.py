"""Weakenings of what the end of a transaction of tables checks, and a direct write."""

from __future__ import annotations

from proof.weakenings import Weakening

TABLES = "journal/_tables/tables.py"
TRANSACTION = "journal/_tables/transaction.py"
PUBLISHER = "journal/_tables/publisher.py"
DICT = "journal/_tables/durable_dict.py"

ORDERS = ("tests/tables/test_table_interleavings.py", "tests/tables/test_table_retries.py")
TRANSACTIONS = ("tests/tables/test_table_transactions.py",)
RANGES = ("tests/tables/test_table_range_reads.py",)
WRITES = ("tests/tables/test_tables.py",)
DURABLE_DICT = ("tests/tables/test_durable_dict.py",)
LARGE = (
    "tests/tables/test_tables_large.py",
    "tests/tables/test_tables_large_transactions.py",
)

READS = (
    Weakening(
        "reads_of_a_transaction_unchecked",
        TRANSACTION,
        "        for place, seen in self._reads.items():",
        "        for place, seen in ():",
        ORDERS,
    ),
    Weakening(
        "reads_are_compared_by_value",
        TRANSACTION,
        "            if now is not seen and not",
        "            if now != seen and not",
        ORDERS,
    ),
    Weakening(
        "deletes_unchecked_at_the_end",
        TRANSACTION,
        "        for place in self._must_exist:",
        "        for place in ():",
        ORDERS,
    ),
    Weakening(
        "ranges_unchecked",
        TRANSACTION,
        "        for name, start, stop, seen_chunks in self._ranges:",
        "        for name, start, stop, seen_chunks in ():",
        ORDERS,
    ),
    Weakening(
        "chunks_are_compared_by_value",
        TRANSACTION,
        "                now is not seen for now, seen in zip(",
        "                now != seen for now, seen in zip(",
        ORDERS,
    ),
    Weakening(
        "range_that_changes_while_it_is_read",
        TRANSACTION,
        "                if not is_same(first, again):",
        "                if False:",
        RANGES,
    ),
    Weakening(
        "part_of_a_range_unchecked",
        TRANSACTION,
        "        self._ranges.append((name, start, stop, chunks))",
        "        if limit is None:\n            self._ranges.append((name, start, stop, chunks))",
        ORDERS,
    ),
    Weakening(
        "absence_for_a_failed_delete_unrecorded",
        TRANSACTION,
        "            self.read(place)  # a body that goes on relies on its absence\n",
        "",
        TRANSACTIONS,
    ),
    Weakening(
        "commit_without_its_check",
        PUBLISHER,
        "    verify()\n    return record\n",
        "    return record\n",
        ORDERS,
    ),
    Weakening(
        "direct_write_without_its_check",
        PUBLISHER,
        "        if check is None:\n            lsn",
        "        if True:\n            lsn",
        WRITES,
    ),
    Weakening(
        "int_at_the_end_of_a_key_is_decoded_as_str",
        "journal/_tables/keys.py",
        ' if is_whole and "\\0" not in "".join(texts) else None',
        " if is_whole else None",
        ("tests/tables/test_table_keys.py",),
    ),
    Weakening(
        "headers_of_writes_are_not_counted",
        PUBLISHER,
        "parts_bytes + len(writes) * _NAMED_WRITE_BYTES <=",
        "parts_bytes <=",
        ("tests/tables/test_tables_large_transactions.py",),
    ),
    Weakening(
        "stale_read_hides_behind_an_error",
        TABLES,
        "        except _OF_STALE_READS as error:",
        "        except () as error:",
        TRANSACTIONS,
    ),
    Weakening(
        "any_error_counts_as_a_stale_read",
        TABLES,
        "        except _OF_STALE_READS as error:",
        "        except Exception as error:",
        TRANSACTIONS,
    ),
    Weakening(
        "error_after_true_reads_is_a_conflict",
        TABLES,
        "                self._state.read(lambda _: collected.check())",
        '                raise ConflictError("", None, "")',
        TRANSACTIONS,
    ),
)

WRITES_OF_ONE_KEY = (
    Weakening(
        "insert_over_a_row",
        TRANSACTION,
        '            raise _conflict(place, "is there already")',
        "            pass",
        ORDERS,
    ),
    Weakening(
        "insert_does_not_read",
        TRANSACTION,
        "        if self.read(place) is not None:",
        "        if self._machine.get(*place) is not None:",
        ORDERS,
    ),
    Weakening(
        "replace_of_no_row",
        TRANSACTION,
        '        if seen is None:\n            raise _conflict(place, "is not there")\n        if',
        "        if",
        ORDERS,
    ),
    Weakening(
        "replace_of_another_value",
        TRANSACTION,
        "            if found != expected:",
        "            if False:",
        ORDERS,
    ),
    Weakening(
        "expected_object_of_the_caller_is_kept",
        TRANSACTION,
        "                self._expected[place] = found",
        "                self._expected[place] = expected",
        ("tests/tables/test_table_expected.py",),
    ),
    Weakening(
        "expected_value_of_an_own_write",
        TRANSACTION,
        "            if is_first_read:",
        "            if True:",
        TRANSACTIONS,
    ),
    Weakening(
        "large_values_are_compared_under_the_lock",
        TRANSACTION,
        "        if type(now) is tuple or (now is not None and len(now) > _DECODED_BYTES_MAX):",
        "        if False:",
        LARGE,
    ),
    Weakening(
        "delete_of_no_row",
        TRANSACTION,
        '            raise _conflict(place, "is not there")\n        if place not in',
        "            return\n        if place not in",
        ORDERS,
    ),
    Weakening(
        "direct_insert_over_a_row",
        TABLES,
        '                raise ConflictError(self.name, key, "is there already")',
        "                pass",
        WRITES,
    ),
    Weakening(
        "direct_delete_of_no_row",
        TABLES,
        '                raise ConflictError(self.name, key, "is not there")\n\n',
        "                pass\n\n",
        WRITES,
    ),
    Weakening(
        "direct_replace_of_another_value",
        TABLES,
        "            if expected is not _ANY and unpack_value(seen) != expected:",
        "            if False:",
        WRITES,
    ),
    Weakening(
        "update_of_a_key_loses_a_change",
        TABLES,
        "        if now is not seen:\n            raise _ChangedError",
        "        if False:\n            raise _ChangedError",
        ORDERS,
    ),
    Weakening(
        "setdefault_replaces_a_value",
        DICT,
        "                self._table.insert(key, default)",
        "                self._table[key] = default",
        DURABLE_DICT,
    ),
    Weakening(
        "pop_gives_up",
        DICT,
        "        except ConflictError:\n            return self._tables.update(function)",
        "        except ConflictError:\n            raise",
        DURABLE_DICT,
    ),
    Weakening(
        "large_update_is_not_repeated",
        TABLES,
        "                    raise\n                continue",
        "                    raise\n                raise",
        LARGE,
    ),
)

ALL_OF = READS + WRITES_OF_ONE_KEY

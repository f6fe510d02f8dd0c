"""Weakenings of tables: large values, which are written in pieces, rows that expire, and the
records and items that a replay refuses."""

from __future__ import annotations

from proof.weakenings import Weakening

LARGE = (
    "tests/tables/test_tables_large.py",
    "tests/tables/test_tables_large_transactions.py",
)
EXPIRY = ("tests/tables/test_tables_expiry.py",)
PUBLISHER = "journal/_tables/publisher.py"
MACHINE = "journal/_tables/machine.py"
TRANSACTION = "journal/_tables/transaction.py"
INDEX = "journal/_tables/expiry.py"
FORMAT = ("tests/tables/test_table_format.py",)
LINES = ("tests/tables/test_tables_lines.py",)
SETS = ("tests/tables/test_row_writer.py",)
TOGETHER = ("tests/tables/test_rows_decoded_together.py",)

PIECES = (
    Weakening(
        "pieces_are_kept_after_a_conflict",
        PUBLISHER,
        "        except BaseException:\n            self._give_up(large.ids)\n",
        "        except BaseException:\n",
        LARGE,
    ),
    Weakening(
        "pieces_are_kept_after_a_cancellation",
        PUBLISHER,
        "a cancelled task's, too\n            self._give_up(large.ids)\n",
        "a cancelled task's, too\n",
        LARGE,
    ),
    Weakening(
        "pieces_of_a_crash_are_kept",
        "journal/_tables/tables.py",
        "        tables._publisher.drop(unfinished)\n",
        "",
        LARGE,
    ),
    Weakening(
        "pieces_that_were_not_dropped_are_forgotten",
        PUBLISHER,
        "        self._undropped.append(ids)",
        "        pass",
        LARGE,
    ),
    Weakening(
        "checkpoint_without_unpublished_pieces",
        "journal/_tables/checkpoint_lines.py",
        "    yield from upload_lines(uploads)\n",
        "",
        LARGE,
    ),
    Weakening(
        "large_values_are_freed_under_the_lock",
        MACHINE,
        "                self.replaced.append(old)",
        "                pass",
        LARGE,
    ),
    Weakening(
        "replace_is_not_checked_again",
        "journal/_tables/tables.py",
        "                if expected is not _ANY and now is not seen:",
        "                if False:",
        LARGE,
    ),
)

EXPIRING = (
    Weakening(
        "ranges_show_expired_rows",
        "journal/_tables/table_view.py",
        "        if may_expire:",
        "        if False:",
        EXPIRY,
    ),
    Weakening(
        "row_of_its_last_millisecond_is_hidden_late",
        INDEX,
        "return stored if self._now_ms < expires_at_ms",
        "return stored if self._now_ms <= expires_at_ms",
        EXPIRY,
    ),
    Weakening(
        "transaction_reads_the_clock_again",
        INDEX,
        "        if self._now_ms is None:\n            self._now_ms = self._clock_ms()",
        "        self._now_ms = self._clock_ms()",
        EXPIRY,
    ),
    Weakening(
        "old_time_of_a_row_stays",
        MACHINE,
        "            if expiries.count or not is_plain:",
        "            if not is_plain:",
        EXPIRY,
    ),
    Weakening(
        "loaded_times_are_sorted_under_the_first_writer",
        MACHINE,
        "        self.expiries.settle()\n",
        "",
        EXPIRY,
    ),
    Weakening(
        "deleted_row_may_be_a_hidden_one",
        TRANSACTION,
        "            if visible(get(*place)) is None:",
        "            if get(*place) is None:",
        EXPIRY,
    ),
    Weakening(
        "read_of_a_hidden_row_conflicts",
        TRANSACTION,
        "            now = visible(get(*place))\n",
        "            now = get(*place)\n",
        EXPIRY,
    ),
    Weakening(
        "refused_removal_fails_the_checkpoint",
        PUBLISHER,
        "    with suppress(JournalError):  # a checkpoint may hold them, too\n",
        "    if True:\n",
        EXPIRY,
    ),
)

REFUSED = (
    Weakening(
        "keys_of_lines_uncounted",
        MACHINE,
        "        if len(keys) != len(texts):",
        "        if False:",
        LINES,
    ),
    Weakening(
        "lines_without_values_are_lost",
        "journal/_tables/columns.py",
        "or not all(texts) ",
        "",
        LINES,
    ),
    Weakening(
        "value_that_cant_be_read_back_is_taken",
        "journal/_tables/values.py",
        "            unpackb(packed, raw=True, strict_map_key=False)\n",
        "            pass\n",
        ("tests/tables/test_tables.py",),
    ),
    Weakening(
        "separator_in_a_key_divides_it",
        "journal/_tables/keys.py",
        "        if len(texts) == len(keys):\n",
        "        if True:\n",
        TOGETHER,
    ),
    Weakening(
        "keys_of_other_types_are_decoded_as_strs",
        "journal/_tables/keys.py",
        "if keys and keys[0][0] == _STR == keys[-1][0]:",
        "if keys and keys[0][0] == _STR:",
        TOGETHER,
    ),
    Weakening(
        "range_decodes_rows_after_its_limit",
        "journal/_tables/table_view.py",
        "at + min(size, left)",
        "at + size",
        TOGETHER,
    ),
    Weakening(
        "range_decodes_a_whole_chunk_for_its_second_row",
        "journal/_tables/table_view.py",
        "_STEP_GROWTH = 4 ",
        "_STEP_GROWTH = 80 ",
        TOGETHER,
    ),
    Weakening(
        "a_set_leaves_the_expiry_of_the_row_before",
        MACHINE,
        "        if self.expiries.count or value[0] == MARK_BYTE:\n",
        "        if value[0] == MARK_BYTE:\n",
        SETS,
    ),
    Weakening(
        "a_set_frees_a_large_value_under_the_lock",
        MACHINE,
        "        if type(old) is tuple:\n            self.replaced.append(old)\n",
        "",
        SETS,
    ),
    Weakening(
        "a_set_takes_a_value_that_does_not_fit",
        "journal/_tables/row_writer.py",
        "min(state._bytes_max - around_bytes, (1 << 16) - 1)",
        "(1 << 16) - 1",
        SETS,
    ),
    Weakening(
        "a_set_in_a_part_is_a_record_of_the_whole",
        "journal/_tables/row_writer.py",
        "        if isinstance(state, DurableState):\n",
        "        if True:\n",
        ("tests/tables/test_tables_in_state.py",),
    ),
    Weakening(
        "unknown_fields_of_an_item_are_lost",
        MACHINE,
        "        if tuple(item) not in _FIELDS:",
        "        if False:",
        FORMAT,
    ),
    Weakening(
        "any_value_is_taken_from_a_record",
        MACHINE,
        "                check_stored(value)",
        "                unpack_value(value)",
        FORMAT,
    ),
    Weakening(
        "any_name_is_taken_from_a_record",
        MACHINE,
        "            check_name(name)\n            if type(key)",
        "            if type(key)",
        FORMAT,
    ),
    Weakening(
        "any_name_is_taken_from_an_item",
        MACHINE,
        "        check_name(name)\n        table =",
        "        table =",
        FORMAT,
    ),
    Weakening(
        "record_after_a_refused_write_is_trusted",
        "journal/_tables/tables_part.py",
        "            machine.trusted_thread = 0\n",
        "            pass\n",
        ("tests/tables/test_tables_in_state.py",),
    ),
    Weakening(
        "records_of_others_are_trusted",
        MACHINE,
        " or (self.is_shared and self.trusted_thread != get_ident()):",
        ":",
        ("tests/tables/test_tables_in_state.py",),
    ),
    Weakening(
        "records_of_all_threads_are_trusted",
        MACHINE,
        " and self.trusted_thread != get_ident()):",
        " and not self.trusted_thread):",
        ("tests/tables/test_tables_in_state.py",),
    ),
    Weakening(
        "trust_outlasts_a_record",
        MACHINE,
        "        self.trusted_thread = 0\n",
        "",
        ("tests/tables/test_tables_in_state.py",),
    ),
    Weakening(
        "keys_that_no_checkpoint_holds",
        PUBLISHER,
        "            check_keys(writes)\n",
        "            pass\n",
        ("tests/tables/test_tables_arguments.py",),
    ),
    Weakening(
        "head_of_a_packed_item_unchecked",
        MACHINE,
        "        _check_unmarked(value)\n",
        "",
        FORMAT,
    ),
)

ALL_OF = PIECES + EXPIRING + REFUSED

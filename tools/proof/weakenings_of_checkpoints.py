"""Weakenings of checkpoints: the application, the checks of items, line lengths and names."""

from __future__ import annotations

from proof.weakenings import Weakening

APPLICATION = ("tests/engine/test_application.py",)
ITEMS = ("tests/engine/test_checkpoint_items.py", "tests/engine/test_checkpoint_items_refused.py")
LOADED = ("tests/tables/test_values_of_checkpoints.py",)
TOGETHER = ("tests/tables/test_rows_encoded_together.py",)

ALL_OF = (
    Weakening(
        "separator_in_a_value_divides_it",
        "journal/_format/items.py",
        "    if len(texts) != len(values):\n",
        "    if False:\n",
        TOGETHER,
    ),
    Weakening(
        "dollar_keys_are_written_as_they_are",
        "journal/_format/items.py",
        '    if b"$" in text and ',
        "    if False and ",
        TOGETHER,
    ),
    Weakening(
        "rows_together_nest_too_deep",
        "journal/_format/items.py",
        "if len(part) > NESTING_MAX and part.count(",
        "if False and part.count(",
        TOGETHER,
    ),
    Weakening(
        "int_keys_are_written_as_strs",
        "journal/_tables/values.py",
        "unpackb(whole, ext_hook",
        "unpackb(whole, strict_map_key=False, ext_hook",
        TOGETHER,
    ),
    Weakening(
        "extension_types_are_written_as_lists",
        "journal/_tables/values.py",
        "unpackb(whole, ext_hook=_NotJSON)",
        "unpackb(whole)",
        TOGETHER,
    ),
    Weakening(
        "short_string_taken_for_large_bytes",
        "journal/_format/items.py",
        "    if _is_plain_json(item, NESTING_MAX):\n        aside",
        "    if True:\n        aside",
        LOADED,
    ),
    Weakening(
        "large_item_that_json_cant_hold_fails_the_checkpoint",
        "journal/_format/items.py",
        "            return aside.put_back(_encoder(aside.encode).encode(item).encode())\n"
        "        except (ValueError, RecursionError)",
        "            return aside.put_back(_encoder(aside.encode).encode(item).encode())\n"
        "        except RecursionError",
        LOADED,
    ),
    Weakening(
        "large_base64_stays_in_memory",
        "journal/_tables/values.py",
        "if len(text) >= LARGE_BYTES and _BYTES_IN_TEXT in text",
        "if False",
        LOADED,
    ),
    Weakening(
        "text_that_msgpack_cant_hold_refuses_the_open",
        "journal/_tables/values.py",
        "        return _TEXT + text\n\n\n",
        "        raise\n\n\n",
        LOADED,
    ),
    Weakening(
        "expiry_is_lost_beside_other_rows",
        "journal/_tables/values.py",
        "any(value[:2] == HEAD for value in whole)",
        "False",
        TOGETHER,
    ),
    Weakening(
        "application_stated_by_compactions_only",
        "journal/_engine/opening.py",
        "if recovered.is_new and self._options.application:",
        "if False:",
        APPLICATION,
    ),
    Weakening(
        "record_appended_without_the_application",
        "journal/_commit/buffer.py",
        "        if self.owner_application:",
        "        if False:",
        APPLICATION,
    ),
    Weakening(
        "application_stated_over_records",
        "journal/_recovery/recovery.py",
        "is_new=walk.next_lsn == 1 and not",
        "is_new=not",
        APPLICATION,
    ),
    Weakening(
        "statement_of_the_application_replaced",
        "journal/_format/checkpoint.py",
        "directory.rename_new, lambda",
        "directory.rename, lambda",
        APPLICATION,
    ),
    Weakening(
        "dollar_keys_not_escaped",
        "journal/_format/items.py",
        'return {f"${key}": value}',
        "return mapping",
        ITEMS,
    ),
    Weakening(
        "dollar_keys_not_detected",
        "journal/_format/items.py",
        'return len(value) != 1 or key[:1] != "$"',
        "return True",
        ITEMS,
    ),
    Weakening(
        "item_keys_not_checked",
        "journal/_format/items.py",
        "            if type(key) is not str:",
        "            if False:",
        ITEMS,
    ),
    Weakening(
        "tuples_in_items_become_lists",
        "journal/_format/items.py",
        "    if kind is list:",
        "    if isinstance(value, (list, tuple)):",
        ITEMS,
    ),
    Weakening(
        "version_1_read_with_bytes",
        "journal/_format/items.py",
        "if version < _BYTES_FROM_VERSION or not (",
        "if not (",
        ITEMS,
    ),
    Weakening(
        "base64_of_items_not_checked",
        "journal/_format/items.py",
        "    if not _is_exact(value, data):",
        "    if False:",
        ITEMS,
    ),
    Weakening(
        "length_of_base64_not_checked",
        "journal/_format/items.py",
        "return len(text) == (len(data) + 2) // 3 * 4 and text",
        "return text",
        ITEMS,
    ),
    Weakening(
        "last_group_of_base64_not_checked",
        "journal/_format/items.py",
        "// 3 * 4 and text[-4:].encode() == last_group",
        "// 3 * 4",
        ITEMS,
    ),
    Weakening(
        "checkpoint_line_of_any_length",
        "journal/_format/checkpoint.py",
        "if len(lines) > LINE_BYTES_MAX - 2:",
        "if False:",
        ("tests/engine/test_compaction_failures.py",),
    ),
    Weakening(
        "misnamed_checkpoint_proves_only_its_name",
        "journal/_recovery/checkpoints.py",
        "0 if is_foreign else error.lsn",
        "0 if is_foreign else min(error.lsn, lsn)",
        ("tests/crash/test_damaged_files.py",),
    ),
    Weakening(
        "misnamed_checkpoint_counts_for_other_journals",
        "journal/_recovery/checkpoints.py",
        "self._own_id not in (None, error.journal_id)",
        "False",
        ("tests/crash/test_damaged_files.py",),
    ),
    Weakening(
        "cut_leaves_misnamed_evidence",
        "journal/_recovery/checkpoints.py",
        "max(each, *checkpoint_lsns([name])) > lsn",
        "max(checkpoint_lsns([name])) > lsn",
        ("tests/crash/test_repair_fixes.py",),
    ),
)

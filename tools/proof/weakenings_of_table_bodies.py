"""Weakenings of the bodies of transactions: what they may do, their limits, and how they end."""

from __future__ import annotations

from proof.weakenings import Weakening

TABLES = "journal/_tables/tables.py"
CONTEXT = "journal/_tables/transaction_context.py"
TRANSACTION = "journal/_tables/transaction.py"
PUBLISHER = "journal/_tables/publisher.py"
MACHINE = "journal/_tables/machine.py"
MAP = "journal/_tables/chunked_map.py"
VALUES = "journal/_tables/values.py"

ORDERS = ("tests/tables/test_table_interleavings.py",)
TRANSACTIONS = ("tests/tables/test_table_transactions.py",)
RANGES = ("tests/tables/test_table_range_reads.py",)
BODY = ("tests/tables/test_table_bodies.py",)
CHUNKS = ("tests/tables/test_chunked_map.py",)
LARGE = ("tests/tables/test_tables_large.py",)

ALL_OF = (
    Weakening(
        "row_set_in_a_body",
        TABLES,
        '            self._tables._refuse_in_body("write")\n',
        "            pass\n",
        TRANSACTIONS,
    ),
    Weakening(
        "direct_write_in_a_body",
        TABLES,
        '        self._refuse_in_body("write")\n',
        "",
        TRANSACTIONS,
    ),
    Weakening(
        "update_in_a_body",
        TABLES,
        '        self._refuse_in_body("update")\n',
        "",
        TRANSACTIONS,
    ),
    Weakening(
        "body_in_a_body",
        CONTEXT,
        '        bodies.refuse_in_body(id(self._publisher), "begin a transaction")\n',
        "",
        TRANSACTIONS,
    ),
    Weakening(
        "others_are_refused_in_a_body",
        "journal/_tables/bodies.py",
        "    if body and body.runner is this_runner():",
        "    if body and body.runner:",
        TRANSACTIONS,
    ),
    Weakening(
        "call_in_a_body",
        TABLES,
        '        self._refuse_in_body("begin a transaction")\n',
        "",
        TRANSACTIONS,
    ),
    Weakening(
        "second_body_of_a_transaction",
        CONTEXT,
        "        if self._has_begun:",
        "        if False:",
        BODY,
    ),
    Weakening(
        "write_after_the_end",
        TRANSACTION,
        "        if self._has_ended:",
        "        if False:",
        TRANSACTIONS,
    ),
    Weakening(
        "write_while_it_is_published",
        CONTEXT,
        "        self._collected.end()  # before",
        "        pass  # before",
        BODY,
    ),
    Weakening(
        "use_after_an_update",
        TABLES,
        "                collected.end()\n",
        "                pass\n",
        TRANSACTIONS,
    ),
    Weakening(
        "table_of_other_tables",
        TRANSACTION,
        "        if table._rows is not self._rows:",
        "        if False:",
        TRANSACTIONS,
    ),
    Weakening(
        "body_that_raises_writes",
        CONTEXT,
        "        if error is None:\n            publish = self._publisher.publish\n",
        "        if True:\n            publish = self._publisher.publish\n",
        ORDERS,
    ),
    Weakening(
        "body_in_a_loop_that_raises_writes",
        CONTEXT,
        "        if error is None:\n            publish = self._publisher.publish_in_loop",
        "        if True:\n            publish = self._publisher.publish_in_loop",
        ORDERS,
    ),
    Weakening(
        "keys_without_a_limit",
        TRANSACTION,
        "        if self._count > self._keys_max:",
        "        if False:",
        TRANSACTIONS,
    ),
    Weakening(
        "reads_are_not_counted",
        TRANSACTION,
        "            self._count_one()\n            get = ",
        "            get = ",
        TRANSACTIONS,
    ),
    Weakening(
        "ranges_are_not_counted",
        TRANSACTION,
        "        self._count_one(len(chunks))\n",
        "",
        RANGES,
    ),
    Weakening(
        "pieces_without_room",
        PUBLISHER,
        "                await self._whole.room()\n",
        "",
        LARGE,
    ),
    Weakening(
        "records_are_not_checked",
        MACHINE,
        "            self._check_record(record)\n        self.trusted",
        "            pass\n        self.trusted",
        LARGE,
    ),
    Weakening(
        "missed_lookup_is_not_repeated",
        MAP,
        "            if version == self._version and not version & 1:",
        "            if True:",
        CHUNKS,
    ),
    Weakening(
        "put_into_a_taken_chunk",
        MAP,
        "        if self._eras[at] != self._era:\n",
        "        if False:\n",
        CHUNKS,
    ),
    Weakening(
        "remove_from_a_taken_chunk",
        MAP,
        "        chunk = self._chunks[at] if self._eras[at] == self._era else self._renew(at)\n",
        "        chunk = self._chunks[at]\n",
        CHUNKS,
    ),
    Weakening(
        "split_keeps_a_taken_chunk_as_new",
        MAP,
        "            eras[0] = self._eras[first]\n",
        "            pass\n",
        CHUNKS,
    ),
    Weakening(
        "insert_leaves_keys_in_disorder",
        MAP,
        '            chunk[_UNSORTED] = b""\n',
        "            pass\n",
        CHUNKS,
    ),
    Weakening(
        "taking_chunks_begins_no_era",
        MAP,
        "        self._era += 1  # first",
        "        pass  # first",
        CHUNKS,
    ),
    Weakening(
        "containers_are_not_decoded",
        VALUES,
        "        if is_tracked(value):",
        "        if False:",
        ("tests/tables/test_tables.py",),
    ),
)

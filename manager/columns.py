"""Columns: the index of each field in a row.

The steps and the fleet's code under the lock read rows by index, which takes 5 ns a field. All
other code uses `manager.agent.get`, which takes 14 ns.
"""

from __future__ import annotations

from manager.agent import EXTRA_FIELDS, ROW_FIELDS

AGENT_ID = ROW_FIELDS.index("agent_id")
NAME = ROW_FIELDS.index("name")
STATUS = ROW_FIELDS.index("status")
REASON = ROW_FIELDS.index("reason")
RESULT = ROW_FIELDS.index("result")
STEPS_TAKEN = ROW_FIELDS.index("steps_taken")
CHECKPOINT = ROW_FIELDS.index("checkpoint")
NEEDS_INPUT = ROW_FIELDS.index("needs_input")
ALLOWED_TOOLS = ROW_FIELDS.index("allowed_tools")
PARENT_ID = ROW_FIELDS.index("parent_id")
SPAWN_DEPTH = ROW_FIELDS.index("spawn_depth")
TOKENS_USED = ROW_FIELDS.index("tokens_used")
METADATA = ROW_FIELDS.index("metadata")
STARTED_AT_MS = ROW_FIELDS.index("started_at_ms")
UPDATED_AT_MS = ROW_FIELDS.index("updated_at_ms")
ENDED_AT_MS = ROW_FIELDS.index("ended_at_ms")
BOOT_ID = ROW_FIELDS.index("boot_id")
LSN = ROW_FIELDS.index("lsn")
TAKEN_BY = ROW_FIELDS.index("taken_by")
TAKEN_AT_MS = ROW_FIELDS.index("taken_at_ms")
TOKEN_BUDGET = ROW_FIELDS.index("token_budget")
EXTRAS = ROW_FIELDS.index("extras")
# The index of each extra field in a row's extras.
ANSWER = EXTRA_FIELDS.index("answer")
PROGRESS = EXTRA_FIELDS.index("progress")
LEASE = EXTRA_FIELDS.index("lease")

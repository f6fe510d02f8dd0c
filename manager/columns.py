"""Columns: the index of each field in a row.

The steps and the fleet's code under the lock read rows by index, which takes 5 ns a field. All
other code uses `manager.agent.get`, which takes 14 ns.
"""

from __future__ import annotations

from manager.agent import FIELDS

AGENT_ID = FIELDS.index("agent_id")
NAME = FIELDS.index("name")
STATUS = FIELDS.index("status")
REASON = FIELDS.index("reason")
RESULT = FIELDS.index("result")
STEPS_TAKEN = FIELDS.index("steps_taken")
CHECKPOINT = FIELDS.index("checkpoint")
NEEDS_INPUT = FIELDS.index("needs_input")
PARENT_ID = FIELDS.index("parent_id")
TOKENS_USED = FIELDS.index("tokens_used")
STARTED_AT_MS = FIELDS.index("started_at_ms")
UPDATED_AT_MS = FIELDS.index("updated_at_ms")
ENDED_AT_MS = FIELDS.index("ended_at_ms")
BOOT_ID = FIELDS.index("boot_id")
LSN = FIELDS.index("lsn")
ATTEMPT = FIELDS.index("attempt")
STARTS = FIELDS.index("starts")
ANSWER = FIELDS.index("answer")
TAKEN_BY = FIELDS.index("taken_by")
PROGRESS = FIELDS.index("progress")
LEASE = FIELDS.index("lease")
TAKEN_AT_MS = FIELDS.index("taken_at_ms")
TOKEN_BUDGET = FIELDS.index("token_budget")

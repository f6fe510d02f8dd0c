"""Columns: the place of each field in a row.

The steps, and what the fleet does under its lock, read rows by place: that takes 5 ns a field,
where `manager.agent.get`, which everything else uses, takes 14.
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

"""Grants: agents with their leases, as an answer gives them to a worker."""

from __future__ import annotations

from manager._remote import messages
from manager._remote.messages import Body, Lease
from manager.agent import Row, agent_from_row, get
from manager.leasing import token_of

_GRANT_BYTES = 1024  # the size of a grant's lease and options, at most


def lease_of(row: Row) -> Lease:
    """Return the lease of an agent that has one."""
    token = token_of(row)
    assert token is not None
    return Lease(get.agent_id(row), token)


def grant_of(row: Row) -> Body:
    """Return an agent and its lease as an answer has them."""
    lease = lease_of(row)
    return {"agent": messages.agent_body(agent_from_row(row, "")), "lease": lease.message}


def size_of(row: Row) -> int:
    """Return the size that a grant of the agent has at most, in bytes."""
    return len(messages.pack(messages.agent_body(agent_from_row(row, "")))) + _GRANT_BYTES

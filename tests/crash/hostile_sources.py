"""The journals from which forging starts."""

from __future__ import annotations

from functools import cache

from journal.testing import ManualOptions, SimulatedDisk
from manager import AgentResult, SubAgentManager
from tests.crash.damaged_journal import journal
from tests.golden import journal_v1

Files = dict[str, bytes]


@cache
def agents() -> Files:
    """Return a manager's journal: a checkpoint, then every kind of record except "import"."""
    disk = SimulatedDisk()
    with SubAgentManager.open("/", options=ManualOptions(), disk=disk) as manager:
        lead = manager.spawn("lead", name="lead", metadata={"k": [1, None]})
        manager.spawn("child", parent_id="lead", allowed_tools=("read",), token_budget=7)
        queued = manager.spawn("later", queued=True)
        manager.compact()
        manager.start(queued.agent_id)
        manager.record_usage(lead.agent_id, input_tokens=2, output_tokens=3)
        manager.update_checkpoint("lead", {"at": 3}, steps_taken=3)
        manager.interrupt("lead", "asked", needs_input="?")
        manager.resume("lead")
        completed = manager.spawn("done", name="done")
        manager.update_from_result(completed.agent_id, AgentResult("42", input_tokens=5))
        manager.cancel(manager.spawn("no", queued=True).agent_id)
        manager.cleanup(0)
    return {n: data for n, data in disk.contents("/.subagents").items() if n != "LOCK"}


@cache
def sources() -> tuple[Files, ...]:
    """Return journals of every kind: closed, killed, with all types of records, of agents,
    empty."""
    golden = {path.name: path.read_bytes() for path in sorted(journal_v1.FOLDER.iterdir())}
    return journal(closed=True), journal(closed=False), golden, agents(), {}

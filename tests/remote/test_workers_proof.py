"""`python tools/proof workers`: a fleet whose workers, manager and servers are killed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from proof import workers
from proof.workers import BrokenError, check_end, check_event
from proof.workers_process import PARENT, TASK, result_of

from journal.testing import SimulatedDisk
from manager import Agent, AgentResult, SubAgentManager
from tests.installed import find_command, import_package

TOKEN = (2, 7)


@pytest.mark.slow
def test_no_kill_loses_a_task(capfd: pytest.CaptureFixture[str]) -> None:
    """Each task is in the state once and none is stuck, whatever is killed. More is run by hand."""
    find_command("nats-server")
    import_package("nats")
    sizes = ("--tasks", "40", "--parents", "2", "--workers", "3", "--kills", "3", "--seed", "7")
    code = workers.main([*sizes, "--work-s", "0.5", "--pause-s", "0.5"])
    printed = capfd.readouterr()
    assert (code, "each task once in the state" in printed.out) == (0, True), printed


@pytest.fixture
def agent() -> Agent:
    """Return a task that has ended as it should."""
    with SubAgentManager.open("/", state_dir="s", disk=SimulatedDisk()) as manager:
        ref = manager.spawn("work", name="a", agent_type=TASK).agent_id
        done = manager.update_from_result(ref, AgentResult(result_of("a", *TOKEN)))
    lease = {"worker": "w.1", "epoch": TOKEN[0], "lsn": TOKEN[1], "sequence": 3, "lost": 0}
    return replace(done, checkpoint=[*TOKEN], lease=lease)  # type: ignore[arg-type]


def test_each_broken_promise_is_noticed(agent: Agent) -> None:
    """A lost checkpoint, a run after the end, a wrong status and a result that no worker made with
    the lease of the end are errors."""
    made = {("a", TOKEN)}
    check_event(agent, "kept", TOKEN)
    check_event(agent, "begun", (2, 3))
    check_end(agent, made, 1)
    check_end(replace(agent, agent_type=PARENT, result="1 tasks"), set(), 1)
    for broken, token in ((replace(agent, checkpoint=None), TOKEN), (agent, (2, 3))):
        with pytest.raises(BrokenError, match="has lost the checkpoint"):
            check_event(broken, "kept", token)
    with pytest.raises(BrokenError, match="begun again"):
        check_event(agent, "begun", (2, 8))
    for status, result, known in (
        ("failed", agent.result, made),
        ("completed", "a by 1.1", made),
        ("completed", agent.result, {("a", (2, 3))}),
    ):
        with pytest.raises(BrokenError):
            check_end(replace(agent, status=status, result=result), known, 1)  # type: ignore[arg-type]
    with pytest.raises(BrokenError):
        check_end(replace(agent, agent_type=PARENT, result="2 tasks"), set(), 1)

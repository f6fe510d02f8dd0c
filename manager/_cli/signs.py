"""Signs: the machines of the workers that run agents, and their last signs of life."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from journal import JournalError
from manager.agent import Agent
from manager.errors import ManagerError

_TIMEOUT_S = 5.0
_ASKED_MAX = 1000  # workers in one request


class Sign(NamedTuple):
    """A worker, as the open dispatcher knows it."""

    machine: str
    """The name of the machine, or "" if the worker has not told it."""

    silent_s: float
    """The time since the worker's last sign of life, in seconds."""


def signs_of(state_path: str, agents: Iterable[Agent]) -> dict[str, Sign]:
    """Return what is known of the workers that run these agents, by their ids.

    This asks the process that has the state open. Nothing is known if it has no dispatcher, or does
    not answer in time.
    """
    running = (agent.lease for agent in agents if agent.status == "running")
    ids = [*dict.fromkeys(lease["worker"] for lease in running if lease is not None)]
    known: dict[str, Sign] = {}
    if not ids:
        return known
    from manager._control.client import request  # takes 20 ms

    with suppress(ManagerError, JournalError, OSError):
        for begin in range(0, len(ids), _ASKED_MAX):
            some = ids[begin : begin + _ASKED_MAX]
            reply = request(state_path, "workers", timeout_s=_TIMEOUT_S, workers=some)
            if reply is None:
                break
            for worker, machine, silent_s in reply["workers"]:
                known[worker] = Sign(machine, silent_s)
    return known


def worker_fields(agent: Agent, signs: Mapping[str, Sign]) -> dict[str, Any]:
    """Return the worker that runs the agent, or ran it last, its machine, and the time since its
    last sign of life. Without a sign, the name in the worker's id stands for the machine."""
    worker = agent.lease["worker"] if agent.lease else None
    sign = signs.get(worker or "") if agent.status == "running" else None
    return {
        "worker": worker,
        "machine": (sign and sign.machine) or (worker and worker.rpartition(".")[0]),
        "worker_silent_s": sign and round(sign.silent_s, 3),
    }

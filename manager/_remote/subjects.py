"""Subjects: the addresses of a fleet's messages. A server may permit them by worker and role.

    FLEET.manager.VERB.NAME.OWN    requests of the worker NAME.OWN to the manager
    FLEET.worker.NAME.OWN.VERB     requests to that worker
    FLEET.manager.claim            requests of a manager to others that serve the fleet

NAME is the name of the worker's credential or machine. OWN is of one process, so that a worker that
was started anew never passes for the one before it.
"""

from __future__ import annotations

from manager._remote.messages import VERBS


def to_manager(fleet: str, verb: str, worker: str) -> str:
    """Return the subject of a worker's request to its manager."""
    return f"{fleet}.manager.{verb}.{worker}"


def of_manager(fleet: str) -> dict[str, str]:
    """Return the subjects that a manager serves, by verb."""
    return {verb: f"{fleet}.manager.{verb}.*.*" for verb in VERBS}


def claim(fleet: str) -> str:
    """Return the subject of a manager's request to all other managers of its fleet."""
    return f"{fleet}.manager.claim"


def parsed(subject: str) -> tuple[str, str]:
    """Return the verb and the worker of a request to the manager."""
    _, _, verb, name, own = subject.split(".")
    return verb, f"{name}.{own}"


def to_worker(fleet: str, worker: str, verb: str) -> str:
    """Return the subject of a request to a worker."""
    return f"{fleet}.worker.{worker}.{verb}"

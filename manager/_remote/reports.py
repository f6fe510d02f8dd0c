"""Reports: the records that the reports of workers become."""

from __future__ import annotations

from typing import Any

from manager._remote.messages import MessageError, whole
from manager.agent import JSON, Status
from manager.layouts import Record
from manager.limits import Limits
from manager.result import AgentResult
from manager.verbs import Verbs

RESULT_FIELDS = (
    *("result", "status", "reason", "steps_taken", "checkpoint", "needs_input"),
    *("input_tokens", "output_tokens"),
)


class _Records(Verbs[Record, Record]):
    """The verbs of a manager, which return their records and change nothing."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._boot_id = ""

    def _update(
        self, verb: str, ref: str, target: Status | None, record: Record, *, urgent: bool = False
    ) -> Record:
        return record

    def _spawn(self, record: Record, *_: Any, **__: Any) -> Record:
        return record


def content_of(kind: str, body: JSON, limits: Limits) -> Record:
    """Return the record of a report's content.

    Raises MessageError for a report of another version, and TypeError or ValueError for values that
    a manager refuses, too.
    """
    build = _Records(limits)
    if type(body) is not dict:
        raise MessageError("the body of a report is not a map")
    match kind:
        case "checkpoint":
            steps = whole(body.get("steps_taken"))
            return build.update_checkpoint("", body.get("value"), steps_taken=steps)
        case "progress":
            return build.progress("", body.get("text"), body.get("data"))  # type: ignore[arg-type]
        case "result":
            known = {name: body[name] for name in RESULT_FIELDS if name in body}
            known.setdefault("result", None)
            return build.update_from_result("", AgentResult(**known))
    raise MessageError(f"unknown report {kind!r:.40}")


def failure_of(error: Exception, limits: Limits) -> Record:
    """Return the record with which an agent fails because of an error in its result."""
    text = f"{type(error).__name__}: {error}".encode(errors="replace").decode()
    return _Records(limits).update_failed("", text)

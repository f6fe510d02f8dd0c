"""Errors of requests. The module imports almost nothing, so that `subagents --help` stays fast."""

from __future__ import annotations

from manager.errors import ManagerError


class RequestError(ManagerError):
    """The request can't be fulfilled here. The message says why, and what to do."""


class ClosedToRequestsError(RequestError):
    """Another process has the state open, and takes no requests."""


class NoReplyError(RequestError):
    """The other process has ended before it replied, or it serves too many clients."""


class RefusedError(RequestError):
    """The other process has refused the request. `kind` is the name of the error there."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

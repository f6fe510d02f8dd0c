"""Remote output: reads the output of a command on a worker elsewhere through its manager."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from journal import LockedError, MirrorError, MirrorReason
from manager._cli.options import state_path
from manager._control.errors import RequestError
from manager._run.facts import printed
from manager.agent import Agent
from manager.errors import DispatchError
from manager.outputs import Stream

_TIMEOUT_S = 30.0


@contextmanager
def connected(workspace: str, state_dir: str, url: str, credentials: str | None) -> Iterator[None]:
    """Let this process answer requests for output during the block, unless another one has the
    state open. It gives no agent to a worker, but records what workers report.

    Raises DispatchError, the errors of opening a manager, and ImportError, before the state is
    opened, without a package that is needed.
    """
    from manager._cli.reach import KEEP_ALL
    from manager._remote.desk import Hooks
    from manager._remote.dispatcher import open_dispatcher
    from manager._remote.link import import_packages
    from manager._run.remote import TaskSupply
    from manager.manager import SubAgentManager

    import_packages(needs_keys=credentials is not None)
    with ExitStack() as stack:
        with suppress(LockedError):
            try:
                opened = SubAgentManager.open(
                    workspace, state_dir=state_dir, limits=KEEP_ALL, control=True
                )
            except MirrorError as error:
                if error.reason is not MirrorReason.NEEDED:
                    raise
                raise DispatchError(
                    f"{state_path(workspace, state_dir)}: it has a mirror, which the reports of "
                    "workers must reach, too; try again while subagents run --mirror URL --on URL "
                    "has the state open"
                ) from error
            manager = stack.enter_context(opened)
            hooks = Hooks(supply=TaskSupply())
            stack.enter_context(open_dispatcher(url, manager, hooks, credentials=credentials))
        yield


class RemoteReader:
    """Reads one stream of the last start of an agent that has a lease, as it is written."""

    poll_s = 0.25
    """The time between two calls of `read`, in seconds."""

    def __init__(self, state_path: str, agent: Agent, stream: Stream) -> None:
        self.agent = agent
        """The agent as it was last seen."""

        self.bytes = 0
        """The number of bytes that were read."""

        self.has_gap = False
        """True if a part is not kept."""

        self._state_path = state_path
        self._stream = stream
        self._start = agent.starts
        self._position = 0
        self._at: str | None = None  # the worker that has answered

    def read(self) -> Iterator[bytes]:
        """Yield everything that has been written since the last call.

        Raises RequestError if the worker or the manager can't be asked, and TimeoutError.
        """
        if self._start != self.agent.starts:
            self._start, self._position, self._at = self.agent.starts, 0, None
            self.bytes, self.has_gap = 0, False
        while not self._is_complete:
            position, data = self._piece()
            self.has_gap |= position > self._position
            self._position = position + len(data)
            if not data:
                return
            self.bytes += len(data)
            yield data

    @property
    def _is_complete(self) -> bool:
        stream = "stdout" if self._stream == "out" else "stderr"
        total = printed(self.agent, stream).get("bytes")
        return isinstance(total, int) and self._position >= total

    def _piece(self) -> tuple[int, bytes]:
        from manager._control.client import request  # takes 20 ms

        agent = self.agent
        assert agent.lease is not None
        worker = agent.lease["worker"]
        reply = request(
            self._state_path,
            "output",
            timeout_s=_TIMEOUT_S,
            worker=worker,
            agent_id=agent.agent_id,
            start=agent.starts,
            stream=self._stream,
            position=self._position,
            at=self._at,
        )
        if reply is None:
            raise RequestError(
                f"worker {worker} has the output, and no process that could ask it has the state "
                "open; add the --on URL of its run"
            )
        self._at = reply["at"]
        return max(reply["position"], self._position), b64decode(reply["data"])

"""Wrong arguments: the error names the argument, and nothing has changed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from journal.testing import SimulatedDisk
from manager import (
    AgentResult,
    Limits,
    ManagerError,
    SubAgentManager,
    UnknownAgentError,
    follow_fleet,
    read_fleet,
    read_history,
)
from tests.manager_support import ROOMY

HUGE = 10**5000  # too large for a repr
STRANGE: list[Any] = [
    *(None, True, -1, 1.5, math.nan, math.inf, 1 << 64, HUGE),
    *("", "\ud800", "a\0b", "x" * 300, b"x", [], {}, (1,), object()),
]
SPAWN = ("prompt", "agent_type", "name", "parent_id", "model", "role", "allowed_tools")
RESULT = ("result", "status", "reason", "steps_taken", "checkpoint", "needs_input", "input_tokens")
LIMITS = [*Limits.__dataclass_fields__]
Call = Callable[[SubAgentManager, str, Any], object]


def await_at_once(awaitable: Awaitable[object]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(0):
            await awaitable

    asyncio.run(bounded())


# Calls by the argument that gets a strange value. `ref` is a running agent.
CALLS: dict[str, list[Call]] = {
    "ref": [
        lambda m, ref, value: m.get(value),
        lambda m, ref, value: m.start(value),
        lambda m, ref, value: m.resume(value),
        lambda m, ref, value: m.answer(value, 1),
        lambda m, ref, value: m.set_token_budget(value, 1),
        lambda m, ref, value: m.update_checkpoint(value, 1, steps_taken=1),
        lambda m, ref, value: m.record_usage(value, input_tokens=1, output_tokens=1),
        lambda m, ref, value: m.update_from_result(value, AgentResult("")),
        lambda m, ref, value: m.update_failed(value, ""),
        lambda m, ref, value: m.interrupt(value, ""),
        lambda m, ref, value: m.cancel(value),
        lambda m, ref, value: m.cancel(value, descendants=True),
        lambda m, ref, value: m.touch(value),
        lambda m, ref, value: m.wait_ended(value, timeout_s=0),
        lambda m, ref, value: await_at_once(m.ended(value)),
        lambda m, ref, value: read_history(m.path, value),
        lambda m, ref, value: read_fleet(m.path).get(value),
    ],
    "steps_taken": [lambda m, ref, value: m.update_checkpoint(ref, 1, steps_taken=value)],
    "checkpoint": [
        lambda m, ref, value: m.update_checkpoint(ref, value, steps_taken=1),
        lambda m, ref, value: m.resume("asker", checkpoint=value),
    ],
    "answer": [lambda m, ref, value: m.answer("asker", value)],
    "token_budget": [
        lambda m, ref, value: m.set_token_budget(ref, value),
        lambda m, ref, value: m.resume("asker", token_budget=value),
    ],
    "output_tokens": [
        lambda m, ref, value: m.record_usage(ref, input_tokens=1, output_tokens=value)
    ],
    "text": [lambda m, ref, value: m.progress(ref, value)],
    "data": [lambda m, ref, value: m.progress(ref, "", value)],
    "cursor": [lambda m, ref, value: m.changes(cursor=value)],
    "agent_types": [lambda m, ref, value: m.start_next(value)],
    "source_id": [
        lambda m, ref, value: m.record_usage(ref, input_tokens=1, output_tokens=1, source_id=value)
    ],
    "error": [lambda m, ref, value: m.update_failed(ref, value)],
    "reason": [
        lambda m, ref, value: m.interrupt(ref, value),
        lambda m, ref, value: m.cancel(ref, reason=value),
    ],
    "needs_input": [lambda m, ref, value: m.interrupt(ref, "", needs_input=value)],
    "result": [lambda m, ref, value: m.update_from_result(ref, value)],
    "max_age_s": [lambda m, ref, value: m.cleanup(value)],
    "status": [
        lambda m, ref, value: m.agents(status=value),
        lambda m, ref, value: read_fleet(m.path).agents(status=value),
    ],
    "after": [lambda m, ref, value: m.changes(value)],
    "timeout_s": [
        lambda m, ref, value: m.wait_durable(timeout_s=value),
        lambda m, ref, value: m.wait_room(timeout_s=value),
        lambda m, ref, value: m.wait_ended(
            ref, timeout_s=0 if value in (None, math.inf, 1 << 64) else value
        ),
    ],
    "path": [
        lambda m, ref, value: m.import_legacy(value),
        lambda m, ref, value: read_fleet(value),
        lambda m, ref, value: read_history(value, ref),
        lambda m, ref, value: next(follow_fleet(value)),
    ],
    "at": [
        lambda m, ref, value: read_fleet(m.path, at=value),
        lambda m, ref, value: read_history(m.path, ref, at=value),
    ],
}


def message_of_refusal(call: Callable[[], object]) -> str | None:
    """Return the message of a TypeError or ValueError, or None if there was neither."""
    try:
        call()
    except (ManagerError, OSError):
        pass
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def check_refusals(call: Callable[[Any], object], argument: str) -> None:
    for value in STRANGE:
        message = message_of_refusal(lambda value=value: call(value))  # type: ignore[misc]
        assert message is None or argument in message


def state(manager: SubAgentManager) -> tuple[object, ...]:
    return manager.stats().last_lsn, manager.agents(include_archived=True)


@pytest.mark.parametrize("argument", CALLS)
def test_a_strange_argument_is_named_or_accepted(disk: SimulatedDisk, argument: str) -> None:
    """A refused argument is named and changes nothing, and the fleet survives a restart."""
    with SubAgentManager.open("/w", limits=ROOMY, disk=disk) as manager:
        manager.spawn("ask", name="asker")
        for call in CALLS[argument]:
            for value in STRANGE:
                ref = manager.spawn("work").agent_id
                if manager.get("asker").status == "running":
                    manager.interrupt("asker", "")
                manager.wait_durable()
                before = state(manager)
                message = message_of_refusal(lambda c=call, r=ref, v=value: c(manager, r, v))  # type: ignore[misc]
                assert message is None or argument in message
                assert message is None or state(manager) == before
        manager.compact()
        accepted = {agent.agent_id for agent in manager.agents()}
    with SubAgentManager.open("/w", limits=ROOMY, disk=disk) as manager:
        assert {agent.agent_id for agent in manager.agents(include_archived=True)} == accepted


@pytest.mark.parametrize("argument", [*SPAWN, "token_budget", "metadata"])
def test_a_strange_value_of_an_agent_is_named_or_accepted(tmp_path: Path, argument: str) -> None:
    """A strange argument of `spawn` is refused by name or accepted."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        check_refusals(lambda value: manager.spawn(**{"prompt": "p", argument: value}), argument)


@pytest.mark.parametrize("argument", [*RESULT, "output_tokens"])
def test_a_strange_value_of_a_result_is_named_or_accepted(tmp_path: Path, argument: str) -> None:
    """A strange value of an AgentResult is refused by name, when made or used, or is accepted."""

    def call(value: Any) -> None:
        result = AgentResult(**{"result": "r", argument: value})
        manager.update_from_result(manager.spawn("work").agent_id, result)

    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        check_refusals(call, argument)


@pytest.mark.parametrize("argument", LIMITS)
def test_a_strange_limit_is_named_or_accepted(argument: str) -> None:
    """A strange value of Limits is refused by name or accepted."""
    check_refusals(lambda value: Limits(**{argument: value}), argument)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda m: read_fleet(m.path, at=-1), ValueError, "at must be an LSN, .*not -1"),
        (lambda m: read_history(m.path, "a", at=1.5), TypeError, r"at must be .*not 1\.5"),  # type: ignore[arg-type]
        (lambda m: m.changes(1.5), TypeError, r"after must be an LSN, .*not 1\.5"),
        (lambda m: m.changes(99), ValueError, "after must be an LSN up to .*not 99"),
        (lambda m: m.changes(HUGE), ValueError, "after must be .*not a value of type int"),
        (lambda m: m.wait_durable(True), TypeError, "lsn must be an LSN, .*not True"),
        (lambda m: await_at_once(m.durable("")), TypeError, "lsn must be an LSN, .*not ''"),
        (
            lambda m: m.update_from_result("a", "r"),
            TypeError,
            "result must be an AgentResult, not 'r'",
        ),
        (lambda m: m.cleanup(None), TypeError, "max_age_s must be a number of .*, not None"),
        (lambda m: m.cleanup(-1), ValueError, "max_age_s must be .* at least 0, not -1"),
        (lambda m: m.wait_room(timeout_s=math.nan), ValueError, "timeout_s must be .*, not nan"),
        (lambda m: m.spawn("p", allowed_tools=5), TypeError, "allowed_tools must be .*, not 5"),
        (lambda m: m.spawn("p", token_budget=0), ValueError, "token_budget must be .*, not 0"),
        (lambda m: Limits(max_running=HUGE), ValueError, "max_running must fit in 64 bits"),
        (lambda m: read_fleet(None), TypeError, "path must be a str or a path object, not None"),  # type: ignore[arg-type]
        (lambda m: read_fleet("a\0"), ValueError, r"path must be a path without NUL, not 'a\\x00'"),
    ],
)
def test_a_message_names_the_argument_its_value_and_valid_values(
    tmp_path: Path, call: Callable[[Any], object], kind: type[Exception], message: str
) -> None:
    """The message names the wrong argument, its value, and the values that are valid."""
    with SubAgentManager.open(tmp_path) as manager, pytest.raises(kind, match=message):
        call(manager)


def test_a_message_shows_only_part_of_a_long_value(tmp_path: Path) -> None:
    """A long value is shown in part only."""
    with SubAgentManager.open(tmp_path) as manager:
        for call in (manager.get, manager.changes, manager.cleanup):
            with pytest.raises((TypeError, UnknownAgentError)) as caught:
                cast("Any", call)("x" * 10**6)
            assert "'xxx" in str(caught.value)
            assert len(str(caught.value)) < 400


def test_open_checks_its_arguments_first(tmp_path: Path) -> None:
    """A wrong argument of open is refused before anything is written to the disk."""
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"limits": None}, "limits must be a Limits, not None"),
        ({"options": {}}, "options must be an Options, not {}"),
        ({"workspace": None}, "workspace must be a str or a path object, not None"),
        ({"state_dir": b"x"}, "state_dir must be a str or a path object, not b'x'"),
    ]
    for arguments, message in wrong:
        with pytest.raises(TypeError, match=message):
            SubAgentManager.open(**({"workspace": tmp_path} | arguments))
    assert not [*tmp_path.iterdir()]

"""What a method is given by mistake: an error that names it, and nothing has changed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

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

HUGE = 10**5000  # which has no repr
STRANGE: list[Any] = [
    *(None, True, -1, 1.5, math.nan, math.inf, 1 << 64, HUGE),
    *("", "\ud800", "a\0b", "x" * 300, b"x", [], {}, (1,), object()),
]
SPAWN = ("prompt", "agent_type", "name", "parent_id", "model", "role", "allowed_tools")
RESULT = ("result", "status", "reason", "steps_taken", "checkpoint", "needs_input", "input_tokens")
LIMITS = [*Limits.__dataclass_fields__]
Call = Callable[[SubAgentManager, str, Any], object]


def awaited(of: Awaitable[object]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(0):
            await of

    asyncio.run(bounded())


# By the argument that is strange: `ref` is an agent that runs.
CALLS: dict[str, list[Call]] = {
    "ref": [
        lambda m, ref, it: m.get(it),
        lambda m, ref, it: m.start(it),
        lambda m, ref, it: m.resume(it),
        lambda m, ref, it: m.update_checkpoint(it, 1, steps_taken=1),
        lambda m, ref, it: m.record_usage(it, input_tokens=1, output_tokens=1),
        lambda m, ref, it: m.update_from_result(it, AgentResult("")),
        lambda m, ref, it: m.update_failed(it, ""),
        lambda m, ref, it: m.interrupt(it, ""),
        lambda m, ref, it: m.cancel(it),
        lambda m, ref, it: m.cancel(it, descendants=True),
        lambda m, ref, it: m.touch(it),
        lambda m, ref, it: m.wait_ended(it, timeout_s=0),
        lambda m, ref, it: awaited(m.ended(it)),
        lambda m, ref, it: read_history(m.path, it),
        lambda m, ref, it: read_fleet(m.path).get(it),
    ],
    "steps_taken": [lambda m, ref, it: m.update_checkpoint(ref, 1, steps_taken=it)],
    "checkpoint": [lambda m, ref, it: m.update_checkpoint(ref, it, steps_taken=1)],
    "output_tokens": [lambda m, ref, it: m.record_usage(ref, input_tokens=1, output_tokens=it)],
    "error": [lambda m, ref, it: m.update_failed(ref, it)],
    "reason": [lambda m, ref, it: m.interrupt(ref, it)],
    "needs_input": [lambda m, ref, it: m.interrupt(ref, "", needs_input=it)],
    "result": [lambda m, ref, it: m.update_from_result(ref, it)],
    "max_age_s": [lambda m, ref, it: m.cleanup(it)],
    "status": [
        lambda m, ref, it: m.agents(status=it),
        lambda m, ref, it: read_fleet(m.path).agents(status=it),
    ],
    "after": [lambda m, ref, it: m.changes(it)],
    "timeout_s": [
        lambda m, ref, it: m.wait_durable(timeout_s=it),
        lambda m, ref, it: m.wait_room(timeout_s=it),
        lambda m, ref, it: m.wait_ended(
            ref, timeout_s=0 if it in (None, math.inf, 1 << 64) else it
        ),
    ],
    "path": [
        lambda m, ref, it: m.import_legacy(it),
        lambda m, ref, it: read_fleet(it),
        lambda m, ref, it: read_history(it, ref),
        lambda m, ref, it: next(follow_fleet(it)),
    ],
    "at": [
        lambda m, ref, it: read_fleet(m.path, at=it),
        lambda m, ref, it: read_history(m.path, ref, at=it),
    ],
}


def refused(call: Callable[[], object]) -> str | None:
    """What a mistake's error says; None if it was taken, or is an error of another kind."""
    try:
        call()
    except (ManagerError, OSError):
        pass
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def refusals(call: Callable[[Any], object], named: str) -> None:
    for value in STRANGE:
        said = refused(lambda value=value: call(value))  # type: ignore[misc]
        assert said is None or named in said


def state(manager: SubAgentManager) -> tuple[object, ...]:
    return manager.stats().last_lsn, manager.agents(include_archived=True)


@pytest.mark.parametrize("named", CALLS)
def test_a_strange_argument_is_named_or_taken(tmp_path: Path, named: str) -> None:
    """No error comes from within; what is refused changes nothing, what is taken comes back."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        for call in CALLS[named]:
            for value in STRANGE:
                ref = manager.spawn("work").agent_id
                manager.wait_durable()
                before = state(manager)
                said = refused(lambda c=call, r=ref, v=value: c(manager, r, v))  # type: ignore[misc]
                assert said is None or named in said
                assert said is None or state(manager) == before
        manager.compact()
        kept = {agent.agent_id for agent in manager.agents()}
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        assert {agent.agent_id for agent in manager.agents(include_archived=True)} == kept


@pytest.mark.parametrize("named", [*SPAWN, "token_budget", "metadata"])
def test_a_strange_value_of_an_agent_is_named_or_taken(tmp_path: Path, named: str) -> None:
    """The same for what `spawn` takes."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        refusals(lambda value: manager.spawn(**({"prompt": "p"} | {named: value})), named)


@pytest.mark.parametrize("named", [*RESULT, "output_tokens"])
def test_a_strange_value_of_a_result_is_named_or_taken(tmp_path: Path, named: str) -> None:
    """The same for what an AgentResult takes, when it is given or when it is used."""

    def call(value: Any) -> None:
        result = AgentResult(**({"result": "r"} | {named: value}))
        manager.update_from_result(manager.spawn("work").agent_id, result)

    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        refusals(call, named)


@pytest.mark.parametrize("named", LIMITS)
def test_a_strange_limit_is_named_or_taken(named: str) -> None:
    """The same for what Limits takes."""
    refusals(lambda value: Limits(**{named: value}), named)


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda m: read_fleet(m.path, at=-1), ValueError, "at must be an LSN, .*not -1"),
        (lambda m: read_history(m.path, "a", at=1.5), TypeError, r"at must be .*not 1\.5"),  # type: ignore[arg-type]
        (lambda m: m.changes(1.5), TypeError, r"after must be an LSN, .*not 1\.5"),
        (lambda m: m.changes(99), ValueError, "after must be an LSN up to .*not 99"),
        (lambda m: m.changes(HUGE), ValueError, "after must be .*not a value of type int"),
        (lambda m: m.wait_durable(True), TypeError, "lsn must be an LSN, .*not True"),
        (lambda m: awaited(m.durable("")), TypeError, "lsn must be an LSN, .*not ''"),
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
        (lambda m: read_fleet(None), TypeError, "path must be a path, not None"),  # type: ignore[arg-type]
        (lambda m: read_fleet("a\0"), ValueError, r"path must be a path without NUL, not 'a\\x00'"),
    ],
)
def test_the_argument_its_value_and_what_fits_are_named(
    tmp_path: Path, call: Callable[[Any], object], kind: type[Exception], said: str
) -> None:
    """Who made the mistake reads where it is and what would be right."""
    with SubAgentManager.open(tmp_path) as manager, pytest.raises(kind, match=said):
        call(manager)


def test_a_message_is_no_longer_than_it_need_be(tmp_path: Path) -> None:
    """What was given is shown in part, however long it is."""
    with SubAgentManager.open(tmp_path) as manager:
        for call in (manager.get, manager.changes, manager.cleanup):
            with pytest.raises((TypeError, UnknownAgentError)) as caught:
                cast("Any", call)("x" * 10**6)
            assert "'xxx" in str(caught.value)
            assert len(str(caught.value)) < 400


def test_open_refuses_before_it_begins(tmp_path: Path) -> None:
    """Nothing is made on the disk for a call that can't be right."""
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"limits": None}, "limits must be a Limits, not None"),
        ({"options": {}}, "options must be an Options, not {}"),
        ({"workspace": None}, "workspace must be a path, not None"),
        ({"state_dir": b"x"}, "state_dir must be a path, not b'x'"),
    ]
    for given, said in wrong:
        with pytest.raises(TypeError, match=said):
            SubAgentManager.open(**({"workspace": tmp_path} | given))
    assert not [*tmp_path.iterdir()]

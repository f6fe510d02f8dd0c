"""Tasks: what `subagents run` is asked to do, read and checked as a whole before any of it starts.

A line is a shell command, or, if it begins with "{", a JSON object:

    {"command": "make -C src", "name": "build", "parent": "all", "timeout_s": 60, "prompt": "..."}

`command` is a string for /bin/sh or an array of arguments; only it is needed. Blank lines and
lines that begin with "#" are skipped.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from manager import records
from manager.arguments import short_repr
from manager.errors import TasksError
from manager.limits import Limits
from manager.values import optional_text

AGENT_TYPE = "command"
DEPTH_MAX = 64  # what an agent does may cost its manager a step for each ancestor
_KEYS = ("name", "prompt", "command", "parent", "timeout_s")
_PROMPT_BYTES_MAX = Limits().prompt_bytes_max
_TIMEOUT_S = 1e9


@dataclass(frozen=True, slots=True)
class Task:
    """One line. `where` is its `file:line`, `parent` another task's name.

    `key` tells over the same state that it is the same task: by its name if it has one, else by
    what the line says and which occurrence of that it is. So a file may be appended to, and its
    lines moved around; the same command on two lines is two tasks.
    """

    where: str
    key: str
    name: str | None
    prompt: str
    command: str | list[str]
    parent: str | None
    timeout_s: float | None

    @property
    def metadata(self) -> dict[str, Any]:
        """What its agent carries, and all that is needed to run it again."""
        return {"task": self.key, "command": self.command, "timeout_s": self.timeout_s}


def argv_of(metadata: Mapping[str, Any]) -> list[str] | None:
    """The arguments to run for an agent with this metadata; None if it is no task."""
    command = metadata.get("command")
    if not isinstance(metadata.get("task"), str):
        return None
    if isinstance(command, str):
        return ["/bin/sh", "-c", command]
    if isinstance(command, list) and command and all(isinstance(a, str) for a in command):
        return command
    return None


def read_tasks(data: bytes, source: str) -> list[Task]:
    """The tasks in `data`, in its order. Raises TasksError naming `source` and the line."""
    tasks: list[Task] = []
    named: dict[str, Task] = {}
    occurrences: Counter[str] = Counter()
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        where = f"{source}:{number}"
        try:
            task = _task(where, line.decode().strip(), occurrences)
        except (TypeError, ValueError) as error:
            raise TasksError(f"{where}: {error}") from None
        if task is None:
            continue
        if task.name is not None and (first := named.setdefault(task.name, task)) is not task:
            raise TasksError(f"{where}: name {task.name!r} is taken by {first.where}")
        tasks.append(task)
    _check_parents(tasks, named)
    return tasks


def parents_first(tasks: Iterable[Task]) -> Iterator[Task]:
    """All tasks in their order, but for a parent, which comes before its first child."""
    tasks = list(tasks)
    named = {task.name: task for task in tasks if task.name is not None}
    done: set[str] = set()
    for task in tasks:
        line: list[Task] = []
        above: Task | None = task
        while above is not None and above.key not in done:
            done.add(above.key)
            line.append(above)
            above = named[above.parent] if above.parent is not None else None
        yield from reversed(line)


def _check_parents(tasks: list[Task], named: Mapping[str, Task]) -> None:
    depths: dict[str, int] = {}
    for task in tasks:
        line: dict[str, Task] = {}  # from the task upwards
        while task.key not in depths:
            line[task.key] = task
            if task.parent is None:
                break
            if task.parent not in named:
                raise TasksError(
                    f"{task.where}: parent {short_repr(task.parent)} names no task here"
                )
            if named[task.parent].key in line:
                raise TasksError(f"{task.where}: parent {task.parent!r} is its own descendant")
            task = named[task.parent]
        depth = depths.get(task.key, -1)
        for below in reversed(line.values()):
            depth += 1
            if depth > DEPTH_MAX:
                raise TasksError(f"{below.where}: has more than {DEPTH_MAX} ancestors")
            depths[below.key] = depth


def _task(where: str, line: str, occurrences: Counter[str]) -> Task | None:
    """Raises TypeError or ValueError that says what is wrong with the line."""
    if not line or line.startswith("#"):
        return None
    given: dict[str, Any] = {"command": line}
    if line.startswith("{"):
        given = _object(line)
        line = json.dumps(given, sort_keys=True)
    command = _command(given.get("command"))
    name = optional_text("name", given.get("name"))
    if name is None:
        occurrences[line] += 1
        key = f"line:{hashlib.sha256(line.encode()).hexdigest()[:32]}:{occurrences[line]}"
    else:
        key = f"name:{name}"
    if "\0" in (name or ""):
        raise ValueError("name holds a NUL")
    prompt = given.get("prompt")
    if prompt is None:
        prompt = command if isinstance(command, str) else shlex.join(command)
    timeout_s = given.get("timeout_s")
    if timeout_s is not None:
        timeout_s = _seconds(timeout_s)
    parent = optional_text("parent", given.get("parent"))
    task = Task(where, key, name, prompt, command, parent, timeout_s)
    _check_record(task)
    return task


def _check_record(task: Task) -> None:
    """What the manager would refuse is refused now, when nothing has been journaled yet."""
    records.spawn(
        "",
        0,
        "",
        status="queued",
        name=task.name,
        agent_type=AGENT_TYPE,
        role=None,
        model=None,
        prompt=task.prompt,
        prompt_bytes_max=_PROMPT_BYTES_MAX,
        allowed_tools=None,
        token_budget=None,
        metadata=task.metadata,
    )


def _object(line: str) -> dict[str, Any]:
    try:
        given = json.loads(line, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"begins with {{ but is not JSON: {error.msg} at column {error.colno}; "
            "a shell group can be written as ( ...; )"
        ) from None
    except RecursionError:
        raise ValueError("nests too deep") from None
    assert isinstance(given, dict)
    if unknown := sorted(given.keys() - set(_KEYS)):
        raise ValueError(f"unknown key {short_repr(unknown[0])}; a task has: {', '.join(_KEYS)}")
    return given


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for key, value in pairs:
        if key in given:
            raise ValueError(f"key {short_repr(key)} is there twice")
        given[key] = value
    return given


def _command(value: object) -> str | list[str]:
    if isinstance(value, str) and value.strip():
        words = [value]
    elif isinstance(value, list) and value and value[0] and all(isinstance(w, str) for w in value):
        words = value
    else:
        raise ValueError(
            f"command must be a string or an array of strings, not {short_repr(value)}"
        )
    if any("\0" in word for word in words):
        raise ValueError("command holds a NUL")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _TIMEOUT_S:
        return float(value)
    raise ValueError(
        f"timeout_s must be from above 0 to {_TIMEOUT_S:.0f} seconds, not {short_repr(value)}"
    )

"""Tasks: reads the file of `subagents run`, and checks all of it before any task starts.

A line is a shell command, or, if it begins with "{", a JSON object:

    {"command": "make", "name": "build", "after": ["configure"], "cwd": "src", "env": {"V": "1"},
     "timeout_s": 60, "parent": "all", "prompt": "...", "queue": "gpu"}

`command` is a string for /bin/sh or an array of arguments. The other keys are optional. A task
waits until the tasks in `after` have completed; it does not wait for its parent. Blank lines and
lines that begin with "#" are skipped.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from manager import records
from manager._run import task_fields
from manager.again import TASK_TYPE, is_task
from manager.agent import Agent
from manager.arguments import short_repr
from manager.checks import check_given
from manager.errors import TasksError
from manager.limits import Limits
from manager.values import optional_text, prompt_text

DEPTH_MAX = 64  # a change of an agent may cost its manager one step for each ancestor
_CYCLE_MAX = 10  # names of a cycle in a message
_KEYS = ("name", "prompt", "command", "parent", "after", "timeout_s", "cwd", "env", "queue")
_SETTINGS: Mapping[str, Callable[[str, Any], object]] = {
    "after": task_fields.names,
    "cwd": task_fields.directory,
    "env": task_fields.environment,
    "queue": task_fields.queue,
}
_PROMPT_BYTES_MAX = Limits().prompt_bytes_max


class Task(NamedTuple):
    """A task, which is one line of the file. `where` is its `file:line`, `parent` a task's name.

    `key` identifies the task in the state across runs. It consists of the name, or else of the
    line's content and a number that counts equal lines. So lines may be added and moved between
    runs, and two equal lines are two tasks.
    """

    where: str
    key: str
    name: str | None
    prompt: str
    command: str | list[str]
    parent: str | None
    timeout_s: float | None
    after: tuple[str, ...] = ()
    cwd: str | None = None
    env: dict[str, str] | None = None
    queue: str | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the task's agent, from which the task can be run again."""
        known = {"task": self.key, "command": self.command, "timeout_s": self.timeout_s}
        # Only those that are set: the metadata of older versions, which lacks them, is the same.
        if not (self.after or self.cwd or self.env or self.queue):
            return known
        more = {"after": list(self.after), "cwd": self.cwd, "env": self.env, "queue": self.queue}
        return known | {key: value for key, value in more.items() if value}


class Settings(NamedTuple):
    """The part of an agent's metadata that says how to run its command. Any agent may have any
    metadata, so other values are left out."""

    after: tuple[str, ...]
    """The names of the tasks that must have completed before."""

    cwd: str
    """The directory, relative to the workspace."""

    env: dict[str, str]
    """The variables that are added to the environment."""

    timeout_s: float | None
    """The time limit, in seconds, or None."""

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Settings:
        """Return the settings in an agent's metadata."""
        after, cwd, env = (metadata.get(key) for key in ("after", "cwd", "env"))
        timeout_s = None
        with suppress(ValueError):
            timeout_s = task_fields.seconds(metadata.get("timeout_s"))
        return cls(
            tuple(name for name in after if isinstance(name, str)) if type(after) is list else (),
            cwd if isinstance(cwd, str) else "",
            {k: v for k, v in env.items() if isinstance(v, str)} if type(env) is dict else {},
            timeout_s,
        )


def argv_of(agent: Agent) -> list[str] | None:
    """Return an agent's command and its arguments, or None if it was not made from a task."""
    if not is_task(agent):
        return None
    command = agent.metadata.get("command")
    if isinstance(command, str):
        return ["/bin/sh", "-c", command]
    if isinstance(command, list) and command and all(isinstance(a, str) for a in command):
        return command
    return None


def read_tasks(data: bytes, source: str) -> list[Task]:
    """Return the tasks in `data`, in their order.

    Raises TasksError, which names `source` and the line.
    """
    tasks: list[Task] = []
    named: dict[str, Task] = {}
    occurrences: dict[str, int] = {}
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        where = f"{source}:{number}"
        try:
            task = _task(where, line.decode().strip(), occurrences)
        except UnicodeDecodeError as error:
            problem = f"byte {error.start + 1}, which is {line[error.start]:#04x}, is not UTF-8"
            raise TasksError(f"{where}: {problem}; save the file as UTF-8") from None
        except (TypeError, ValueError) as error:
            raise TasksError(f"{where}: {error}") from None
        if task is None:
            continue
        if task.name is not None and (first := named.setdefault(task.name, task)) is not task:
            raise TasksError(
                f"{where}: name {task.name!r} is taken by {first.where}; choose another name"
            )
        tasks.append(task)
    _check_parents(tasks, named)
    _check_order(tasks, named)
    return tasks


def parents_first(tasks: Iterable[Task]) -> Iterator[Task]:
    """Yield the tasks in their order, except that a parent comes before its first child."""
    tasks = list(tasks)
    named = {task.name: task for task in tasks if task.name is not None}
    done: set[str] = set()
    for task in tasks:
        if task.parent is None:
            if task.key not in done:
                done.add(task.key)
                yield task
            continue
        lineage: list[Task] = []
        ancestor: Task | None = task
        while ancestor is not None and ancestor.key not in done:
            done.add(ancestor.key)
            lineage.append(ancestor)
            ancestor = named[ancestor.parent] if ancestor.parent is not None else None
        yield from reversed(lineage)


def _check_parents(tasks: list[Task], named: Mapping[str, Task]) -> None:
    depths: dict[str, int] = {}
    for task in [task for task in tasks if task.parent is not None]:
        lineage: dict[str, Task] = {}  # the task, its parent, the parent's parent, ...
        while task.key not in depths:
            lineage[task.key] = task
            if task.parent is None:
                break
            if task.parent not in named:
                raise TasksError(
                    f"{task.where}: parent {short_repr(task.parent)} is not the name of a task "
                    "in this file"
                )
            if named[task.parent].key in lineage:
                raise TasksError(f"{task.where}: parent {task.parent!r} is its own descendant")
            task = named[task.parent]
        depth = depths.get(task.key, -1)
        for descendant in reversed(lineage.values()):
            depth += 1
            if depth > DEPTH_MAX:
                raise TasksError(f"{descendant.where}: has more than {DEPTH_MAX} ancestors")
            depths[descendant.key] = depth


def _check_order(tasks: list[Task], named: Mapping[str, Task]) -> None:
    for task in tasks:
        for name in task.after:
            if name not in named:
                raise TasksError(
                    f"{task.where}: after {short_repr(name)} is not the name of a task in this file"
                )
    try:
        waiting = {name: task.after for name, task in named.items() if task.after}
        TopologicalSorter(waiting).prepare()
    except CycleError as error:
        cycle = error.args[1][::-1]
        if len(cycle) > _CYCLE_MAX:
            cycle[_CYCLE_MAX // 2 : -_CYCLE_MAX // 2] = ["..."]
        where = named[cycle[0]].where
        raise TasksError(f"{where}: waits for itself: {' after '.join(cycle)}") from None


def _task(where: str, line: str, occurrences: dict[str, int]) -> Task | None:
    """Return the task of a line, or None for a blank line or a comment.

    Raises TypeError or ValueError, which says what is wrong with the line.
    """
    if not line or line.startswith("#"):
        return None
    if not line.startswith("{"):
        # The record of such a task needs no other check, which takes as long as all the rest.
        task_fields.command(line)
        prompt_text("prompt", line, _PROMPT_BYTES_MAX)
        return Task(where, _line_key(line, occurrences), None, line, line, None, None)
    fields = _object(line)
    command = task_fields.command(fields.get("command"))
    name = optional_text("name", fields.get("name"))
    if name is None:
        key = _line_key(json.dumps(fields, sort_keys=True), occurrences)
    else:
        key = f"name:{name}"
    if "\0" in (name or ""):
        raise ValueError("name contains a NUL")
    prompt = fields.get("prompt")
    if prompt is None:
        prompt = command if isinstance(command, str) else shlex.join(command)
    timeout_s = fields.get("timeout_s")
    if timeout_s is not None:
        timeout_s = task_fields.seconds(timeout_s)
    parent = optional_text("parent", fields.get("parent"))
    task = Task(where, key, name, prompt, command, parent, timeout_s, **_settings(fields))
    _check_record(task)
    return task


def _line_key(line: str, occurrences: dict[str, int]) -> str:
    occurrences[line] = number = occurrences.get(line, 0) + 1
    return f"line:{hashlib.sha256(line.encode()).hexdigest()[:32]}:{number}"


def _settings(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: check(key, fields[key])
        for key, check in _SETTINGS.items()
        if fields.get(key) is not None
    }


def _check_record(task: Task) -> None:
    """Raise the error with which the manager would refuse the task, before it journals any task."""
    records.spawn(
        "",
        0,
        "",
        status="queued",
        name=task.name,
        agent_type=TASK_TYPE,
        role=None,
        model=None,
        prompt=task.prompt,
        prompt_bytes_max=_PROMPT_BYTES_MAX,
        allowed_tools=None,
        token_budget=None,
        metadata=None,
    )
    check_given(None, task.metadata)  # in a third of the time that a copy would take


def _object(line: str) -> dict[str, Any]:
    try:
        fields = _decode(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"begins with {{ but is not JSON: {error.msg} at column {error.colno}; "
            "write a shell group as ( ...; )"
        ) from None
    except RecursionError:
        raise ValueError("nests too deep") from None
    assert isinstance(fields, dict)
    if unknown := sorted(fields.keys() - set(_KEYS)):
        raise ValueError(f"unknown key {short_repr(unknown[0])}; use {', '.join(_KEYS)}")
    return fields


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"key {short_repr(key)} appears twice")
    return fields


# One decoder for all lines; `json.loads` would make one for each.
_decode = json.JSONDecoder(object_pairs_hook=_without_duplicates).decode

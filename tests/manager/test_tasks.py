"""The file of tasks: the forms of a line, and the message for a bad one."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager._run.tasks import DEPTH_MAX, Settings, Task, parents_first, read_tasks
from manager.errors import TasksError


def read(*lines: str) -> list[Task]:
    return read_tasks("\n".join(lines).encode(), "tasks.txt")


def message_for(*lines: str) -> str:
    with pytest.raises(TasksError) as caught:
        read(*lines)
    return str(caught.value)


def test_a_line_is_a_shell_command() -> None:
    """A line goes to the shell unchanged, and is the prompt; comments and blanks are skipped."""
    tasks = read_tasks(b"\xef\xbb\xbfecho a | wc\r\n\n  # a comment\n\tmake -C src \n", "tasks.txt")
    assert [(task.where, task.command) for task in tasks] == [
        ("tasks.txt:1", "echo a | wc"),
        ("tasks.txt:4", "make -C src"),
    ]
    assert [task.prompt for task in tasks] == ["echo a | wc", "make -C src"]
    assert tasks[0].metadata["command"] == "echo a | wc"


def test_a_line_is_a_json_object() -> None:
    """A JSON object may set every field of a task; an array as command runs without a shell."""
    full = {"name": "b", "prompt": "p", "command": ["a b", "$c"], "parent": "a", "timeout_s": 2}
    task, other = read(json.dumps(full), '{"command": "true", "name": "a", "timeout_s": null}')
    assert task == Task("tasks.txt:1", "name:b", "b", "p", ["a b", "$c"], "a", 2.0)
    assert task.metadata["command"] == ["a b", "$c"]
    assert other.prompt == "true"
    assert read('{"command": ["a b", "c"]}')[0].prompt == "'a b' c"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{ echo; }", "not JSON"),
        ('{"command": "a"', "not JSON"),
        ("{" * 100_000, "not JSON"),
        ('{"x":' + "[" * 100_000, "too deep"),
        ("{}", "command must be"),
        ('{"command": ""}', "command must be"),
        ('{"command": []}', "command must be"),
        ('{"command": ["", "a"]}', "command must be"),
        ('{"command": ["a", 1]}', "command must be"),
        ('{"command": 5}', "command must be"),
        ('{"command": "a\\u0000b"}', "NUL"),
        ('{"command": "a", "name": "a\\u0000b"}', "NUL"),
        ('{"command": "a", "comand": "b"}', "unknown key 'comand'"),
        ('{"command": "a", "command": "b"}', "key 'command' appears twice"),
        ('{"command": [["' + "x" * 1000 + '"]]}', "not [['" + "x" * 77 + "..."),
        ('{"command": "a", "name": ""}', "name must have 1 to"),
        ('{"command": "a", "name": 7}', "name must be a string"),
        ('{"command": "a", "name": "agent_0123456789ab"}', "looks like an agent's id"),
        ('{"command": "a", "prompt": 7}', "prompt must be a string"),
        ('{"command": "a\\ud800"}', "surrogate"),
        ('{"command": "a", "parent": 7}', "parent must be a string"),
        ('{"command": "a", "parent": "b"}', "'b' is not the name of a task"),
        ('{"command": "a", "name": "b", "parent": "b"}', "its own descendant"),
        ('{"command": "a", "timeout_s": 0}', "timeout_s must be"),
        ('{"command": "a", "timeout_s": NaN}', "timeout_s must be"),
        ('{"command": "a", "timeout_s": true}', "timeout_s must be"),
        ('{"command": "a", "timeout_s": "1"}', "timeout_s must be"),
        ('{"command": "a", "timeout_s": 1' + "0" * 400 + "}", "timeout_s must be"),
        ('{"command": "a", "after": "b"}', "after must be an array of names"),
        ('{"command": "a", "after": [1]}', "after must be an array of names"),
        ('{"command": "a", "after": ["b"]}', "after 'b' is not the name of a task"),
        ('{"command": "a", "name": "b", "after": ["b"]}', "waits for itself: b after b"),
        ('{"command": "a", "cwd": ""}', "cwd must be the path of a directory"),
        ('{"command": "a", "cwd": "a\\u0000b"}', "cwd must be the path of a directory"),
        ('{"command": "a", "env": ["A=1"]}', "env must be an object of strings"),
        ('{"command": "a", "env": {"A=": "1"}}', "which can't name a variable"),
        ('{"command": "a", "env": {"A": 1}}', "env['A'] must be a string"),
        ('{"command": "a", "env": {"A": "\\ud800"}}', "surrogate"),
        ("true " + "a" * (1 << 20), "over prompt_bytes_max"),
        ('{"command": "a", "name": "taken"}', "taken by tasks.txt:2"),
    ],
)
def test_a_bad_line_is_named(line: str, fault: str) -> None:
    """A bad line is named by file, line number and fault; comments and blank lines are counted."""
    message = message_for("# first", '{"command": "true", "name": "taken"}', "", line)
    assert message.startswith("tasks.txt:4: ")
    assert fault in message


def test_a_line_that_is_not_utf_8_is_named() -> None:
    """A line that is not UTF-8 is refused, as it could not be kept unchanged."""
    with pytest.raises(TasksError, match=r"^tasks.txt:2: byte 6, which is 0xff, is not UTF-8"):
        read_tasks(b"true\necho \xff\n", "tasks.txt")


def test_a_cycle_of_parents_is_named() -> None:
    """The named line is one that closes the cycle."""
    cycle = [
        f'{{"command": "true", "name": "{n}", "parent": "{p}"}}' for n, p in ("ab", "bc", "ca")
    ]
    below = '{"command": "true", "parent": "a"}'
    assert message_for(below, *cycle).startswith("tasks.txt:4: parent 'a'")


def test_a_task_keeps_its_key_when_lines_move() -> None:
    """A task's key is its name, or else its line with the number of equal lines before it."""

    def keys(*lines: str) -> list[str]:
        return [task.key for task in read(*lines)]

    one, two, other = keys("true", "true", "false")
    assert len({one, two, other}) == 3
    assert keys("# more", "false", "  true", "echo new", "true")[:3] == [
        other,
        one,
        keys("echo new")[0],
    ]
    assert keys("true", "false", "true") == [one, other, two]
    spellings = '{"command": "a", "timeout_s": 1}', '{ "timeout_s":1, "command":"a" }'
    assert keys(spellings[0]) == keys(spellings[1])
    assert keys('{"command": "a", "name": "n"}') == keys('{"command": "b", "name": "n"}')


@given(st.permutations(range(12)), st.lists(st.none() | st.integers(0, 11), min_size=12))
def test_parents_come_first(order: list[int], above: list[int | None]) -> None:
    """Each task comes once and after its parent, otherwise in the order of the file."""
    lines = []
    for number in order:
        parent = above[number]
        has_one = parent is not None and parent < number
        line = {"command": "true", "name": str(number), "parent": str(parent) if has_one else None}
        lines.append(json.dumps(line))
    tasks = read(*lines)
    sorted_ = list(parents_first(tasks))
    place = {task.name: index for index, task in enumerate(sorted_)}
    assert len(place) == len(sorted_) == 12
    assert all(place[t.parent] < place[t.name] for t in tasks if t.parent is not None)
    for index, task in enumerate(sorted_):
        # A task moved forward is an ancestor of the task here, or of one before it.
        later = [t for t in sorted_[:index] if tasks.index(t) > tasks.index(task)]
        assert all(any(t.name == below.parent for below in sorted_[: index + 1]) for t in later)


def test_depth_is_bounded() -> None:
    """P7: A task has at most 64 ancestors, since a change costs a step for each under the lock."""

    def line(count: int) -> list[str]:
        """Return lines of tasks, each the parent of the one before it."""
        tasks = [{"command": "true", "name": str(n), "parent": str(n + 1)} for n in range(count)]
        return [*map(json.dumps, tasks), f'{{"command": "true", "name": "{count}"}}']

    assert [task.name for task in parents_first(read(*line(DEPTH_MAX)))] == [
        str(n) for n in range(DEPTH_MAX, -1, -1)
    ]
    assert message_for(*line(5000)).endswith("more than 64 ancestors")


def test_tasks_that_wait_for_each_other_are_refused() -> None:
    """A circle of tasks that wait for each other is named."""
    names = {"a": "b", "b": "c", "c": "a"}
    lines = (f'{{"name": "{n}", "command": "x", "after": ["{m}"]}}' for n, m in names.items())
    assert "waits for itself: " in message_for(*lines)


def test_settings_of_any_metadata_are_usable() -> None:
    """The metadata of an agent may be anything. Settings leave out what no task has."""
    nothing = Settings((), "", {}, None)
    assert Settings.of({}) == nothing
    odd = {"after": [1, "a"], "cwd": 7, "env": {"A": "1", "B": 2}, "timeout_s": 3}
    assert Settings.of(odd) == Settings(("a",), "", {"A": "1"}, 3.0)
    assert Settings.of({"after": "abc", "env": [1], "timeout_s": "10m"}) == nothing
    for seconds in (True, 0, -1, math.nan, math.inf, 2**63, [1]):
        assert Settings.of({"timeout_s": seconds}) == nothing


def test_metadata_of_simple_tasks_stays_the_same() -> None:
    """The metadata of a task without newer keys is that of older versions, so that a line that was
    run by one of them is not taken for an edited one."""
    (task,) = read_tasks(b"true", "tasks.txt")
    assert task.metadata.keys() == {"task", "command", "timeout_s"}


def test_a_long_cycle_is_shown_by_its_ends() -> None:
    """The message about tasks that wait for each other is short, however many there are."""
    count = 1000
    lines = [
        json.dumps({"name": f"t{i}", "command": "true", "after": [f"t{(i + 1) % count}"]})
        for i in range(count)
    ]
    with pytest.raises(TasksError, match=r"waits for itself: t\d+ after t") as raised:
        read_tasks("\n".join(lines).encode(), "f")
    assert " after ... after " in str(raised.value)
    assert len(str(raised.value)) < 200

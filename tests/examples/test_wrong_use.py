"""The examples, started with wrong arguments and stopped with Ctrl-C."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.examples.examples_support import EXAMPLES, started
from tests.installed import import_package
from tests.support import TIMEOUT_S
from tests.tiers import slow_unless

WRONG: dict[str, list[tuple[str, ...]]] = {
    "jobs.py": [(), ("--help",), ("a.d", "b.d")],
    "events.py": [(), ("read",), ("read", "events.d"), ("write",), ("--help",)],
    "harness.py": [("--help",)],
    "service.py": [(), ("payments.d",), ("payments.d", "http"), ("payments.d", "65536")],
}


@pytest.mark.parametrize(
    ("name", "arguments"),
    slow_unless(
        lambda name, arguments: arguments == WRONG[name][0],
        [(name, each) for name, calls in WRONG.items() for each in calls],
    ),
)
def test_wrong_arguments_print_the_usage(
    tmp_path: Path, name: str, arguments: tuple[str, ...]
) -> None:
    """Each program prints its docstring for wrong arguments, and makes no file."""
    if name == "service.py":
        import_package("aiohttp")
    with started(name, tmp_path, *arguments) as process:
        _, err = process.communicate(timeout=TIMEOUT_S)
    docstring = (EXAMPLES / name).read_text().split('"""')[1]
    assert (process.returncode, err) == (1, f"{docstring}\n")
    assert f"python {name}" in docstring
    assert [*tmp_path.iterdir()] == []


def test_no_example_is_left_out() -> None:
    """Each example is tested."""
    assert WRONG.keys() == {path.name for path in EXAMPLES.glob("*.py")}


def test_ctrl_c_ends_a_reader_without_a_traceback(tmp_path: Path) -> None:
    """A reader that waits for events ends with 130, the exit code after Ctrl-C, and closes."""
    with started("events.py", tmp_path, "write", "events.d") as writer:
        writer.communicate("a\n", timeout=TIMEOUT_S)
    with started("events.py", tmp_path, "read", "events.d", "mail") as reader:
        assert reader.stdout
        assert reader.stdout.readline() == "1 a\n"
        reader.send_signal(signal.SIGINT)
        _, err = reader.communicate(timeout=TIMEOUT_S)
    assert (reader.returncode, err) == (130, "")


def test_ctrl_c_ends_the_harness_without_a_traceback(tmp_path: Path) -> None:
    """The harness closes its manager at Ctrl-C, and ends with 130."""
    with started("harness.py", tmp_path) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (130, "")


def test_a_reader_of_no_log_leaves_nothing(tmp_path: Path) -> None:
    """A reader whose log does not exist fails, and makes no file for its position."""
    with started("events.py", tmp_path, "read", "events.d", "mail") as reader:
        _, err = reader.communicate(timeout=TIMEOUT_S)
    assert reader.returncode == 1
    assert err.startswith("stopped: ")
    assert "No such file" in err
    assert [*tmp_path.iterdir()] == []

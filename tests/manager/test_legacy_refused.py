"""Import of the former JSON file: which files are refused, and with which message."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import Options, UnsafePathError
from manager import LegacyError, Limits, SubAgentManager
from manager.legacy import read_legacy
from tests.manager.test_legacy import BARE, FULL, write

nested: Any = "deep"
for _ in range(101):
    nested = [nested]

BROKEN: list[tuple[str, Any, str]] = [
    ("id", None, r"agents\[1\]\.id must be a string"),
    ("id", "", r"agents\[1\]\.id must have 1 to 256 bytes"),
    ("id", "x" * 257, r"agents\[1\]\.id must have 1 to 256 bytes"),
    ("id", "agent_bare", r"agents\[1\]\.id: an earlier agent has the id 'agent_bare' too"),
    ("session_name", 1, r"agents\[1\]\.session_name must be a string"),
    ("agent_type", 1, r"agents\[1\]\.agent_type must be a string"),
    ("prompt", 5, r"agents\[1\]\.prompt must be a string"),
    ("prompt", "x" * (1 << 20) + "x", r"agents\[1\]\.prompt has 1048577 bytes"),
    ("prompt", "\ud800", r"agents\[1\]\.prompt has half a surrogate pair"),
    ("assignment", [], r"agents\[1\]\.assignment must be an object"),
    ("assignment", {"role": 1}, r"agents\[1\]\.assignment\.role must be a string"),
    ("assignment", {"objective": 1}, r"agents\[1\]\.assignment\.objective must be a string"),
    ("model", 1, r"agents\[1\]\.model must be a string"),
    ("nickname", [], r"agents\[1\]\.nickname must be a string"),
    ("status", "Asleep", r"agents\[1\]\.status must be one of Completed, .*'Asleep'"),
    ("status", "Failed", r"agents\[1\]\.status must be one of"),
    ("status", None, r"agents\[1\]\.status must be one of"),
    ("status", {"Failed": 1}, r"agents\[1\]\.status\.Failed must be a string"),
    ("status", {"Failed": "a", "Interrupted": "b"}, r"agents\[1\]\.status must be one of"),
    ("status", {"Completed": "a"}, r"agents\[1\]\.status must be one of"),
    ("status", ["Failed"], r"agents\[1\]\.status must be one of"),
    ("result", 0, r"agents\[1\]\.result must be a string"),
    ("steps_taken", -1, r"agents\[1\]\.steps_taken must be from 0"),
    ("steps_taken", 1.5, r"agents\[1\]\.steps_taken must be a whole number"),
    ("steps_taken", False, r"agents\[1\]\.steps_taken must be a whole number"),
    ("checkpoint", {"a": nested}, r"agents\[1\]\.checkpoint nests deeper than 100"),
    ("checkpoint", [2**64], r"agents\[1\]\.checkpoint\[0\] is an integer that does not fit in 64"),
    ("needs_input", {"k": float("nan")}, r"agents\[1\]\.needs_input\['k'\] is nan"),
    ("duration_ms", "1", r"agents\[1\]\.duration_ms must be a whole number"),
    ("updated_at_ms", -5, r"agents\[1\]\.updated_at_ms must be from 0"),
    ("allowed_tools", "all", r"agents\[1\]\.allowed_tools must be an array"),
    ("allowed_tools", ["a", 1], r"agents\[1\]\.allowed_tools\[1\] must be a string"),
    ("session_boot_id", 1, r"agents\[1\]\.session_boot_id must be a string"),
    ("novel", {"k": float("inf")}, r"agents\[1\]\['novel'\]\['k'\] is inf"),
    ("novel", "x" * (4 << 20), r"agents\[1\]: .* over record_bytes_max=4194304"),
]


@pytest.mark.parametrize(("field", "value", "message"), BROKEN)
def test_a_broken_agent_refuses_the_whole_file(
    tmp_path: Path, field: str, value: Any, message: str
) -> None:
    """A broken agent is named by its place, and nothing of the file is journaled."""
    path = write(tmp_path, BARE, FULL | {field: value})
    with SubAgentManager.open(tmp_path) as manager:
        last_lsn = manager.stats().last_lsn
        with pytest.raises(LegacyError, match=message) as caught:
            manager.import_legacy(path)
        assert caught.value.path == str(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert manager.stats().last_lsn == last_lsn
        assert manager.agents(include_archived=True) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON: .*line 1 column 1"),
        (b'{"schema_version": 1,\n "agents": [}', "is not JSON: .*line 2 column 13"),
        (b"\xff\xfe", "is not JSON: .*position 0"),
        (b"[" * 200_000, r"\[0\]\[0\]\[0\] nests deeper than 103 levels: line 1 column 104 "),
        (b"1" * 5000, r"the file is an integer of 5000 digits: line 1 column 1 "),
        (b'{"a": 1,\n"\\u0061": 2}', "the file has the key 'a' twice: line 2 column 1 "),
        (b"[]", "the file must be an object"),
        (b"{}", "schema_version is None"),
        (b'{"schema_version": 2, "agents": []}', "schema_version is 2; only 1 is known"),
        (b'{"schema_version": true, "agents": []}', "schema_version is True"),
        (b'{"schema_version": 1}', "agents must be an array"),
        (b'{"schema_version": 1, "agents": {}}', "agents must be an array"),
        (b'{"schema_version": 1, "agents": [1]}', r"agents\[0\] must be an object, not int"),
        (b'{"schema_version": 1, "agents": [], "workers": {}}', "workers must be an array"),
        (b'{"schema_version": 1, "agents": [], "workers": [1]}', r"workers\[0\] must be an object"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """P9: Any bytes are read as data, and lead to a LegacyError that says where."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(LegacyError, match=message):
        read(path)


@pytest.mark.parametrize("levels", [120, 5000, 200_000])
def test_values_nested_too_deep_are_located(tmp_path: Path, levels: int) -> None:
    """A value nested too deep is located, by the parser or by the check after it."""
    path = write(tmp_path, BARE, FULL | {"checkpoint": "PLACE"}, BARE)
    nested = '{"a":' * levels + "1" + "}" * levels
    path.write_text(path.read_text().replace('"PLACE"', nested))
    with pytest.raises(
        LegacyError, match=r"agents\[1\]\.checkpoint nests deeper than 10[03] levels"
    ):
        read(path)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (
            '{"b": [{"c": 1, "d": {"c": 2}, "c": 3}]}',
            r"checkpoint\['b'\]\[0\] has the key 'c' twice",
        ),
        (
            '["\\\\\\"[{,", ' + "-" + "1" * 5000 + "]",
            r"checkpoint\[1\] is an integer of 5000 digits",
        ),
        ('{"a":' * 500_000 + "1" + "}" * 500_000, r"checkpoint nests deeper than 103 levels"),
        (
            '{"a":' * 50 + '{"b":1,"b":2}' + "}" * 50,
            r"checkpoint(\['a'\]){5}\.\.\. has the key 'b'",
        ),
    ],
)
def test_a_fault_without_a_place_from_the_parser_is_located(
    tmp_path: Path, checkpoint: str, message: str
) -> None:
    """The message names the agent, the keys down to the fault, and its position in the file."""
    path = write(tmp_path, BARE, FULL | {"checkpoint": "PLACE"}, BARE)
    content = path.read_text().replace('"PLACE"', checkpoint)
    path.write_text(content)
    with pytest.raises(
        LegacyError, match=rf"agents\[1\]\.{message}.*: line 1 column \d+ "
    ) as error:
        read(path)
    char = int(str(error.value).rpartition("(char ")[2].partition(")")[0])
    begins = content.index(checkpoint)
    assert begins < char < begins + len(checkpoint)


def read(path: Path, **others: Any) -> list[list[Any]]:
    options: dict[str, Any] = {"at_ms": 1, "limits": Limits(), "record_bytes_max": 1 << 20}
    return read_legacy(path, **(options | others))


@given(st.integers(0), st.integers(0, 255), st.booleans())
def test_a_damaged_file_is_imported_whole_or_refused(place: int, byte: int, cut: bool) -> None:
    """P9: A truncated file, or one with a changed byte, imports whole or raises a LegacyError."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), FULL)
        content = bytearray(path.read_bytes())
        place %= len(content)
        content[place] = byte
        path.write_bytes(content[:place] if cut else content)
        with suppress(LegacyError):
            assert len(read(path)) == 1


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    """P9: No symlink is followed, no pipe is waited for, and no device is read."""
    path = write(tmp_path, BARE)
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    for strange in (tmp_path / "link", tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(UnsafePathError, match=str(strange)):
            read(strange)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing")


def test_the_size_of_a_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P9: A file over the limit is refused, so that no file exhausts memory."""
    path = write(tmp_path, BARE)
    monkeypatch.setattr("manager.legacy._FILE_BYTES_MAX", path.stat().st_size)
    assert len(read(path)) == 1
    monkeypatch.setattr("manager.legacy._FILE_BYTES_MAX", path.stat().st_size - 1)
    with pytest.raises(LegacyError, match="has more than"):
        read(path)


def test_imported_slices_fit_in_a_batch(tmp_path: Path) -> None:
    """P7: One hold of the lock imports at most 64 agents, in batches within the options' limits."""
    agents = [BARE | {"id": f"a{n}", "result": "x" * (n % 7) * 1000} for n in range(500)]
    path = write(tmp_path, *agents)
    for bound in (1 << 22, 10_000):
        slices = read(path, record_bytes_max=bound)
        ids = [record[1] for records in slices for record in records]
        assert ids == [agent["id"] for agent in agents]
        assert max(map(len, slices)) <= 64
        sizes = [sum(len(record[9] or "") for record in records) for records in slices]
        assert max(sizes) <= bound
    options = Options(record_bytes_max=10_000, frame_bytes_max=1 << 16)
    with SubAgentManager.open(tmp_path, options=options) as manager:
        assert len(manager.import_legacy(path)) == 500


def test_a_long_imported_result_keeps_its_tail(tmp_path: Path) -> None:
    """A result and a reason over result_bytes_max are cut at the front, as everywhere."""
    long = "x" * 300 + "the end"
    with SubAgentManager.open(tmp_path, limits=Limits(result_bytes_max=200)) as manager:
        path = write(tmp_path, BARE | {"result": long, "status": {"Failed": long}})
        (agent,) = manager.import_legacy(path)
        for text in (agent.result, agent.reason):
            assert text is not None
            assert len(text) <= 200
            assert text.endswith("xthe end")

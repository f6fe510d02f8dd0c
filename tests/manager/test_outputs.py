"""The files of what commands print: their names, their bounds, and their removal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import DurableState, UnsafePathError
from manager import AgentResult, Limits, SubAgentManager
from manager._run.streams import OutputFiles
from manager.outputs import OutputCleanup, OutputDirectory, Part, owner_of, part_named

ID = "agent_0123456789ab"
FIRST = Part(ID, 7, "out", 0)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[OutputDirectory]:
    with closing(OutputDirectory.open(str(tmp_path), write=True)) as opened:
        yield opened


def contents(tmp_path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((tmp_path / "output").iterdir())}


# --- names ---


def test_a_name_states_agent_start_stream_and_part() -> None:
    """A file is named by agent id, start, stream and part, and the name can be read back."""
    assert FIRST.name == "agent_0123456789ab.7.out.0"
    assert part_named(FIRST.name) == FIRST
    for name in ("agent_0123456789ab.7.out", "agent_0123456789ab.07.out.0", "x", "LOCK", ".."):
        assert part_named(name) is None


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_id_leads_out_of_the_directory(agent_id: str) -> None:
    """An imported agent may have any id, even a path. Its files still have plain names."""
    part = Part(owner_of(agent_id), 1, "err", 2)
    assert "/" not in part.name
    assert part_named(part.name) == part


# --- bounds ---


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=20),
    bytes_max=st.integers(0, 60),
)
def test_the_files_hold_the_end_of_a_stream(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], bytes_max: int
) -> None:
    """The files are the end of the stream, at most `bytes_max` bytes of it, and at least half of
    that once the stream is longer. `kept_bytes` is their size."""
    tmp_path = tmp_path_factory.mktemp("state")
    with closing(OutputDirectory.open(str(tmp_path), write=True)) as directory:
        files = OutputFiles(directory, FIRST, bytes_max)
        for piece in pieces:
            files.write(piece)
        files.close()
        parts = directory.parts()
    stream, half = b"".join(pieces), bytes_max // 2
    kept = b"".join(contents(tmp_path)[part.name] for part in parts)
    assert stream.endswith(kept)
    assert len(kept) == files.kept_bytes <= 2 * half
    assert len(kept) >= min(len(stream), half)
    assert len(parts) <= 2


def test_an_error_of_the_disk_ends_the_files_alone(
    tmp_path: Path, directory: OutputDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error of the disk, what is there stays a prefix of the stream, and nothing is
    raised."""
    files = OutputFiles(directory, FIRST, 100)
    files.write(b"one")
    write = os.write

    def refuse(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    files.write(b"two")
    monkeypatch.setattr(os, "write", write)
    files.write(b"three")
    files.close()
    assert contents(tmp_path) == {FIRST.name: b"one"}
    assert files.kept_bytes == 3


def test_a_planted_file_is_not_written_to(tmp_path: Path, directory: OutputDirectory) -> None:
    """A file, a symlink or a FIFO that has the name already gets nothing, and blocks nothing."""
    (tmp_path / "victim").write_bytes(b"")
    for number in range(2):
        first = FIRST._replace(start=number)
        planted = tmp_path / "output" / first.name
        os.symlink("../victim", planted) if number else os.mkfifo(planted)
        files = OutputFiles(directory, first, 100)
        files.write(b"secret")
        assert files.kept_bytes == 0
        with pytest.raises(UnsafePathError):
            directory.read(first)
    assert (tmp_path / "victim").read_bytes() == b""


@pytest.mark.parametrize("write", [True, False])
def test_a_symlink_in_place_of_the_directory_is_refused(tmp_path: Path, write: bool) -> None:
    """The directory is never reached through a symlink."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "output").symlink_to("elsewhere")
    with pytest.raises(UnsafePathError, match="output: is a symlink"):
        OutputDirectory.open(str(tmp_path), write=write)


def test_only_the_owner_reaches_the_files(tmp_path: Path) -> None:
    """The directory has mode 0700 and the files 0600, whatever the umask or an earlier mode."""
    for umask in (0o777, 0o000):
        before = os.umask(umask)
        try:
            with closing(OutputDirectory.open(str(tmp_path), write=True)) as directory:
                part = FIRST._replace(start=umask)
                os.close(directory.create(part))
        finally:
            os.umask(before)
        assert (tmp_path / "output").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "output" / part.name).stat().st_mode & 0o777 == 0o600
        (tmp_path / "output").chmod(0o755)


# --- removal ---


def spawn_ended(manager: SubAgentManager) -> str:
    agent_id = manager.spawn("p").agent_id
    manager.update_from_result(agent_id, AgentResult("done"))
    return agent_id


def put_output(manager: SubAgentManager, *agent_ids: str) -> None:
    with closing(OutputDirectory.open(manager.path, write=True)) as directory:
        for agent_id in agent_ids:
            for stream in ("out", "err"):
                os.close(directory.create(FIRST._replace(owner=agent_id, stream=stream)))


def owners(manager: SubAgentManager) -> set[str]:
    with closing(OutputDirectory.open(manager.path)) as directory:
        return {part.owner for part in directory.parts()}


def test_an_open_removes_the_files_of_unknown_agents(tmp_path: Path) -> None:
    """An open removes the files of agents that do not exist, and no file of another name."""
    with SubAgentManager.open(tmp_path) as manager:
        known = spawn_ended(manager)
        put_output(manager, known, ID)
        (tmp_path / ".subagents" / "output" / "notes.txt").touch()
        assert owners(manager) == {known, ID}
    with SubAgentManager.open(tmp_path) as manager:
        assert owners(manager) == {known}
    assert (tmp_path / ".subagents" / "output" / "notes.txt").exists()


def test_a_sweep_waits_until_removals_are_durable(tmp_path: Path) -> None:
    """An open may have read the removal of an agent from memory that a power cut would lose. So it
    waits before it removes files, and without that wait it removes none."""
    with closing(OutputDirectory.open(str(tmp_path), write=True)) as directory:
        os.close(directory.create(FIRST))
    cleanup = OutputCleanup(str(tmp_path))

    cleanup.sweep([], lambda: False)
    assert contents(tmp_path) != {}
    cleanup.sweep([ID], lambda: False)
    cleanup.sweep([], lambda: True)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("wait_s", [0.0, 60.0])
def test_a_sweep_tells_its_time_limit_from_a_signal_handler_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_s: float
) -> None:
    """An open succeeds if the sweep has waited long enough. A TimeoutError that a signal handler
    raises before that is raised."""
    with SubAgentManager.open(tmp_path) as manager:
        put_output(manager, ID)

    def time_out(state: object, *, timeout_s: float) -> None:
        raise TimeoutError

    monkeypatch.setattr("manager.fleet_outputs._DURABLE_TIMEOUT_S", wait_s)
    with monkeypatch.context() as patch:
        patch.setattr(DurableState, "wait_durable", time_out)
        if wait_s:
            with pytest.raises(TimeoutError):
                SubAgentManager.open(tmp_path)
        else:
            SubAgentManager.open(tmp_path).close()
    assert owners(manager) == {ID}


def test_files_are_removed_after_the_removal_of_their_agent_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cleanup first makes the removal of an agent durable, and only then removes its files. Those
    of the other agents stay."""
    removed_at: list[int] = []
    remove = OutputDirectory.remove
    with SubAgentManager.open(tmp_path) as manager:
        gone, kept = spawn_ended(manager), manager.spawn("p").agent_id
        put_output(manager, gone, kept)

        def note(directory: OutputDirectory, part: Part) -> None:
            journal = manager._state.journal
            removed_at.append(journal.durable_lsn)
            remove(directory, part)

        monkeypatch.setattr(OutputDirectory, "remove", note)
        assert [agent.agent_id for agent in manager.cleanup(0)] == [gone]
        removal_lsn = manager.stats().last_lsn  # `stats` works beside the directory, too
        manager.wait_durable()
        manager.cleanup(0)
        assert owners(manager) == {kept}
    assert len(removed_at) == 2
    assert min(removed_at) >= removal_lsn


def test_retention_removes_files_at_once(tmp_path: Path) -> None:
    """When the manager drops agents by itself, it makes that durable, and then removes their
    files, without a later call."""
    with SubAgentManager.open(tmp_path, limits=Limits(keep_ended_max=1)) as manager:
        gone, kept = spawn_ended(manager), spawn_ended(manager)
        put_output(manager, gone, kept)
        assert manager._retention.run() == 1
        assert owners(manager) == {kept}


def test_files_are_removed_at_the_close_at_the_latest(tmp_path: Path) -> None:
    """The files of removed agents do not wait for the next open if the manager is closed."""
    with SubAgentManager.open(tmp_path) as manager:
        put_output(manager, spawn_ended(manager))
        manager.cleanup(0)
    assert owners(manager) == set()

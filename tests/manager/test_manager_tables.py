"""The tables of a manager: readers, older versions, large values, and the close."""

from __future__ import annotations

import asyncio
import errno
import threading
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from journal import (
    ClosedError,
    FormatVersionError,
    Journal,
    Options,
    Tables,
)
from journal._tables.publisher import Publisher
from journal.testing import SimulatedDisk
from manager import (
    Limits,
    SubAgentManager,
    follow_fleet,
    read_fleet,
    read_history,
    records,
)
from manager.fleet import Fleet
from tests.manager.test_manager_transactions import DONE, kinds, run
from tests.support import TIMEOUT_S

LARGE = "large " * 200
# Made by the last version without tables: a checkpoint of three agents, and an interrupt after it.
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "fleet_v1"


@pytest.fixture
def manager(tmp_path: Path) -> Any:
    """Yield a manager with room for three running agents."""
    with SubAgentManager.open(tmp_path, limits=Limits(max_running=3)) as opened:
        yield opened


# --- readers and versions ---


def test_readers_of_a_fleet_ignore_its_tables(tmp_path: Path) -> None:
    """P4: Views, histories and followers of a fleet are as without tables, and `Tables.read` reads
    the tables, from the log and from checkpoints."""
    with SubAgentManager.open(tmp_path) as manager:
        first = manager.spawn("x", name="first")
        manager.tables.table("t")["a"] = 1
        lsn = manager.tables.table("t").set("a", LARGE)
        manager.update_from_result("first", DONE)
        path = manager.path
    for is_in_the_log in (True, False):
        view = read_fleet(path)
        assert [agent.name for agent in view.agents(include_archived=True)] == ["first"]
        assert read_history(path, "first")[-1].after is not None
        assert next(follow_fleet(path)).agent_id == first.agent_id
        assert Tables.read(path).table("t")["a"] == LARGE
        if is_in_the_log:
            assert read_fleet(path, at=lsn).get("first").status == "running"
            assert Tables.read(path, at=lsn - 1).table("t")["a"] == 1
        with SubAgentManager.open(tmp_path) as manager:
            manager.compact()
    with pytest.raises(FormatVersionError):
        Tables.read(path, part="tables")


def test_a_fleet_without_tables_is_as_before(tmp_path: Path) -> None:
    """A fleet without rows gets no record and no item of tables, even if its tables are read."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("x")
        assert manager.tables.names() == []
        run(manager, lambda t: t.cancel(manager.agents()[0].agent_id))
        checkpoint = manager.compact()
        assert [sorted(item)[0] for item in checkpoint.items()] == ["agent_id"]
    assert Tables.read(manager.path).names() == []


def test_a_fleet_of_a_version_without_tables_opens_unchanged(tmp_path: Path) -> None:
    """P6: A fleet that a version without tables wrote opens, and its items keep their bytes beside
    rows."""
    copy = copytree(GOLDEN, tmp_path / ".subagents")
    copy.chmod(0o700)  # a checkout does not keep the mode
    [old] = copy.glob("*.json")
    expected = old.read_bytes().splitlines()
    with SubAgentManager.open(tmp_path) as manager:
        agents = {agent.name: agent for agent in manager.agents(include_archived=True)}
        assert (agents["lead"].needs_input, agents["lead"].tokens_used) == (
            {"question": "go on?"},
            11,
        )
        assert (agents["part 1"].result, agents["part 1"].checkpoint) == ("4711 words", {"page": 3})
        manager.tables.table("t")["a"] = 1
        lines = Path(manager.compact().path).read_bytes().splitlines()
    found = agents_in(lines)
    assert found == [
        line.replace(b'"from_prior_session":false', b'"from_prior_session":true')
        for line in agents_in(expected)
    ]
    assert len(found) == 2
    assert b'{"table":"t","key":"a","value":1}' in lines


def agents_in(lines: list[bytes]) -> list[bytes]:
    """Return the lines of the two agents that the next session leaves as they are."""
    ours = b'"prompt":"part 1"', b'"prompt":"later"'
    return [line.rstrip(b",") for line in lines if any(prompt in line for prompt in ours)]


@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_version_without_tables_refuses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_compacted: bool
) -> None:
    """P4: A version that does not know tables refuses a fleet that has some, and changes
    nothing."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.tables.table("t")["a"] = 1
        if is_compacted:
            manager.compact()
    before = {path: path.read_bytes() for path in Path(manager.path).iterdir()}
    monkeypatch.setattr(records, "_KINDS_OF_TABLES", frozenset())
    monkeypatch.setattr(records, "_FIELDS_OF_TABLES", frozenset())
    monkeypatch.setattr(Fleet, "heads_of_part", ())
    for attempt in (lambda: SubAgentManager.open(tmp_path), lambda: read_fleet(manager.path)):
        with pytest.raises(
            FormatVersionError, match="open the journal with the version that wrote"
        ):
            attempt()
    assert {path: path.read_bytes() for path in Path(manager.path).iterdir()} == before


# --- the tables themselves ---


def test_large_and_expiring_rows(tmp_path: Path) -> None:
    """Large values and rows that expire are as in tables alone, and the next open drops pieces
    that a crash left."""
    options = Options(record_bytes_max=512)
    with SubAgentManager.open(tmp_path, options=options) as manager:
        table = manager.tables.table("t")
        agent = manager.spawn("x")
        with manager.transaction() as t:
            t[table].set("large", LARGE, expires_at=4e9)
            t[table].set("gone", 1, expires_at=1)
            t.update_from_result(agent.agent_id, DONE)
        assert dict(table.items()) == {"large": LARGE}
        assert manager.compact().count == 7  # the agent, five pieces, and their row
    with Journal.open(manager.path, options=Options(application="subagents/1")) as journal:
        journal.append(["piece", b"u" * 16, 0, b"half"])
    with SubAgentManager.open(tmp_path, options=options):
        pass  # the pieces are dropped even if nobody uses the tables
    assert kinds(manager.path)[-1] == "drop"
    with SubAgentManager.open(tmp_path, options=options) as manager:
        assert dict(manager.tables.table("t").items()) == {"large": LARGE}


@pytest.mark.parametrize("is_compacted", [False, True])
def test_changes_are_those_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_compacted: bool
) -> None:
    """Changes of a manager's tables leave its agents out, even if a checkpoint has the pieces of a
    value."""
    write_piece = Publisher._write_piece

    def compact_between(self: Publisher, piece: Any) -> None:
        write_piece(self, piece)
        if is_compacted:
            opened.compact()

    with SubAgentManager.open(tmp_path, options=Options(record_bytes_max=512)) as opened:
        table, changes = opened.tables.table("t"), opened.tables.changes(0)
        agent = opened.spawn("x")
        table["a"] = 1
        assert next(changes).value == 1
        monkeypatch.setattr(Publisher, "_write_piece", compact_between)
        with opened.transaction() as t:
            t[table]["b"] = LARGE
            t.update_from_result(agent.agent_id, DONE)
    assert [(change.key, change.value) for change in changes] == [("b", LARGE)]


def test_forged_records_of_tables_are_refused(tmp_path: Path) -> None:
    """P4: A record of tables that no manager wrote is refused at open."""
    with SubAgentManager.open(tmp_path) as manager:
        pass
    with Journal.open(manager.path, options=Options(application="subagents/1")) as journal:
        journal.append(["rows", ["t", b"no key", b"\x01"]])
    with pytest.raises(FormatVersionError):
        SubAgentManager.open(tmp_path)


@pytest.mark.parametrize("is_compacted", [False, True])
def test_tables_alone_are_no_fleet(tmp_path: Path, is_compacted: bool) -> None:
    """P4: A journal of tables alone is refused as a fleet, with and without a checkpoint."""
    path = tmp_path / ".subagents"
    with Tables.open(path) as app:
        app.table("t")["a"] = 1
        if is_compacted:
            app.compact()
    for attempt in (lambda: SubAgentManager.open(tmp_path), lambda: read_fleet(path)):
        with pytest.raises(FormatVersionError):
            attempt()
    assert Tables.read(path).table("t")["a"] == 1


def test_all_threads_get_the_same_tables(manager: SubAgentManager) -> None:
    """The tables are made once, whatever thread asks first."""
    found: list[Tables] = []
    barrier = threading.Barrier(4)

    def ask() -> None:
        barrier.wait(TIMEOUT_S)
        found.append(manager.tables)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert len(found) == 4
    assert set(found) == {manager.tables}


@pytest.mark.parametrize("in_with", [False, True])
def test_closing_the_tables_closes_the_manager(manager: SubAgentManager, in_with: bool) -> None:
    """The manager is closed with its tables, so waiters get ClosedError."""
    agent = manager.spawn("x")

    async def main() -> None:
        ended = asyncio.create_task(manager.ended(agent.agent_id))
        await asyncio.sleep(0)
        if in_with:
            with manager.tables:
                pass
        else:
            manager.tables.close()
        assert manager.closed
        async with asyncio.timeout(TIMEOUT_S):
            await ended

    with pytest.raises(ClosedError):
        asyncio.run(main())


def test_closing_the_tables_takes_a_time_limit() -> None:
    """A close of the tables that takes too long raises TimeoutError, and can be repeated."""
    disk = SimulatedDisk()
    manager = SubAgentManager.open("/w", disk=disk)
    tables = manager.tables
    manager.wait_durable()
    disk.fail("write", errno.ENOSPC, times=None)
    tables.table("t")["a"] = 1
    with pytest.raises(TimeoutError):
        tables.close(timeout_s=0.05)
    assert not manager.closed
    disk.before = None
    tables.close(timeout_s=TIMEOUT_S)
    assert manager.closed

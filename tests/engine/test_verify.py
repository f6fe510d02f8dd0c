"""The findings of verify, and its description of each segment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    CorruptionError,
    DamageReason,
    Finding,
    JournalReader,
)
from journal._format.crc32c import checksum
from journal.testing import SimulatedDisk, lose
from tests.support import (
    PATH,
    crash,
    end_of,
    findings,
    frozen,
    infos,
    names,
    open_on,
    put,
    put_lines,
    read_all,
    reopened,
    until,
    write_at,
)


def test_a_sound_journal_has_no_findings(disk: SimulatedDisk) -> None:
    """P4: A sound journal with several segments, epochs and checkpoints has no findings."""
    for _ in range(4):
        with open_on(disk) as journal:
            put_lines(journal, 12, size=700)
            journal.compact(frozen(journal, 1, 2))
            put_lines(journal, 3)
    assert findings(disk) == []


def test_segment_info_describes_each_segment(disk: SimulatedDisk) -> None:
    """The information about a segment states its epoch, LSNs, frames, size, durable LSN and state:
    sealed, torn or active."""
    with open_on(disk) as journal:
        put_lines(journal, 5, size=900)
    journal = open_on(disk)
    put(journal, "two")
    crash(journal, disk)
    write_at(disk, names(disk, ".seg")[-1], end_of(disk, names(disk, ".seg")[-1]), b"torn")
    with open_on(disk) as journal:
        journal.wait_durable(journal.append_batch(["three", "four"]))
        one, two, three, four = infos(disk)
        sizes = [len(disk.contents(PATH)[name]) for name in names(disk, ".seg")]
    assert [info.path for info in (one, two, three, four)] == [
        f"{PATH}/{name}" for name in names(disk, ".seg")
    ]
    assert [info.size_bytes for info in (one, two, three, four)] == sizes
    assert (one.epoch, one.first_lsn, one.last_lsn, one.frames, one.state) == (1, 1, 4, 4, "sealed")
    assert (two.first_lsn, two.last_lsn, two.frames, two.durable_lsn) == (5, 5, 1, 5)
    assert (three.epoch, three.first_lsn, three.last_lsn, three.state) == (2, 6, 6, "torn")
    assert (four.epoch, four.first_lsn, four.last_lsn, four.frames) == (3, 7, 8, 1)
    assert four.state == "active"
    assert infos(disk)[-1].state == "sealed"


def test_an_empty_segment_has_last_lsn_0(disk: SimulatedDisk) -> None:
    """`last_lsn` is 0 for a segment without records, as after the loss of its first commit."""
    journal = open_on(disk)
    put(journal, 1)
    crash(journal, disk)
    (name,) = names(disk, ".seg")
    write_at(disk, name, 64, bytes(44))
    (info,) = infos(disk)
    assert (info.first_lsn, info.last_lsn, info.frames) == (1, 0, 0)


@pytest.mark.parametrize("marked", [True, False])
def test_a_torn_tail_is_found(disk: SimulatedDisk, marked: bool) -> None:
    """A torn tail is reported with its file, offset, next LSN and size, also after the next epoch
    has continued the log."""
    journal = open_on(disk)
    put(journal, 1, 2)
    if marked:
        until(lambda: read_all(disk) == [1, 2], "the mark")
    crash(journal, disk)
    (name,) = names(disk, ".seg")
    end = end_of(disk, name)
    write_at(disk, name, end + 2, b"torn")
    message, reason = findings(disk)[0].message, DamageReason.UNFINISHED
    torn = [Finding("torn_tail", f"{PATH}/{name}", end, 3, 6, message, reason)]
    assert findings(disk) == torn
    assert "the log continues at LSN 3" in torn[0].message
    assert [info.state for info in infos(disk)] == ["torn"]
    with open_on(disk) as journal:
        put(journal, 3)
    (finding,) = findings(disk)
    assert replace(finding, message=torn[0].message) == torn[0]
    assert "unfinished, or a repair cut it off; the log continues at LSN 3" in finding.message
    assert [info.state for info in infos(disk)] == ["torn", "sealed"]
    assert read_all(disk) == [1, 2, 3]


def test_a_dead_frame_after_the_cut_is_a_torn_tail(disk: SimulatedDisk) -> None:
    """P1: A whole frame after the cut of the next epoch is not part of the log, and is reported as
    a torn tail."""
    journal = open_on(disk)
    put(journal, 1)
    until(lambda: read_all(disk) == [1], "the mark")
    copy = SimulatedDisk()
    directory = copy.open_directory(PATH, write=True)
    (name,) = names(disk, ".seg")
    directory.open(name, "create").write(disk.contents(PATH)[name].rstrip(b"\0"), 0)
    put(journal, "never acknowledged")
    crash(journal, disk)
    with open_on(copy) as journal:
        put(journal, 2)
    # Merge the last frame of one disk with the later opening of the other.
    directory.open(name, "update").write(disk.contents(PATH)[name].rstrip(b"\0"), 0)
    assert read_all(copy) == [1, 2] == reopened(copy)
    (finding,) = findings(copy)
    assert (finding.kind, finding.lsn, finding.path) == ("torn_tail", 2, f"{PATH}/{name}")


def corruptions() -> Iterator[tuple[str, Any]]:
    yield "payload", lambda disk, segments: write_at(disk, segments[0], 64 + 44 + 5, b"\xff\xff")
    yield "header", lambda disk, segments: write_at(disk, segments[0], 64 + 10, b"\xff\xff")
    yield "segment header", lambda disk, segments: write_at(disk, segments[0], 20, b"\xff\xff")
    yield "magic", lambda disk, segments: write_at(disk, segments[1], 0, b"\0")
    yield "zeros", lambda disk, segments: write_at(disk, segments[0], 64, bytes(900))
    yield "missing", lambda disk, segments: remove(disk, segments[1])
    yield "cut", lambda disk, segments: cut(disk, segments[0])
    yield "empty", lambda disk, segments: cut(disk, segments[1], 0)


def remove(disk: SimulatedDisk, name: str) -> None:
    disk.open_directory(PATH, write=True).remove(name)


def cut(disk: SimulatedDisk, name: str, size: int = 1500) -> None:
    disk.open_directory(PATH, write=True).open(name, "update").truncate(size)


@pytest.mark.parametrize(
    ("damage"), [damage for _, damage in corruptions()], ids=dict(corruptions())
)
def test_corruption_is_found_where_open_finds_it(disk: SimulatedDisk, damage: Any) -> None:
    """P4: Verify reports the file, offset and LSN of the error that open raises, and changes
    nothing. A reader yields the good records before the damage, then raises the same error."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
    damage(disk, names(disk, ".seg"))
    before = disk.contents(PATH)
    with pytest.raises(CorruptionError) as refused:
        open_on(disk)
    assert disk.contents(PATH) == before
    corruption = [finding for finding in findings(disk) if finding.kind == "corruption"]
    places = [(finding.path, finding.offset, finding.lsn) for finding in corruption]
    assert (refused.value.path, refused.value.offset, refused.value.lsn) in places
    assert "damaged" in {info.state for info in infos(disk)}
    good: list[Any] = []
    with JournalReader.open(PATH, disk=disk) as reader, pytest.raises(CorruptionError) as raised:
        good += (entry.record[0] for entry in reader.entries(0))
    assert good == [*range(1, len(good) + 1)]
    assert (raised.value.path, raised.value.offset) == (refused.value.path, refused.value.offset)


def test_a_missing_log_is_found(disk: SimulatedDisk) -> None:
    """P4: A checkpoint without any segment proves that the log is missing."""
    with open_on(disk) as journal:
        put(journal, 1, 2)
        journal.compact(frozen(journal, 1))
    remove(disk, names(disk, ".seg")[0])
    with pytest.raises(CorruptionError) as refused:
        open_on(disk)
    (finding,) = findings(disk)
    assert (finding.kind, finding.message) == ("corruption", refused.value.what)
    assert (finding.path, finding.lsn) == (refused.value.path, refused.value.lsn) == (PATH, 1)


DAMAGE = st.one_of(
    st.tuples(st.just("write"), st.floats(0, 1), st.binary(min_size=1, max_size=50)),
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(b"")),
    st.tuples(st.just("remove"), st.just(0.0), st.just(b"")),
)


@given(damages=st.lists(st.tuples(st.integers(0, 20), DAMAGE), min_size=1, max_size=3))
def test_verify_finds_whatever_open_refuses(
    damages: list[tuple[int, tuple[str, float, bytes]]],
) -> None:
    """P4: If open refuses, verify reports the same place, with that LSN or an earlier one that is
    missing. Otherwise verify finds no corruption in what open needed. Neither raises any other
    error."""
    disk = SimulatedDisk()
    for _ in range(2):
        with open_on(disk) as journal:
            put_lines(journal, 4, size=300)
            journal.compact(frozen(journal, 1, 2))
            put_lines(journal, 8, size=700)
    for number, (kind, where, data) in damages:
        files = [*names(disk, ".seg"), *names(disk, ".json")]
        name = files[number % len(files)]
        size = len(disk.contents(PATH)[name])
        if kind == "write" and size:
            write_at(disk, name, min(int(where * size), size - 1), data)
        elif kind == "cut":
            cut(disk, name, int(where * size))
        elif kind == "remove":
            remove(disk, name)
    corruption = [finding for finding in findings(disk) if finding.kind == "corruption"]
    try:
        with open_on(disk) as journal:
            base_lsn = journal.checkpoint.lsn if journal.checkpoint else 0
    except CorruptionError as error:
        place = (error.path, error.offset)
        lsns = [finding.lsn for finding in corruption if (finding.path, finding.offset) == place]
        refused_lsn = error.lsn
        assert min([refused_lsn + 1, *lsns]) <= refused_lsn
    else:
        assert all(0 < finding.lsn <= base_lsn for finding in corruption)


def test_a_frame_quoted_in_a_record_hides_no_damage(disk: SimulatedDisk) -> None:
    """P4: A record may contain the header of an earlier frame, which is valid in this segment.
    After a damaged header, the scan does not take it for the next frame: the evidence may lie
    inside the payload that it claims."""
    with open_on(disk) as journal:
        put(journal, b"x" * 1500)
        (name,) = names(disk, ".seg")
        put(journal, disk.contents(PATH)[name][64 : 64 + 44])
        put(journal, 3, 4)
        crash(journal, disk)
    offset = 64 + 44 + 1503
    write_at(disk, name, offset + 10, b"\xff")
    (finding,) = findings(disk)
    assert (finding.kind, finding.offset, finding.lsn) == ("corruption", offset, 2)
    with pytest.raises(CorruptionError):
        open_on(disk)


def test_a_bad_checkpoint_is_found(disk: SimulatedDisk) -> None:
    """A checkpoint that does not verify is a finding of its own, in a journal that is otherwise
    sound."""
    with open_on(disk) as journal:
        put(journal, 1)
        journal.compact(frozen(journal, {"id": 1}))
        put(journal, 2)
        journal.compact(frozen(journal, {"id": 2}))
    old, new = names(disk, ".json")
    write_at(disk, new, 10, b"?")
    (finding,) = findings(disk)
    assert (finding.kind, finding.path, finding.lsn) == ("bad_checkpoint", f"{PATH}/{new}", 2)
    data = disk.contents(PATH)[old].replace(b'{"id":1}', b'{"id":1!')
    body, _, _ = data.rpartition(b'"count"')
    data = body + b'"count":1,"crc32c":"%08x"}\n' % checksum(body)
    write_at(disk, old, 0, data)
    first, _ = findings(disk)
    assert (first.kind, first.path, first.offset) == (
        "bad_checkpoint", f"{PATH}/{old}", data.index(b'{"id":1!')
    )  # fmt: skip
    with JournalReader.open(PATH, disk=disk) as reader:
        (checkpoint,) = reader.checkpoints()
        assert checkpoint.lsn == 1
        checkpoint.close()


def test_stray_files_are_found(disk: SimulatedDisk) -> None:
    """Foreign files and unfinished files are reported. The unfinished files of a live journal are
    its writer's."""
    with open_on(disk) as journal:
        put(journal, 1)
    directory = disk.open_directory(PATH, write=True)
    directory.open("notes.txt", "create")
    directory.open("output", "create")  # known by its name
    directory.open("checkpoint-1.json", "create")
    directory.open(f"{9:020d}-{9:010d}.seg.tmp", "create")
    strays = findings(disk)
    assert {finding.kind for finding in strays} == {"stray"}
    assert {finding.path.rpartition("/")[2]: finding.message for finding in strays} == {
        "notes.txt": "the file does not belong to the journal",
        "checkpoint-1.json": "the file does not belong to the journal",
        f"{9:020d}-{9:010d}.seg.tmp": "a crash left the file unfinished",
    }
    with open_on(disk):
        assert names(disk, ".tmp") == []  # removed by the open
        directory.open("x.json.tmp", "create")
        assert len(findings(disk)) == 2


def test_leftovers_of_a_removal_are_no_damage(disk: SimulatedDisk) -> None:
    """P4: Old segments that no checkpoint needs may have gaps between them. They are no finding,
    and open removes them."""
    with open_on(disk) as journal:
        for n in range(2):
            put_lines(journal, 20, size=700)
            if n == 0:
                kept = {name: disk.contents(PATH)[name] for name in names(disk, ".seg")}
            journal.compact(frozen(journal, 1))
            put_lines(journal, 1)
        gone = [name for name in kept if name not in names(disk, ".seg")]
        assert len(gone) >= 3
    directory = disk.open_directory(PATH, write=True)
    for name in gone[::2]:
        directory.open(name, "create").write(kept[name], 0)
    assert findings(disk) == []
    lsns = [entry[0] for entry in read_all(disk)]
    assert lsns == [*range(lsns[0], 43)]
    open_on(disk).close()
    assert not {*gone} & {*names(disk, ".seg")}


def test_a_foreign_segment_is_found(disk: SimulatedDisk) -> None:
    """P1, P4: A segment of another journal is corruption."""
    other = SimulatedDisk()
    for each, ids in ((disk, 1), (other, 2)):
        for _ in range(ids):
            each.new_id()
        for _ in range(2):
            with open_on(each) as journal:
                put(journal, 1, 2)
    _, second = names(other, ".seg")
    write_at(disk, second, 0, other.contents(PATH)[second])
    with pytest.raises(CorruptionError, match="a segment of another journal"):
        open_on(disk)
    (finding,) = findings(disk)
    assert (finding.kind, finding.path) == ("corruption", f"{PATH}/{second}")


def test_findings_under_os_durability(disk: SimulatedDisk) -> None:
    """P2: After a power cut with durability `os`, the lost end is at most a torn tail, and synced
    records are recovered."""
    journal = open_on(disk, durability="os")
    put(journal, 1, 2)
    journal.compact(frozen(journal, "as of 2"))
    put(journal, 3, 4, 5)

    def outcome(change: Any) -> bytes | None:
        return None if b"\x04" in change.data else lose(change) or change.data

    disk.power_cut(outcome)
    crash(journal, disk)
    records = read_all(disk)
    assert records[:2] == [1, 2]
    assert {finding.kind for finding in findings(disk)} <= {"torn_tail"}
    assert reopened(disk) == records

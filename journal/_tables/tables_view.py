"""TablesView: tables that are read without a lock, with or without a live writer."""

from __future__ import annotations

from contextlib import closing

from journal._disk.disk import Disk, StrPath, clock_ns
from journal._disk.posix import disk_or_default
from journal._format.wrong_place import short_repr
from journal._offline.reader import JournalReader
from journal._public import public
from journal._state.composite import COMPOSITE_PREFIX
from journal._tables.machine import APPLICATION, TablesMachine, check_name
from journal._tables.shared_journals import (
    HOST_APPLICATION,
    HostReader,
    OnePart,
    is_hosts_first,
)
from journal._tables.table_view import TableView
from journal.errors import (
    CompactedError,
    CorruptionError,
    DamageReason,
    FormatReason,
    FormatVersionError,
)

_ATTEMPTS = 5  # of a read, since a live writer may remove the files that are about to be read


@public
class TablesView:
    """The tables of a journal as of one LSN, read without a lock.

    Reads hide the rows that have expired by now, whatever the LSN.
    """

    lsn: int
    """The LSN of the last record that it includes."""

    def __init__(self, machine: TablesMachine, lsn: int, disk: Disk) -> None:
        self._machine = machine
        self._rows = _RecoveredRows(machine, disk)
        self.lsn = lsn

    def table(self, name: str) -> TableView:
        """Return the table `name`, which is empty if it has no rows."""
        check_name(name)
        return TableView(self._rows, name)

    def names(self) -> list[str]:
        """Return the names of the tables that have rows, sorted."""
        return sorted(name for name, rows in self._machine.tables.items() if rows)

    def __repr__(self) -> str:
        return f"<TablesView lsn={self.lsn} tables={len(self.names())}>"


class _RecoveredRows:
    """The rows of a machine that no longer changes."""

    def __init__(self, machine: TablesMachine, disk: Disk) -> None:
        self._disk = disk
        self.get, self.count = machine.get, machine.count
        self.snapshot = machine.snapshot

    def now_ms(self) -> int:
        """Return the time in Unix milliseconds."""
        return clock_ns(self._disk) // 1_000_000


def read_tables(path: StrPath, at: int | None, part: str | None, disk: Disk | None) -> TablesView:
    """Read the tables at `path` as of LSN `at` (None: the end of what is durable).

    `part` names the part of a Composite to which they belong; None: they are not in one.
    """
    if at is not None and (type(at) is not int or at < 0):
        raise ValueError(f"at is {short_repr(at)}; give an LSN, an int of 0 or more")
    if part is not None and type(part) is not str:
        raise TypeError(f"part is {short_repr(part)}; give the name of a part, a str")
    disk = disk_or_default(disk)
    with JournalReader.open(path, disk=disk) as reader:
        for _ in range(_ATTEMPTS):
            try:
                return _read(reader, at, part, disk)
            except (CompactedError, FileNotFoundError) as error:
                first_lsn = reader.first_state_lsn
                if at is not None and at < first_lsn:
                    what = f"the tables as of LSN {at} are no longer retained; the first are of "
                    raise CompactedError(f"{what}LSN {first_lsn}", first_lsn, lsn=at) from error
        reader.check_beginning()
        what = f"{_ATTEMPTS} times in a row, compaction removed what was about to be read"
        raise CorruptionError(reader.path, 0, 0, what, reason=DamageReason.OVERTAKEN)


def _read(reader: JournalReader, at: int | None, part: str | None, disk: Disk) -> TablesView:
    machine, lsn = TablesMachine(), 0
    whole: TablesMachine | OnePart | HostReader = machine
    if part is not None:
        whole = OnePart(**{part: machine})
    if base := reader.base(at):
        with closing(base):
            if part is None and base.application == HOST_APPLICATION:
                whole = HostReader(machine)
            if problem := _why_refused(whole, base.application):
                raise _other_application(base.path, problem, base.application)
            lsn = base.lsn
            for block in base._blocks():
                try:
                    whole.load_lines(block)
                except Exception as error:
                    what = f"{error!r:.200} for an item: it is not one of {APPLICATION!r}"
                    raise _other_application(base.path, what) from error
    for entry in reader.entries(lsn):
        if at is not None and entry.lsn > at:
            break
        if entry.lsn == 1 and part is None and is_hosts_first(entry.record):
            whole = HostReader(machine)
        try:
            if not entry.is_filler:
                whole.apply(entry.lsn, entry.record)
        except Exception as error:
            what = f"offset {entry.offset}, LSN {entry.lsn}: not a record of {APPLICATION!r}"
            raise _other_application(entry.path, what) from error
        lsn = entry.lsn
    return TablesView(machine, lsn, disk)


def _why_refused(whole: TablesMachine | OnePart | HostReader, application: str) -> str:
    if isinstance(whole, OnePart):
        return whole.why_refused(application)
    if isinstance(whole, HostReader) or application == APPLICATION:
        return ""
    return f"a checkpoint of application {application!r}, not of {APPLICATION!r}"


def _other_application(path: str | None, what: str, application: str = "") -> FormatVersionError:
    advice = "open it with the program that wrote it"
    if application.startswith(COMPOSITE_PREFIX):
        advice = "name the part that has the tables, with `part`"
    return FormatVersionError(
        f"{what}; {advice}",
        path=path,
        reason=FormatReason.OTHER_APPLICATION,
    )

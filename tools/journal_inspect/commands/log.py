"""log: show the entries that the user asked for, as soon as they are read."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from _journal_console.exits import CORRUPT, FINE, NEGATIVE
from _journal_console.text import count_of, put_lines

from journal import CompactedError, CorruptionError, Entry, JournalReader, LargeRecord
from journal_inspect.commands.matching import Matcher
from journal_inspect.commands.moments import Time, lsn_at
from journal_inspect.diagnosis.log_end import DamagedEnd, find_end, is_large
from journal_inspect.diagnosis.retention import describe_beginning, describe_kept
from journal_inspect.exits import TimedOutError
from journal_inspect.rendering.entries import Lines, report_large
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.objects import put_objects
from journal_inspect.rendering.progress import Counted, counted
from journal_inspect.rendering.renderer import Renderer

_KINDS_SHOWN = 20
_COUNTED = 1024  # entries between two steps of the progress
_FOLLOWED = 10  # entries that `-f` shows first, as tail and journalctl do
_POLL_S = 0.02  # between two checks for new entries
_PAUSE_S = 0.002  # the shortest pause, even if printing took longer than _POLL_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The entries that the user asked for, their order, and how long to wait for them."""

    count: int | None = None
    reverse: bool = False
    follow: bool = False
    from_lsn: int | None = None
    to_lsn: int | None = None
    since: Time | None = None
    until: Time | None = None
    agents: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    grep: re.Pattern[str] | None = None
    until_match: re.Pattern[str] | None = None
    timeout_s: float | None = None
    payload: Literal["none", "short", "full"] | None = None


def show_log(reader: JournalReader, renderer: Renderer, wanted: Wanted) -> int:
    """Print the entries and return the exit code. Raises TimedOutError after `timeout_s`."""
    beginning = describe_beginning(reader)
    if beginning:
        say(beginning)
    try:
        code = _show(reader, renderer, wanted)
    except CompactedError as error:  # before the first entry, or while following
        first = error.first_lsn
        gone = f"LSN {error.lsn} is no longer kept; the first LSN that is kept is {first}"
        first_command = command("log", reader.path, "--from-lsn", first)
        say(f"{reader.path}: {gone}; {describe_kept(reader)}: {first_command}")
        code = NEGATIVE
    return CORRUPT if beginning else code


def _show(reader: JournalReader, renderer: Renderer, wanted: Wanted) -> int:
    if wanted.follow or not (wanted.agents or wanted.kinds or wanted.grep):
        return _show_entries(reader, renderer, wanted, None)
    with counted("searching", reader.path) as progress:
        return _show_entries(reader, renderer, wanted, progress)


def _show_entries(
    reader: JournalReader, renderer: Renderer, wanted: Wanted, progress: Counted | None
) -> int:
    lines = Lines(reader, renderer, wanted.payload)
    log = _Log(reader, renderer, wanted, lines)
    entries = log.entries(progress)
    if wanted.follow:
        entries = _until_match(entries, wanted, lines)
        if log.end:  # following may never end, so say it now
            say(log.end.describe(reader.path))
    if renderer.form == "text":
        count = put_lines(map(lines.text, entries))
    else:
        count = put_objects(map(lines.object, entries), renderer.form)
    if renderer.failed:
        failed = count_of(len(renderer.failed), "record")
        say(f"the decoder failed for {failed}, shown undecoded; first error: {_failure(renderer)}")
    if log.damage:
        raise log.damage
    if log.end:
        if not wanted.follow:
            say(log.end.describe(reader.path))
        return CORRUPT
    if not count and not log.has_left_out:
        say(f"{reader.path}: {_describe_nothing(reader, log, wanted)}")
        return NEGATIVE
    return FINE


def _describe_nothing(reader: JournalReader, log: _Log, wanted: Wanted) -> str:
    """Describe why no entry matches, and where to look."""
    matcher = log.matcher
    if matcher and len(matcher.unknown_agents) == len(wanted.agents) > 0:
        agents = " and ".join(f"no agent {ref!r}" for ref in matcher.unknown_agents)
        return f"{agents}; see all of them: {command('agents', reader.path)}"
    if matcher and wanted.kinds and not matcher.kinds_seen & {*wanted.kinds}:
        kinds = " and ".join(f"no kind {kind!r}" for kind in wanted.kinds)
        seen = sorted(matcher.kinds_seen)
        more = ", ..." if seen[_KINDS_SHOWN:] else ""
        return f"{kinds}; there are {', '.join(seen[:_KINDS_SHOWN]) or 'no entries'}{more}"
    return (
        f"no entry matches; {describe_kept(reader)}; see what is in it: "
        f"{command('info', reader.path)}"
    )


def _failure(renderer: Renderer) -> str:
    """Return the decoder's first error, or only its type if fields are redacted.

    The error's text may contain a redacted value.
    """
    error = renderer.failed[0]
    return type(error).__name__ if renderer.redacted else repr(error)


def _until_match(entries: Iterator[Entry], wanted: Wanted, lines: Lines) -> Iterator[Entry]:
    """Yield the entries up to and including the one that matches --until-match."""
    for entry in entries:
        yield entry
        if wanted.until_match and wanted.until_match.search(lines.body(entry)):
            return


class _FollowWait:
    """The wait for more entries of a log, limited by --timeout-s."""

    def __init__(self, reader: JournalReader, wanted: Wanted) -> None:
        self._reader = reader
        self._wanted = wanted
        self.began_ns = time.time_ns()
        self._checked_at_s = 0.0
        self._deadline_s = time.monotonic() + (wanted.timeout_s or 0)

    def wait(self) -> None:
        """Wait until there may be more entries, and flush those that were printed before."""
        sys.stdout.flush()
        remaining_s = self.check()
        due_s = max(_PAUSE_S, self._checked_at_s + _POLL_S - time.monotonic())
        time.sleep(due_s if remaining_s is None else min(due_s, remaining_s))
        self._checked_at_s = time.monotonic()

    def check(self) -> float | None:
        """Return the remaining seconds (None: no limit). Raises TimedOutError at the limit."""
        if self._wanted.timeout_s is None:
            return None
        remaining_s = self._deadline_s - time.monotonic()
        if remaining_s <= 0:
            live = self._reader.live
            state = "the writer is still running" if live else "no entry was added"
            if self._wanted.until_match:
                state = "no entry matched"
            state += "" if live else ", and no writer is running"
            raise TimedOutError(
                f"{self._reader.path}: timed out after {self._wanted.timeout_s:g} s: {state}; "
                "wait longer with --timeout-s"
            )
        return remaining_s


class _Log:
    """The entries of a journal that the user asked for."""

    def __init__(
        self, reader: JournalReader, renderer: Renderer, wanted: Wanted, lines: Lines
    ) -> None:
        self._reader = reader
        self._wanted = wanted
        self._after = None if wanted.from_lsn is None else wanted.from_lsn - 1
        self._to_lsn = wanted.to_lsn
        # If the user named the first LSN, it is an error if that one is no longer kept.
        self._is_first_named = wanted.from_lsn is not None
        self.damage: CorruptionError | None = None  # the first damage that `-r` passed over
        self.has_left_out = False  # an entry that may match, whose record is too large
        self._until_ns: int | None = None
        self._follow_wait = _FollowWait(reader, wanted)
        self.matcher: Matcher | None = None
        self._progress: Counted | None = None
        is_filtered = bool(wanted.agents or wanted.kinds or wanted.grep)
        is_bounded = is_filtered or wanted.to_lsn is not None or wanted.until is not None
        # Reading backward starts at this LSN; following starts after it. It is read before names
        # are looked up, so that all names up to this LSN are known.
        self._last_lsn = 0
        if wanted.reverse or (is_bounded and (wanted.follow or wanted.count is not None)):
            self._last_lsn = reader.last_lsn
        if is_filtered:
            self.matcher = Matcher(reader, wanted.agents, wanted.kinds, wanted.grep, lines)
        self._narrow(renderer.utc)
        self.end = self._find_end()

    def _narrow(self, utc: bool) -> None:
        """Turn the times of --since and --until into LSNs."""
        since, until = self._wanted.since, self._wanted.until
        if since:
            lsn_before = lsn_at(self._reader, since.unix_ns(utc=utc) - 1)
            if lsn_before + 1 > min(self._reader.first_lsns, default=1):
                self._after = max(self._after or 0, lsn_before)
        if until:
            self._until_ns = until.unix_ns(utc=utc)
            if not self._wanted.follow:
                last = lsn_at(self._reader, self._until_ns)
                self._to_lsn = last if self._to_lsn is None else min(self._to_lsn, last)

    def _find_end(self) -> DamagedEnd | None:
        """Return the damage before or in the wanted range, or None if there is none.

        With `-n`, limit the entries to those before the damage, unless the range begins after it.
        With `-r`, or a range that begins after the damage, entries after it are shown too.
        """
        wanted, after = self._wanted, self._after or 0
        if wanted.follow:
            # A live writer found the log whole when it opened the journal.
            is_due = not self._reader.live and not is_large(self._reader)
            return find_end(self._reader) if is_due else None
        if not (wanted.count is not None or wanted.reverse or after):
            return None  # reading from the beginning finds the damage
        if is_large(self._reader):
            say(
                f"{self._reader.path}: only the end of the log was read; what comes before it was "
                f"not checked for damage: {command('verify', self._reader.path)}"
            )
            return None
        end = find_end(self._reader)
        if end is None or (self._to_lsn is not None and self._to_lsn <= end.lsn):
            return None
        if wanted.count is not None and not wanted.reverse and after < end.lsn:
            self._to_lsn = self._last_lsn = end.lsn
        return end

    def entries(self, progress: Counted | None) -> Iterator[Entry]:
        """Yield the wanted entries. `progress` counts those that were looked at."""
        self._progress = progress
        count = self._wanted.count
        is_tail = count is None and self._wanted.follow and self._after is None
        if is_tail:
            count = _FOLLOWED
        if self._wanted.reverse:
            return islice(self._filtered(self._backward()), count)
        if count is None:
            return self._filtered(self._forward(self._after, None))
        if self._to_lsn is None and (self.matcher is None or is_tail):
            return self._filtered(self._forward(self._after, count))
        if self.matcher is None and not self._wanted.follow:
            # LSNs are dense, so the last entries are found without reading those before them.
            after = max(self._after or 0, min(self._to_lsn or 0, self._last_lsn) - count)
            first_lsn = 1 if self._is_first_named else min(self._reader.first_lsns, default=1)
            return self._forward(max(after, first_lsn - 1), None)
        return self._last(count)

    def _last(self, count: int) -> Iterator[Entry]:
        """Yield the last `count` matching entries, which are searched from the end."""
        entries = list(islice(self._filtered(self._backward()), count))
        yield from reversed(entries)
        if self._wanted.follow:
            yield from self._filtered(self._forward(self._last_lsn, None))

    def _filtered(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        if self.matcher is None:
            return entries
        if self._progress is None:
            return filter(self.matcher, entries)
        return self._searched(entries, self.matcher, self._progress)

    def _searched(
        self, entries: Iterator[Entry], matcher: Matcher, progress: Counted
    ) -> Iterator[Entry]:
        """Yield the entries that match, while no line of progress is shown."""
        for number, entry in enumerate(entries, 1):
            if not number % _COUNTED:
                progress(_COUNTED)
            if matcher(entry):
                progress.clear()
                yield entry

    def _forward(self, after: int | None, last: int | None) -> Iterator[Entry]:
        follow = self._wanted.follow
        if self._to_lsn is not None and self._to_lsn <= (after or 0):
            return iter(())
        entries = self._reader.entries(after, last=last, follow=follow, wait=self._follow_wait.wait)
        if self._to_lsn is None and not follow:
            return filter(self._can_show, entries)
        return self._bounded(entries)

    def _bounded(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """Yield the entries up to the end of the wanted range, or of the time to follow."""
        to_lsn, until_ns, follow = self._to_lsn, self._until_ns, self._wanted.follow
        for entry in entries:
            if to_lsn is not None and entry.lsn > to_lsn:
                return
            if follow and until_ns is not None and entry.written_at_ns > until_ns:
                return
            if self._can_show(entry):
                yield entry
            if entry.lsn == to_lsn:
                return
            # Show all entries from before the start, even after the time limit.
            if follow and entry.written_at_ns > self._follow_wait.began_ns:
                self._follow_wait.check()

    def _can_show(self, entry: Entry) -> bool:
        """Return whether an entry can be shown. If it can't, say so, and note that it may match."""
        if type(entry.record) is not LargeRecord:  # most of a million calls end here
            return True
        report_large(self._reader, entry)
        self.has_left_out |= self.matcher is None or self.matcher(entry)
        return False

    def _backward(self) -> Iterator[Entry]:
        """Yield the entries, the newest first, and pass over damage.

        The entries of only one segment at a time are in memory.
        """
        after, to_lsn = self._after, self._to_lsn
        # LSNs are dense, so entries before the wanted ones need not be read.
        remaining = self._wanted.count if self.matcher is None else None
        first_lsns = self._reader.first_lsns
        if self._is_first_named and (after or 0) + 1 < min(first_lsns, default=1):
            next(self._reader.entries(after), None)  # raises CompactedError
        for first_lsn in reversed(first_lsns):
            if to_lsn is not None and first_lsn > to_lsn:
                continue
            begin = max(first_lsn - 1, after or 0)
            last_lsn = self._last_lsn if to_lsn is None else min(to_lsn, self._last_lsn)
            from_lsn = begin if remaining is None else max(begin, last_lsn - remaining)
            batch: list[Entry] = []
            try:
                if not self._read(from_lsn, last_lsn, batch) and from_lsn > begin:
                    self._read(begin, last_lsn, batch)  # take the entries before the damage
            except CompactedError:
                if self._is_first_named:
                    raise
                return  # a writer compacted away the rest meanwhile
            yield from filter(self._can_show, reversed(batch))
            remaining = None if remaining is None else remaining - len(batch)
            to_lsn = first_lsn - 1 if to_lsn is None else min(to_lsn, first_lsn - 1)
            if to_lsn <= (after or 0) or remaining == 0:
                return

    def _read(self, after: int, last_lsn: int, into: list[Entry]) -> bool:
        """Read the entries from `after` to `last_lsn` into a list, without those that can't be
        read. Return whether all are whole."""
        into.clear()
        is_whole = True
        while True:
            try:
                for entry in self._reader.entries(after):
                    if entry.lsn > last_lsn:
                        break
                    into.append(entry)
                    if entry.lsn == last_lsn:
                        break
                return is_whole
            except CorruptionError as error:
                self.damage = self.damage or error
                if error.last_lsn is None or not after < error.last_lsn < last_lsn:
                    return False
                after, is_whole = error.last_lsn, False

"""log: the entries that are wanted, as they are read."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from journal import CompactedError, CorruptionError, Entry, JournalReader
from journal_inspect.commands.matching import Matcher
from journal_inspect.commands.moments import Time, lsn_at
from journal_inspect.diagnosis.log_end import DamagedEnd, find_end, is_large
from journal_inspect.diagnosis.retention import describe_beginning, describe_kept
from journal_inspect.exits import CORRUPT, FINE, NEGATIVE, TimedOutError
from journal_inspect.rendering.entries import Lines
from journal_inspect.rendering.objects import put_objects
from journal_inspect.rendering.renderer import Renderer
from journal_inspect.rendering.text import command, count_of, put_lines, say

_FOLLOWED = 10  # entries that `-f` begins with, as tail and journalctl do
_POLL_S = 0.02  # between two looks at what is new
_PAUSE_S = 0.002  # at least, however long it took to show it


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries, in which order, for how long."""

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
    """Raises TimedOutError after `timeout_s`."""
    beginning = describe_beginning(reader)
    if beginning:
        say(beginning)
    try:
        code = _show(reader, renderer, wanted)
    except CompactedError as error:  # the whole log, or from where to go on
        first = error.first_lsn
        what = f"LSN {error.lsn} is no longer kept, the first that is: {first}"
        there = command("log", reader.path, "--from-lsn", first)
        say(f"{reader.path}: {what}; {describe_kept(reader)}: {there}")
        code = NEGATIVE
    return CORRUPT if beginning else code


def _show(reader: JournalReader, renderer: Renderer, wanted: Wanted) -> int:
    lines = Lines(reader, renderer, wanted.payload)
    log = _Log(reader, renderer, wanted, lines)
    entries = log.entries()
    if wanted.follow:
        entries = _ending(entries, wanted, lines)
        if log.end:  # there may be no end at which to say it
            say(log.end.describe(reader.path))
    if renderer.form == "text":
        shown = put_lines(map(lines.text, entries))
    else:
        shown = put_objects(map(lines.object, entries), renderer.form)
    if renderer.failed:
        refused = count_of(len(renderer.failed), "record")
        say(f"the decoder refused {refused}, shown undecoded; the first time: {_failure(renderer)}")
    if log.damage:
        raise log.damage
    if log.end:
        if not wanted.follow:
            say(log.end.describe(reader.path))
        return CORRUPT
    if not shown:
        say(
            f"{reader.path}: no entry there; {describe_kept(reader)}; what is in it: "
            f"{command('info', reader.path)}"
        )
        return NEGATIVE
    return FINE


def _failure(renderer: Renderer) -> str:
    """It may quote what is to be left out."""
    error = renderer.failed[0]
    return type(error).__name__ if renderer.redacted else repr(error)


def _ending(entries: Iterator[Entry], wanted: Wanted, lines: Lines) -> Iterator[Entry]:
    """Up to the one that was waited for."""
    for entry in entries:
        yield entry
        if wanted.until_match and wanted.until_match.search(lines.body(entry)):
            return


class _Patience:
    """Waits for more of a log, no longer than the time that was given."""

    def __init__(self, reader: JournalReader, wanted: Wanted) -> None:
        self._reader = reader
        self._wanted = wanted
        self.began_ns = time.time_ns()
        self._looked_at_s = 0.0
        self._deadline_s = time.monotonic() + (wanted.timeout_s or 0)

    def wait(self) -> None:
        """Wait until there may be more. What is shown by now is seen, however long that takes."""
        sys.stdout.flush()
        left_s = self.check()
        due_s = max(_PAUSE_S, self._looked_at_s + _POLL_S - time.monotonic())
        time.sleep(due_s if left_s is None else min(due_s, left_s))
        self._looked_at_s = time.monotonic()

    def check(self) -> float | None:
        """Return the seconds that are left, if there is a limit. Raise TimedOutError if none is."""
        if self._wanted.timeout_s is None:
            return None
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            live = self._reader.live
            going_on = "it goes on" if live else "nothing more came"
            what = "nothing matched" if self._wanted.until_match else going_on
            what += "" if live else ", and no writer lives"
            raise TimedOutError(
                f"{self._reader.path}: {self._wanted.timeout_s:g} s are over, {what}; "
                "wait longer with --timeout-s"
            )
        return left_s


class _Log:
    def __init__(
        self, reader: JournalReader, renderer: Renderer, wanted: Wanted, lines: Lines
    ) -> None:
        self._reader = reader
        self._wanted = wanted
        self._after = None if wanted.from_lsn is None else wanted.from_lsn - 1
        self._to_lsn = wanted.to_lsn
        self._is_asked = wanted.from_lsn is not None  # so it matters whether that is kept
        self.damage: CorruptionError | None = None  # that it went back over
        self._until_ns: int | None = None
        self._patience = _Patience(reader, wanted)
        self._matches: Callable[[Entry], bool] | None = None
        is_filtered = bool(wanted.agents or wanted.kinds or wanted.grep)
        is_bounded = is_filtered or wanted.to_lsn is not None or wanted.until is not None
        # Who goes back begins here; what is written meanwhile is for who goes on. Asked before
        # names are looked up, so that those up to here are known.
        self._last_lsn = 0
        if wanted.reverse or (is_bounded and (wanted.follow or wanted.count is not None)):
            self._last_lsn = reader.last_lsn
        if is_filtered:
            self._matches = Matcher(reader, wanted.agents, wanted.kinds, wanted.grep, lines.body)
        self._narrow(renderer.utc)
        self.end = self._find_end()

    def _narrow(self, utc: bool) -> None:
        """Times as LSNs."""
        since, until = self._wanted.since, self._wanted.until
        if since:
            before = lsn_at(self._reader, since.unix_ns(utc=utc) - 1)
            if before + 1 > min(self._reader.first_lsns, default=1):
                self._after = max(self._after or 0, before)
        if until:
            self._until_ns = until.unix_ns(utc=utc)
            if not self._wanted.follow:
                last = lsn_at(self._reader, self._until_ns)
                self._to_lsn = last if self._to_lsn is None else min(self._to_lsn, last)

    def _find_end(self) -> DamagedEnd | None:
        """Where the log is damaged before what is wanted, or in it. Who wants no more than the
        last ones gets those before it; who asks for what is behind it, or for all, that too."""
        wanted, after = self._wanted, self._after or 0
        if wanted.follow:
            # A live writer has found it whole, or there would be none.
            is_asked = not self._reader.live and not is_large(self._reader)
            return find_end(self._reader) if is_asked else None
        if not (wanted.count is not None or wanted.reverse or after):
            return None  # it comes upon it
        if is_large(self._reader):
            say(
                f"{self._reader.path}: so much that it was not looked at whether what comes before "
                f"is whole: {command('verify', self._reader.path)}"
            )
            return None
        end = find_end(self._reader)
        if end is None or (self._to_lsn is not None and self._to_lsn <= end.lsn):
            return None
        if wanted.count is not None and not wanted.reverse and after < end.lsn:
            self._to_lsn = self._last_lsn = end.lsn
        return end

    def entries(self) -> Iterator[Entry]:
        count = self._wanted.count
        is_tail = count is None and self._wanted.follow and self._after is None
        if is_tail:
            count = _FOLLOWED
        if self._wanted.reverse:
            return islice(self._filtered(self._backward()), count)
        if count is None:
            return self._filtered(self._forward(self._after, None))
        if self._to_lsn is None and (self._matches is None or is_tail):
            return self._filtered(self._forward(self._after, count))
        if self._matches is None and not self._wanted.follow:
            # LSNs are dense, so the last entries are found without a look at those before.
            after = max(self._after or 0, min(self._to_lsn or 0, self._last_lsn) - count)
            first_lsn = 1 if self._is_asked else min(self._reader.first_lsns, default=1)
            return self._forward(max(after, first_lsn - 1), None)
        return self._last(count)

    def _last(self, count: int) -> Iterator[Entry]:
        """The last `count` that match, looked for from the end."""
        found = list(islice(self._filtered(self._backward()), count))
        yield from reversed(found)
        if self._wanted.follow:
            yield from self._filtered(self._forward(self._last_lsn, None))

    def _filtered(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        return filter(self._matches, entries) if self._matches else entries

    def _forward(self, after: int | None, last: int | None) -> Iterator[Entry]:
        to_lsn, until_ns, follow = self._to_lsn, self._until_ns, self._wanted.follow
        if to_lsn is not None and to_lsn <= (after or 0):
            return
        for entry in self._reader.entries(
            after, last=last, follow=follow, wait=self._patience.wait
        ):
            if to_lsn is not None and entry.lsn > to_lsn:
                return
            if follow and until_ns is not None and entry.written_at_ns > until_ns:
                return
            yield entry
            if entry.lsn == to_lsn:
                return
            if follow and entry.written_at_ns > self._patience.began_ns:  # what was there is shown
                self._patience.check()

    def _backward(self) -> Iterator[Entry]:
        """The newest first. Holds the entries of one segment at a time; goes on over damage."""
        after, to_lsn = self._after, self._to_lsn
        # LSNs are dense, so those before the ones wanted need not be read.
        left = self._wanted.count if self._matches is None else None
        first_lsns = self._reader.first_lsns
        if self._is_asked and (after or 0) + 1 < min(first_lsns, default=1):
            next(self._reader.entries(after), None)  # raises what it has to say of what is gone
        for first_lsn in reversed(first_lsns):
            if to_lsn is not None and first_lsn > to_lsn:
                continue
            begin = max(first_lsn - 1, after or 0)
            last_lsn = self._last_lsn if to_lsn is None else min(to_lsn, self._last_lsn)
            from_lsn = begin if left is None else max(begin, last_lsn - left)
            found: list[Entry] = []
            try:
                if not self._read(from_lsn, last_lsn, found) and from_lsn > begin:
                    self._read(begin, last_lsn, found)  # what is wanted comes before the damage
            except CompactedError:
                if self._is_asked:
                    raise
                return  # while it went back, the log's beginning came nearer
            yield from reversed(found)
            left = None if left is None else left - len(found)
            to_lsn = first_lsn - 1 if to_lsn is None else min(to_lsn, first_lsn - 1)
            if to_lsn <= (after or 0):
                return

    def _read(self, after: int, last_lsn: int, found: list[Entry]) -> bool:
        """Whether it is whole from there to there; `found` is what of it can be read."""
        found.clear()
        try:
            for entry in self._reader.entries(after):
                if entry.lsn > last_lsn:
                    break
                found.append(entry)
                if entry.lsn == last_lsn:
                    break
        except CorruptionError as error:
            self.damage = self.damage or error
            return False
        return True

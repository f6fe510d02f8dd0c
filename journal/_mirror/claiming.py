"""Claiming and appending: the protocol by which one writer at a time owns a mirror.

    claim   look for the last entry, put a claim after it, and look again: if anything follows the
            claim, start over, or else this writer's claim stands
    append  put at the next number. If that is taken, read it: the writer's own entry means that an
            answer was lost, a claim means that another writer has taken over, forever

One append is in flight at a time: with two, the second may land without the first, and leave a gap.
The second look is needed because a trimmed number is free again. Source:
tools/proof/mirror_model.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile

from journal._mirror.blobs import CheckpointName, RollUpName, encode_blob, roll_up_names
from journal._mirror.entry import (
    BASE,
    BYTES,
    CHECKPOINT,
    CLAIM,
    NONCE_BYTES,
    RELEASE,
    ROLL_UP,
    Claim,
    MirrorDamageError,
    MirrorEntry,
    Piece,
)
from journal._mirror.errors import MirrorReason
from journal._mirror.reading import read_entry
from journal._mirror.store import (
    AbsentError,
    LostError,
    Store,
    StoreError,
    TakenError,
    UnreachableError,
)


class HeldError(StoreError):
    """Another writer's claim has no release. `entry` has that claim, and `claim` its statement."""

    def __init__(self, url: str, entry: MirrorEntry) -> None:
        claim = entry.claim
        assert claim is not None
        super().__init__(
            f"{url}: process {claim.pid} on {claim.host} holds the mirror, with epoch {entry.epoch}"
        )
        self.claim = claim
        self.entry = entry


class OvertakenError(StoreError):
    """Another writer has claimed the mirror. This one's entries are refused from now on.

    claim, epoch: the other writer's statement and epoch, None if its claim could not be read.
    """

    def __init__(self, url: str, number: int, there: MirrorEntry | None) -> None:
        self.claim = there.claim if there else None
        who = f"process {self.claim.pid} on {self.claim.host}" if self.claim else "another writer"
        super().__init__(f"{url}: {who} has taken over at entry {number}")
        self.epoch = there.epoch if there else None


class OtherJournalError(StoreError):
    """The mirror belongs to another journal."""

    reason = MirrorReason.OTHER_JOURNAL


class OtherApplicationError(OtherJournalError):
    """The mirror belongs to another application."""

    reason = MirrorReason.OTHER_APPLICATION


class NewerVersionError(OtherJournalError):
    """The mirror was written by a newer version."""

    reason = MirrorReason.NEWER_VERSION


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a mirror's log.

    last: the last entry, None if there is none. claimed: the claim under which it was written.
    """

    last: MirrorEntry | None = None
    claimed: MirrorEntry | None = None

    @property
    def is_released(self) -> bool:
        """True if no writer holds the mirror."""
        return self.last is None or self.last.kind == RELEASE

    @property
    def number(self) -> int:
        """The number of the last entry, 0 if there is none."""
        return self.last.number if self.last else 0


def look(store: Store) -> Tail:
    """Return the end of the log. Raises MirrorDamageError and what the store raises."""
    last = last_entry(store)
    if last is None or last.kind == CLAIM:
        return Tail(last, last)
    try:
        claimed = read_entry(store, last.claim_number)
    except AbsentError as error:
        problem = "it is missing, although it is a claim, which must not be removed"
        lsn = _lsn_from(store, last.claim_number)
        raise MirrorDamageError(last.claim_number, problem, lsn=lsn) from error
    if claimed.kind != CLAIM:
        raise MirrorDamageError(claimed.number, "it is named as a claim, but is not one")
    return Tail(last, claimed)


def last_entry(store: Store) -> MirrorEntry | None:
    """Return the last entry, None if there is none. Raises MirrorDamageError and what the store
    raises."""
    seen = 0
    while True:
        names = roll_up_names(store.blob_names())
        newest = names[-1].last if names else 0
        # A writer never trims its own last entry, nor a claim. So the last entry of all always
        # exists, and no stray comes after the newest roll-up.
        number = store.last(max(newest - 1, 0))
        if number < newest:
            raise MirrorDamageError(newest, "it is missing, although it must not be trimmed")
        if not number:
            return None
        try:
            return read_entry(store, number)
        except AbsentError as error:
            if number <= seen:  # otherwise, it may have been trimmed since, after a later one
                raise MirrorDamageError(number, "it is missing, although it is listed") from error
            seen = number


def _lsn_from(store: Store, number: int) -> int:
    """Return the first LSN that may begin at an entry, 0 if the entry before it is gone, too."""
    if number == 1:
        return 1
    try:
        return read_entry(store, number - 1).last_lsn + 1
    except (AbsentError, MirrorDamageError):
        return 0


class Claimer:
    """A process that wants to become the writer of a mirror."""

    def __init__(
        self,
        store: Store,
        statement: Claim,
        new_nonce: Callable[[], bytes],
        *,
        epoch_min: int = 1,
        is_new: bool = False,
        takeover: bool = False,
        own_writers: Collection[str] = (),
        accepts: tuple[str, ...] = (),
        admit: Callable[[Tail], None] | None = None,
    ) -> None:
        """Prepare a claim. The writer's epoch will be at least `epoch_min`.

        `is_new`: the directory has no journal yet, so the mirror's id replaces the statement's.
        `takeover`: claim also while another writer holds the mirror. `own_writers`: the ids of
        writers that are known to have ended. `accepts`: the applications of which the mirror may
        be; if it is empty, any. `admit`: called before each claim; may raise to prevent it.
        """
        self._store = store
        self._statement = statement
        self._new_nonce = new_nonce
        self._epoch_min = epoch_min
        self._is_new = is_new
        self._takeover = takeover
        self._own_writers = own_writers
        self._accepts = accepts
        self._admit = admit
        self._pending: MirrorEntry | None = None  # a claim whose outcome is unknown

    def claim(self) -> Appender:
        """Claim the mirror, and return the appender of its new writer.

        Raises HeldError, OtherJournalError, MirrorDamageError, RefusedError and UnreachableError.
        After the last one, the call may be repeated. If it is not, a claim may stand that has no
        writer, so that the next one has to take over.
        """
        while True:
            claimed = self._pending or self._next_claim()
            self._pending = claimed
            try:
                _put(self._store, claimed, claimed.encode())
            except _OwnedError:
                self._pending = None
                continue
            followed = self._store.numbers(claimed.number)
            self._pending = None
            if not followed:
                return Appender(self._store, claimed, self._new_nonce)

    def _next_claim(self) -> MirrorEntry:
        tail = look(self._store)
        theirs = tail.claimed.claim if tail.claimed else None
        statement = self._statement
        if theirs is not None:
            if self._is_new:
                statement = statement._replace(journal_id=theirs.journal_id)
            _check_same(self._store, theirs, statement, self._accepts)
        is_held = theirs is not None and theirs.writer not in self._own_writers
        if tail.claimed and is_held and not tail.is_released and not self._takeover:
            raise HeldError(self._store.url, tail.claimed)
        if self._admit is not None:
            self._admit(tail)
        number = tail.number + 1
        return MirrorEntry(
            kind=CLAIM,
            number=number,
            epoch=max(self._epoch_min, tail.claimed.epoch + 1 if tail.claimed else 1),
            nonce=self._new_nonce()[:NONCE_BYTES],
            follows=tail.last.nonce if tail.last else b"",
            claim_number=number,
            last_lsn=tail.last.last_lsn if tail.last else 0,
            claim=statement,
        )


def _check_same(store: Store, theirs: Claim, statement: Claim, accepts: tuple[str, ...]) -> None:
    """Raise OtherJournalError unless the mirror is one of this journal."""
    kind: type[OtherJournalError] | None = None
    if theirs.journal_id != statement.journal_id:
        kind, problem = OtherJournalError, f"of another journal, {theirs.journal_id}"
        step = "give this journal another address"
    elif accepts and theirs.application not in accepts:
        names = " or ".join(map(repr, accepts))
        kind, problem = OtherApplicationError, f"of application {theirs.application!r}, not {names}"
        step = "open it as that application, or give another address"
    elif theirs.format_version > statement.format_version:
        problem = f"written with the newer format version {theirs.format_version}"
        kind, step = NewerVersionError, "use a newer journal-engine"
    if kind is not None:
        raise kind(f"{store.url}: the mirror is {problem}; nothing was changed; {step}")


class _OwnedError(Exception):
    """Another writer owns the number. `entry` is its entry, None if that was trimmed already."""

    def __init__(self, entry: MirrorEntry | None) -> None:
        super().__init__()
        self.entry = entry


def _put(store: Store, entry: MirrorEntry, data: bytes) -> None:
    """Put an entry. Return once the store has it, from this call or from an earlier one.

    Raises _OwnedError; and UnreachableError if the outcome is unknown, after which the call may be
    repeated with the same entry.
    """
    try:
        store.append(entry.number, data)
    except TakenError as taken:
        try:
            there = read_entry(store, entry.number)
        except AbsentError as error:
            if store.numbers(entry.number):
                raise _OwnedError(None) from taken  # and other writers have long gone on
            # Some servers refuse one of two requests of the same writer, and keep neither.
            raise UnreachableError(f"{taken}, and then it does not") from error
        if there.nonce != entry.nonce:
            raise _OwnedError(there) from taken


class Appender:
    """The writer's end of a mirror: appends entries, rolls them up, trims them. One thread at a
    time appends. Another one may put blobs and trim meanwhile."""

    def __init__(self, store: Store, claimed: MirrorEntry, new_nonce: Callable[[], bytes]) -> None:
        self._store = store
        self._new_nonce = new_nonce
        self._last = claimed
        self._pending: tuple[MirrorEntry, bytes] | None = None
        self._overtaken: OvertakenError | None = None
        # The numbers of the entries with bytes that this writer has appended and not trimmed.
        self._untrimmed: dict[int, None] = {}
        self.trims = True  # False at the end: some stores trim thousands one by one
        self.claimed = claimed

    @property
    def epoch(self) -> int:
        """The least epoch that this writer may use."""
        return self.claimed.epoch

    @property
    def last(self) -> MirrorEntry:
        """The last entry that the store is known to have."""
        return self._last

    def append(self, pieces: list[Piece], last_lsn: int) -> MirrorEntry:
        """Append bytes, and return their entry. `last_lsn`: the LSN up to which the mirror then has
        every record.

        Raises OvertakenError, and then at every later call. After MirrorDamageError, RefusedError
        or UnreachableError, call `retry` until it returns, before anything else is appended.
        """
        return self.send(self._next_entry(BYTES, pieces, last_lsn))

    def release(self) -> None:
        """Release the mirror: the next writer need not take over. Raises what `append` raises."""
        self.send(self._next_entry(RELEASE, [], self._last.last_lsn))

    def retry(self) -> MirrorEntry | None:
        """Repeat the append whose outcome is unknown, and return its entry. Return None if there is
        none. Raises what `append` raises."""
        if self._overtaken is not None:
            raise self._overtaken
        if self._pending is None:
            return None
        entry, data = self._pending
        try:
            _put(self._store, entry, data)
        except _OwnedError as owned:
            self._overtaken = self._overtaken_by(owned.entry, entry.number)
            raise self._overtaken from owned
        self._last, self._pending = entry, None
        if entry.kind == BYTES:
            self._untrimmed[entry.number] = None
        return entry

    def roll_up(
        self,
        first: int,
        follows: bytes,
        pieces: Iterable[Piece],
        *,
        last: MirrorEntry | None = None,
    ) -> RollUpName:
        """Put the bytes of the entries from `first` to `last`, which was appended (None: the last
        one), into one blob.

        `follows`: the nonce of the entry before `first`. The entries may be trimmed once this has
        returned. Raises LostError if this writer's claim is gone, which nobody trims, and what the
        store and `pieces` raise; then it may be repeated.
        """
        self._check_claim()
        last = last or self._last
        header = replace(last, kind=ROLL_UP, first=first, follows=follows, pieces=[], claim=None)
        name = RollUpName(last.number, first)
        self._store.put_blob(str(name), encode_blob(header, pieces))
        return name

    def put_checkpoint(
        self, name: CheckpointName, nonce: bytes, from_lsn: int, pieces: Iterable[Piece]
    ) -> None:
        """Put a checkpoint of the state as of `name.lsn`, up to which the mirror has every record.

        `nonce`: of entry `name.number`, after which come the bytes of all segments that do not
        begin before `from_lsn`. Raises what `roll_up` raises.
        """
        self._check_claim()
        header = MirrorEntry(
            kind=CHECKPOINT,
            number=name.number,
            epoch=self.epoch,
            nonce=nonce,
            follows=b"",
            claim_number=self.claimed.number,
            last_lsn=name.lsn,
            first=1,
            from_lsn=from_lsn,
        )
        self._store.put_blob(str(name), encode_blob(header, pieces))

    def next_base(self, lsn: int, last_lsn: int) -> MirrorEntry:
        """Return the entry of a base, to be appended after its blob was put. `lsn`: the LSN of its
        oldest checkpoint. `last_lsn`: the LSN up to which it has every record."""
        return replace(self._next_entry(BASE, [], last_lsn), from_lsn=lsn)

    def put_base(self, base: MirrorEntry, made_ms: int, pieces: Iterable[Piece]) -> None:
        """Put the blob of a base. Nobody believes it before its entry is appended. Raises what
        `roll_up` raises."""
        self._check_claim()
        name = CheckpointName(base.number, base.from_lsn, made_ms, base.nonce.hex())
        self._store.put_blob(str(name), encode_blob(base, pieces))

    def _check_claim(self) -> None:
        """Raise LostError if this writer's claim is gone, which nobody trims."""
        with suppress(AbsentError):
            if read_entry(self._store, self.claimed.number).nonce == self.claimed.nonce:
                return
        number = self.claimed.number
        raise LostError(f"{self._store.url}: claim {number} is gone; the mirror was emptied")

    def trim(self, name: RollUpName, numbers: list[int]) -> None:
        """Remove those entries among `numbers` that the roll-up `name` holds.

        `numbers` are entries with bytes, and no claims: a claim is what stops an earlier writer.
        The last entry stays: without it, the next claim could get a number that was used before.
        Raises what the store raises; then it may be repeated.
        """
        last = self._last.number
        self._trim([n for n in numbers if name.first <= n <= name.last and n != last])

    def trim_covered(self, floor: int, others: Collection[int]) -> None:
        """Trim this writer's entries with bytes up to `floor`, and `others`, which are not claims:
        checkpoints cover them. Raises what the store raises; then it may be repeated."""
        last = self._last.number
        self._trim([*others, *(n for n in list(self._untrimmed) if n <= floor and n != last)])

    def _trim(self, numbers: list[int]) -> None:
        self._store.trim(takewhile(lambda _: self.trims, numbers))
        for number in numbers:
            self._untrimmed.pop(number, None)

    def _next_entry(self, kind: int, pieces: list[Piece], last_lsn: int) -> MirrorEntry:
        return MirrorEntry(
            kind=kind,
            number=self._last.number + 1,
            epoch=self.epoch,
            nonce=self._new_nonce()[:NONCE_BYTES],
            follows=self._last.nonce,
            claim_number=self.claimed.number,
            last_lsn=last_lsn,
            pieces=pieces,
        )

    def send(self, entry: MirrorEntry) -> MirrorEntry:
        """Append an entry that was made, such as that of a base. Raises what `append` raises."""
        if self._overtaken is not None:
            raise self._overtaken
        if self._pending is not None:
            raise RuntimeError("the last append has no outcome yet; call retry()")
        # The same bytes until there is an outcome: the nonce says whose an entry is.
        self._pending = entry, entry.encode()
        sent = self.retry()
        assert sent is not None
        return sent

    def _overtaken_by(self, there: MirrorEntry | None, number: int) -> OvertakenError:
        if there is not None and there.kind != CLAIM:
            raise MirrorDamageError(number, "it belongs to a writer that has not claimed")
        return OvertakenError(self._store.url, number, there)

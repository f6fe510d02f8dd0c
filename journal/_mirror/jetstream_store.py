"""JetStreamStore: a store in a stream of NATS JetStream, through the package nats-py.

Entry n is the message with sequence n, published with the expected last sequence n - 1. A sequence
never goes back, so a trimmed number is never free again. Blobs are objects of the object-store
bucket `STREAM-blobs`. The server and the stream decide what survives a power cut: use
`sync_interval: always` and three replicas. No client can ask a server for its sync interval.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from journal import _time as time
from journal._log import report
from journal._mirror.jetstream_connection import ASK_LAST, CONNECT, OPEN, JetStreamConnection
from journal._mirror.pieces_file import Content, PiecesFile
from journal._mirror.store import (
    AbsentError,
    LostError,
    RefusedError,
    StoreError,
    TakenError,
    UnreachableError,
)
from journal._mirror.stream_settings import unfit

T = TypeVar("T")

_MESSAGE_BYTES_MAX = 16 << 20
_HEADERS_BYTES_MAX = 1 << 10  # the size that a publish adds to an entry
_FEW, _FETCHED = 3, 1000  # entries to get one by one; entries to get at a time, through a consumer
_CONSUMER_S = 60.0  # the time after which the server removes a consumer that was left
_WRONG_LAST_SEQUENCE = 10071  # an error of the server
_ANSWER_S = 2.0  # a leader that was lost never answers, and a publish may be repeated
_FORMER_LEADER_S = 15.0  # a leader that has lost its replicas steps down within 10 s
_BYTES_PER_S_MIN = 1 << 18  # a blob that comes more slowly counts as unreachable


class JetStreamStore(JetStreamConnection):
    """A store in one stream. The connection and its event loop live in a thread of their own."""

    def __init__(
        self,
        url: str,
        servers: list[str],
        stream: str,
        open_s: float,
        timeout_s: float,
        is_reader: bool = False,
    ) -> None:
        """Connect, and check the stream. A reader makes no bucket of blobs. `open_s`: the time
        limit of each of these requests; `timeout_s`: of all later ones. Raises RefusedError,
        UnreachableError, and ImportError without nats-py."""
        super().__init__(url, servers, open_s, timeout_s)
        self._stream = stream
        self._is_reader = is_reader
        self._message_bytes_max = _MESSAGE_BYTES_MAX
        self._behind_since: float | None = None  # when a publish first found the stream too short
        try:
            self._start_thread()
            self._call(CONNECT, lambda: self._connect(self._client))
            self._js = self._client.jetstream(timeout=timeout_s)
            self._subject: str = self._call(OPEN, self._check_stream)
            self._opened_bucket()
            self._timeout_s = timeout_s
        except BaseException:
            self.close()
            raise

    @property
    def entry_bytes_max(self) -> int:
        limit: int = self._client.max_payload
        return min(self._message_bytes_max, limit - _HEADERS_BYTES_MAX)

    def append(self, number: int, data: bytes) -> None:
        what = f"publish entry {number}"
        headers = {"Nats-Expected-Last-Sequence": str(number - 1)}
        timeout_s = min(self._timeout_s, _ANSWER_S + len(data) / _BYTES_PER_S_MIN)
        try:
            ack = self._call(
                what,
                lambda: self._js.publish(
                    self._subject,
                    data,
                    timeout=timeout_s,
                    stream=self._stream,
                    headers=dict(headers),
                ),
                timeout_s=timeout_s,
            )
        except StoreError as error:
            if getattr(error.__cause__, "err_code", None) != _WRONG_LAST_SEQUENCE:
                raise
            last = self._last()
            if last >= number:
                raise TakenError(f"{self.url}: entry {number} exists") from error
            raise self._refused(number, last) from error
        if ack.seq != number:
            raise self._went_back(number, ack.seq)
        self._behind_since = None

    def entry(self, number: int) -> bytes:
        message = self._call(f"get entry {number}", lambda: self._js.get_msg(self._stream, number))
        if message.data is None:
            raise AbsentError(f"{self.url}: entry {number} is empty")
        return bytes(message.data)

    def numbers(self, after: int) -> list[int]:
        found: list[int] = []
        last = self._last()
        if last - after > _FEW:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": after + 1}
            what = f"list entries after {after}"
            listed = self._call(what, lambda: self._list(self._stream, headers_only=True, **start))
            found = [message.metadata.sequence.stream for message in listed]
        # The replica that has listed may lag behind. The leader has the rest, if any.
        after = max([after, *found[-1:]])
        while after < last:
            try:
                message = self._call(
                    f"list entries after {after}",
                    partial(self._js.get_msg, self._stream, after + 1, subject=">", next=True),
                )
            except AbsentError:
                break
            after = message.seq
            found.append(after)
        return found

    def last(self, after: int) -> int:
        last = self._last()
        if last > after:
            with suppress(AbsentError):
                self.entry(last)
                return last
        return max(self.numbers(after), default=0)

    def trim(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            with suppress(AbsentError):
                call = partial(self._js.delete_msg, self._stream, number)
                self._call(f"delete entry {number}", call)

    def put_blob(self, name: str, pieces: Iterable[bytes]) -> None:
        bucket = self._opened_bucket()
        if bucket is None:
            raise RefusedError(f"{self.url}: put blob {name}: there is no bucket of blobs")
        source = PiecesFile(pieces)
        try:
            # Each of its messages has a time limit of its own.
            self._call(f"put blob {name}", lambda: bucket.put(name, source), timeout_s=None)
        except AbsentError as error:
            problem = f"the bucket {self._stream}-blobs is gone: the mirror was emptied"
            raise LostError(f"{self.url}: {problem}; mirror to a new stream") from error
        except BaseException:
            if source.error is not None:
                raise source.error from None
            raise

    def blob(self, name: str) -> Iterator[bytes]:
        what = f"get blob {name}"
        bucket = self._opened_bucket()
        if bucket is None:
            raise AbsentError(f"{self.url}: {what}: there is no bucket of blobs")
        info = self._call(what, lambda: bucket.get_info(name))
        if info.size and self._call(what, lambda: self._is_hollow(bucket, name, info.nuid)):
            return
        content = Content()
        timeout_s = self._timeout_s + info.size / _BYTES_PER_S_MIN
        try:
            self._call(what, lambda: bucket.get(name, writeinto=content), timeout_s=timeout_s)
        except UnreachableError as error:
            # The parts of a blob have checksums of their own, which show where it is damaged.
            if not isinstance(error.__cause__, self._nats.js.errors.DigestMismatchError):
                raise
        yield from content.pieces

    def blob_names(self) -> list[str]:
        if self._opened_bucket() is None:
            return []
        try:
            return self._call("list blobs", self._list_blobs)
        except AbsentError:  # there never was a blob
            return []

    def delete_blobs(self, names: Iterable[str]) -> None:
        bucket = self._opened_bucket()
        for name in names if bucket else ():
            with suppress(AbsentError):
                self._call(f"delete blob {name}", partial(bucket.delete, name))

    # --- internal ---

    async def _check_stream(self) -> str:
        """Return the stream's subject. Raises RefusedError for a stream that may drop messages, or
        that others may write to by its settings."""
        config = (await self._js.stream_info(self._stream)).config
        if found := unfit(config):
            raise RefusedError(f"{self.url}: the stream can't be a mirror: {'; '.join(found)}")
        if (config.num_replicas or 1) < 2:
            text = "%s: the stream has one replica, so it is lost with that server's disk"
            report(logging.WARNING, text, self.url)
        self._replicas = config.num_replicas or 1
        if (config.max_msg_size or -1) > 0:
            self._message_bytes_max = config.max_msg_size - _HEADERS_BYTES_MAX
        return str(config.subjects[0])

    def _opened_bucket(self) -> Any:
        """Return the bucket of blobs. A reader looks for it each time, because the first writer
        makes it; None if it has not."""
        if self._client.is_closed:
            self._reconnect()
        bucket = self._bucket
        if bucket is None:
            bucket = self._bucket = self._call("open the bucket of blobs", self._open_bucket)
        return bucket

    async def _open_bucket(self) -> Any:
        name = f"{self._stream}-blobs"
        try:
            bucket = await self._js.object_store(name)
        except self._nats.js.errors.NotFoundError:
            if self._is_reader:
                return None
            return await self._js.create_object_store(name, replicas=self._replicas)
        if (await self._js.stream_info(f"OBJ_{name}")).config.max_age:
            raise RefusedError(f"{self.url}: the bucket {name} forgets objects; its TTL must be 0")
        return bucket

    async def _is_hollow(self, bucket: Any, name: str, nuid: str) -> bool:
        """Return whether all bytes of a blob are gone. For these, nats-py would wait in vain."""
        blobs = f"{self._stream}-blobs"
        try:
            await self._js.get_last_msg(f"OBJ_{blobs}", f"$O.{blobs}.C.{nuid}")
        except self._nats.js.errors.NotFoundError:
            info = await bucket.get_info(name)
            return bool(info.nuid == nuid)  # otherwise, it was replaced meanwhile
        return False

    async def _list_blobs(self) -> list[str]:
        bucket = f"{self._stream}-blobs"
        subject = f"$O.{bucket}.M.>"
        last = await self._js.get_last_msg(f"OBJ_{bucket}", subject)
        each = {"filter_subject": subject, "deliver_policy": "last_per_subject"}
        listed = await self._list(f"OBJ_{bucket}", **each)
        if not listed or listed[-1].metadata.sequence.stream < last.seq:
            raise UnreachableError(f"{self.url}: the replica that lists blobs lags behind")
        notes = [json.loads(message.data) for message in listed]
        return sorted(note["name"] for note in notes if not note.get("deleted"))

    async def _list(self, stream: str, **which: Any) -> list[Any]:
        """List messages through a consumer that lasts as long as the call. The last ones may be
        missing."""
        config = self._nats.js.api.ConsumerConfig(
            ack_policy="none",
            inactive_threshold=_CONSUMER_S,
            mem_storage=True,
            num_replicas=1,
            **which,
        )
        found: list[Any] = []
        try:
            # Another consumer each time: an earlier one may be on a server that is gone.
            info = await self._client.answered(
                lambda left_s: self._js.add_consumer(
                    stream, config, left_s, name=f"list-{uuid4().hex}"
                ),
                self._timeout_s,
            )
            pending = info.num_pending or 0
            source = await self._js.pull_subscribe_bind(name=info.name, stream=stream)
            try:
                while pending:
                    found += await source.fetch(min(pending, _FETCHED), self._timeout_s)
                    pending = found[-1].metadata.num_pending
            finally:
                await source.unsubscribe()
                with suppress(Exception):  # the server removes it in time
                    async with asyncio.timeout(_ANSWER_S):
                        await self._js.delete_consumer(stream, info.name)
        except self._nats.js.errors.NotFoundError as error:  # its server was lost
            raise UnreachableError(f"{self.url}: the consumer of a list is gone") from error
        return found

    def _last(self) -> int:
        info = self._call(ASK_LAST, lambda: self._js.stream_info(self._stream))
        last: int = info.state.last_seq
        return last

    def _refused(self, number: int, last: int) -> StoreError:
        """Return the error for a publish that was refused, although nothing has its number.

        A leader refuses a number that it has proposed to its replicas, as after a publish whose
        answer was lost. A former leader that was stopped does not know the last entries when it
        goes on. Only a stream that stays behind was emptied or made anew.
        """
        now = time.monotonic()
        if last >= number - 1:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = now
        elif now >= self._behind_since + _FORMER_LEADER_S:
            return self._went_back(number, last)
        return UnreachableError(
            f"{self.url}: publish entry {number}: refused by a leader whose last sequence is {last}"
        )

    def _went_back(self, number: int, last: int) -> LostError:
        return LostError(
            f"{self.url}: entry {number} is next, but the stream's last sequence is {last}: the "
            "stream was emptied or made anew; mirror to a new one"
        )

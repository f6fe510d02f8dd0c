"""Ahead: results of several requests at a time, in order.

A request to a store takes tens of milliseconds, whatever its size. So entries and blobs are
requested before they are needed. What waits to be taken is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from queue import SimpleQueue
from threading import Event, Semaphore
from typing import Generic, TypeVar

from journal._mutex import is_raised_by_call

T = TypeVar("T")

STREAMS = 8  # at a time
_ITEMS_AHEAD = 2  # of each stream
_STARTING = ("concurrent", "threading")  # the packages that start a thread


def in_order(calls: Iterable[Callable[[], T]], requests: int) -> Generator[T, None, None]:
    """Yield the results of the calls, in order, while up to `requests` of them run. Pass on what
    one raises, in its place."""
    ahead = iter(calls)
    first = list(islice(ahead, 2))
    if requests < 2 or len(first) < 2:
        for call in (*first, *ahead):
            yield call()
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(requests, "journal-mirror-reader") as pool:

        def begin(call: Callable[[], T]) -> Callable[[], T]:
            try:
                return pool.submit(call).result
            except RuntimeError as error:  # too many threads, or the interpreter is exiting
                if not is_raised_by_call(error, *_STARTING):
                    raise
                return call

        try:
            waiting = deque(map(begin, (*first, *islice(ahead, requests - 2))))
            while waiting:
                result = waiting.popleft()()
                waiting.extend(map(begin, islice(ahead, 1)))
                yield result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def streams(reads: Sequence[Callable[[], Iterator[T]]], requests: int) -> Generator[T, None, None]:
    """Yield the items of one iterator after the other, while several of them are read. Pass on what
    one raises, in its place."""
    if requests < 2 or len(reads) < 2:
        for read in reads:
            yield from read()
        return
    from concurrent.futures import ThreadPoolExecutor

    opened = deque[_Stream[T]]()
    ahead = iter(reads)
    with ThreadPoolExecutor(STREAMS, "journal-mirror-reader") as pool:

        def begin(count: int) -> None:
            for read in islice(ahead, count):
                opened.append(_Stream(read))
                try:
                    pool.submit(opened[-1].run)
                except RuntimeError as error:  # too many threads, or the interpreter is exiting
                    if not is_raised_by_call(error, *_STARTING):
                        raise
                    opened[-1].stop()

        try:
            begin(STREAMS)
            while opened:
                yield from opened[0].items()
                opened.popleft()
                begin(1)
        finally:
            for stream in opened:
                stream.stop()


class _Stream(Generic[T]):
    """An iterator that another thread reads."""

    def __init__(self, read: Callable[[], Iterator[T]]) -> None:
        self._read = read
        self._queue: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
        self._room = Semaphore(_ITEMS_AHEAD)
        self._stopped = Event()
        self._is_stopped = self._stopped.is_set

    def run(self) -> None:
        if self._is_stopped():
            return
        error: BaseException | None = None
        try:
            for item in self._read():
                self._room.acquire()
                if self._is_stopped():
                    return
                self._queue.put((item, None))
        except BaseException as raised:
            error = raised
        self._queue.put((None, error))

    def items(self) -> Iterator[T]:
        if self._is_stopped():  # no thread reads it
            yield from self._read()
            return
        while True:
            item, error = self._queue.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
            self._room.release()

    def stop(self) -> None:
        self._stopped.set()
        self._room.release()

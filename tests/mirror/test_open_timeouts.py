"""The time limit of an open, and of a follower's, while the mirror does not answer."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import ClassVar

import pytest

from journal import Journal, Mirror, MirrorError, MirrorReason, follow
from journal._mirror.jetstream_store import JetStreamStore
from journal._mirror.memory_store import MemoryStore
from journal._mirror.object_store import ObjectStore
from journal._mirror.store import Store, UnreachableError
from journal._mirror.urls import REQUEST_TIMEOUT_S, open_store
from tests.installed import import_package
from tests.mirror.servers import make_stream
from tests.mirror.stores import MirrorOf, name_of, opened
from tests.support import until

Open = Callable[[Path, Mirror], object]
OPENS: list[Open] = [
    lambda path, mirror: Journal.open(path, mirror=mirror),
    lambda path, mirror: follow(mirror, path),
]


class NeverOpened(MirrorOf):
    """A mirror whose store can't be opened. It notes the time limits that it was given."""

    __slots__ = ()
    limits: ClassVar[list[float]] = []

    def _open_store(self, open_s: float = REQUEST_TIMEOUT_S, *, is_reader: bool = False) -> Store:
        self.limits.append(open_s)
        raise UnreachableError("the store is silent")


@pytest.fixture
def mute_address() -> Iterator[str]:
    """Yield the address of a server that accepts connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("opens", OPENS)
def test_a_store_is_opened_within_the_time_that_is_left(opens: Open, tmp_path: Path) -> None:
    """Each attempt to open the store gets the rest of `open_timeout_s`."""
    NeverOpened.limits.clear()
    with pytest.raises(MirrorError):
        opens(tmp_path / "a", NeverOpened("memory://none", open_timeout_s=0.5))
    first, *others = NeverOpened.limits
    assert 0.3 < first <= 0.5
    assert others
    assert others[-1] < 0.3


def test_a_first_contact_after_the_open_has_no_limit(tmp_path: Path) -> None:
    """A journal that opened without its mirror gives each later attempt the time of any request."""
    store = MemoryStore()
    opened(tmp_path / "a", store).close()
    NeverOpened.limits.clear()
    journal = Journal.open(tmp_path / "a", mirror=NeverOpened(name_of(store), open_timeout_s=0))
    until(lambda: inf in NeverOpened.limits, "an attempt after the open")
    journal.close(timeout_s=0.01)


@pytest.mark.parametrize(("package", "url"), [("nats", "nats://{}/S"), ("obstore", "s3://b/p")])
def test_a_server_that_never_answers_is_given_up_on_in_time(
    package: str, url: str, mute_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open ends at most one request of one second after `open_timeout_s`, although a request
    may take ten."""
    import_package(package)
    monkeypatch.setenv("AWS_ENDPOINT", f"http://{mute_address}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    began = time.monotonic()
    with pytest.raises(MirrorError) as caught:
        Journal.open(tmp_path / "a", mirror=Mirror(url.format(mute_address), open_timeout_s=0))
    assert caught.value.reason is MirrorReason.UNREACHABLE
    assert time.monotonic() - began < REQUEST_TIMEOUT_S - 2


@pytest.mark.parametrize(("left_s", "limit_s"), [(-1, 1), (3, 3), (inf, 10)])
def test_a_store_gets_a_second_at_least(
    left_s: float, limit_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests that open a store have the time that is left, but at least a second, and no more
    than any request."""
    import_package("obstore")
    given: list[dict[str, float]] = []
    monkeypatch.setattr(ObjectStore, "open", lambda _, **limits: given.append(limits))
    open_store("s3://bucket/prefix", open_s=left_s)
    assert given == [{"open_s": limit_s, "timeout_s": REQUEST_TIMEOUT_S}]


def test_a_short_open_shortens_no_later_request(nats_address: str, fresh_name: str) -> None:
    """Once a stream is open, its requests have their own time limit."""
    import_package("nats")
    make_stream(nats_address, fresh_name)
    store = open_store(f"nats://{nats_address}/{fresh_name}", open_s=5, timeout_s=7)
    assert isinstance(store, JetStreamStore)
    assert store._timeout_s == 7
    store.close()

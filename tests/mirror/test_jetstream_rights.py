"""A server of JetStream that refuses a user, or one of the user's requests."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import closing

import pytest

from journal._mirror.store import RefusedError
from journal._mirror.urls import open_store
from tests.mirror.servers import make_stream, nats_server

USERS = """
authorization { users: [
  {user: owner, password: "sesame"}
  {user: reader, password: "sesame", permissions: {publish: {deny: ["APP.log"]}}}
  {user: nobody, password: "sesame", permissions: {publish: {deny: ["$JS.API.>"]}}}
  {user: mute, password: "sesame", permissions: {subscribe: {deny: [">"]}}}
] }
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a server with users, and make a stream."""
    with nats_server(tmp_path_factory.mktemp("nats"), more=USERS) as address:
        make_stream(f"owner:sesame@{address}", "APP")
        yield address


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ("", "connect: not permitted: .*Authorization Violation"),
        ("owner:sesame2@", "connect: not permitted: .*Authorization Violation"),
        ("nobody:sesame@", "open: not permitted: .*stream.info.app"),
        ("mute:sesame@", "open: not permitted: .*subscription"),
    ],
)
def test_a_user_without_rights_is_refused(user: str, problem: str, address: str) -> None:
    """The server answers nothing to a request that it refuses. Nevertheless, the error says that it
    refused, and not that it is unreachable. It shows no password."""
    with pytest.raises(RefusedError, match=problem) as refused:
        open_store(f"nats://{user}{address}/APP", timeout_s=1)
    assert "sesame" not in "".join(traceback.format_exception(refused.value))


def test_a_user_that_may_not_publish_is_refused(address: str) -> None:
    """A publish that the server refuses names its subject."""
    with (
        closing(open_store(f"nats://reader:sesame@{address}/APP", timeout_s=1)) as store,
        pytest.raises(RefusedError, match=r"publish entry 1: not permitted: .*app\.log"),
    ):
        store.append(1, b"x")

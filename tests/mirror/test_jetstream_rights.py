"""A server of JetStream that refuses a user, or one of the user's requests."""

from __future__ import annotations

import signal
import socket
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from proof.servers import nats_servers

from journal._mirror.store import RefusedError, StoreError, UnreachableError
from journal._mirror.urls import open_store
from tests.installed import find_command, import_package
from tests.mirror.servers import free_ports, make_stream, nats_server
from tests.support import TIMEOUT_S, until

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


@pytest.mark.parametrize("login", ["owner:sesame", "%6fwner:s%65same"])
def test_a_login_is_that_of_all_servers(login: str, address: str) -> None:
    """A server without a login in the address gets that of another one, without its encoding."""
    with (
        free_ports(1) as [dead],
        closing(open_store(f"nats://{login}@127.0.0.1:{dead},{address}/APP")) as store,
    ):
        assert store.last(0) == 0


@pytest.mark.parametrize("sign", "/?#")
def test_a_password_that_ends_the_hosts_is_not_shown(sign: str) -> None:
    """A sign that must be encoded in a password is named, and nothing of the login is shown."""
    with pytest.raises(ValueError, match="%2F, %3F or %23") as refused:
        open_store(f"nats://owner:sesame{sign}sesame@127.0.0.1/APP")
    assert "sesame" not in str(refused.value)


def test_a_user_who_is_admitted_again_is_served(tmp_path: Path) -> None:
    """After the server has refused the user of an open store for a while, the store goes on."""
    find_command("nats-server")
    import_package("nats")
    with nats_servers(tmp_path, more=USERS) as ((server,), address):
        make_stream(f"owner:sesame@{address}", "APP")
        config = tmp_path / "nats-0" / "nats.conf"
        text = config.read_text()

        def load(changed: str) -> None:
            config.write_text(changed)
            server.send(signal.SIGHUP)

        def error() -> StoreError | None:
            try:
                store.last(0)
            except StoreError as error:
                return error
            return None

        with closing(open_store(f"nats://owner:sesame@{address}/APP", timeout_s=1)) as store:
            store.put_blob("b", [b"x"])
            load(text.replace("sesame", "changed"))
            until(lambda: isinstance(error(), RefusedError), "the refusal")
            load(text)
            until(lambda: error() is None, "the answer")
            store.append(1, b"x")
            assert store.blob_names() == ["b"]


def test_no_login_is_sent_unencrypted_to_a_tls_address() -> None:
    """A server that does not encrypt is refused if the address asks for TLS, and gets no
    password."""
    import_package("nats")
    said: list[bytes] = []

    def listen() -> None:
        with suppress(OSError):  # the end of the test
            while True:
                connection = server.accept()[0]
                with connection:
                    connection.sendall(b'INFO {"auth_required":true,"max_payload":9}\r\n')
                    said.append(connection.recv(1 << 12))

    with socket.create_server(("127.0.0.1", 0)) as server:
        listening = threading.Thread(target=listen, daemon=True)
        listening.start()
        url = f"tls://w:secret@127.0.0.1:{server.getsockname()[1]}/stream"
        with pytest.raises(RefusedError, match="does not encrypt"):
            open_store(url, timeout_s=1)
        server.shutdown(socket.SHUT_RDWR)
        listening.join(TIMEOUT_S)
    assert said
    assert not any(said)


@pytest.mark.parametrize("has_jetstream", [False, True])
def test_servers_without_jetstream_are_named(has_jetstream: bool, tmp_path: Path) -> None:
    """If JetStream is disabled on the server, or for the user's account, the error says so. The
    server may be starting, so it counts as unreachable."""
    accounts = "accounts { A { users: [{user: me, password: sesame}] } }\n"
    off = "" if has_jetstream else "jetstream: disabled\n"
    with (
        nats_server(tmp_path, more=accounts + off) as address,
        pytest.raises(UnreachableError, match=rf"{address}/APP: open: JetStream is not enabled"),
    ):
        open_store(f"nats://me:sesame@{address}/APP", timeout_s=1)

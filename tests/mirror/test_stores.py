"""The stores, one by one: addresses, refusals, and what is on disk."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from journal._disk import mounts
from journal._mirror import directory_store
from journal._mirror.directory_store import DirectoryStore
from journal._mirror.jetstream_store import JetStreamStore
from journal._mirror.store import LostError, RefusedError, TakenError, UnreachableError
from journal._mirror.urls import open_store, shown_url
from journal.testing import SimulatedDisk, seeded
from tests.installed import import_package
from tests.mirror.servers import BUCKET, free_ports, losing_a_cancellation, make_stream

# --- addresses ---


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "is not the address of a mirror"),
        ("/var/mirror", "is not the address of a mirror"),
        ("ftp://host/mirror", "is not the address of a mirror"),
        ("s3://", "names no bucket"),
        ("s3:///prefix", "names no bucket"),
        ("nats:///STREAM", "names no server"),
        ("nats://host", "names no stream"),
        *((f"nats://host/{name}", "is not the name of a stream") for name in ("A/B", "A.log", "*")),
        ("file://", "names no directory"),
        ("file://host/mirror", "write file:///DIRECTORY"),
        ("file:mirror", "is not the absolute path of a directory"),
        ("file:///mirror%00", "is not the absolute path of a directory"),
        *(
            (f"{url}{end}", f"^{url}: has a . or a #; in a name, write %3F or %23$")
            for url in ("s3://bucket/prefix", "az://bucket", "nats://host/STREAM", "file:///mirror")
            for end in ("?token=secret", "#1")
        ),
        ("nats://me:secret[1]@host/STREAM", "the host of a mirror's address is wrong"),
        ("s3://my bucket/prefix", "has a space"),
        ("", "'' is not the address of a mirror"),
    ],
)
def test_an_address_that_names_no_store_is_refused(url: str, problem: str) -> None:
    """An address without one of its parts is a ValueError, which says what is missing."""
    with pytest.raises(ValueError, match=problem):
        open_store(url)


def test_no_message_shows_a_password() -> None:
    """The address in a message has no user, no password and no query."""
    url = "nats://me:secret@one,you:secret@two:4222/STREAM?token=secret"
    assert shown_url(url) == "nats://one,two:4222/STREAM"
    with pytest.raises(ValueError, match="names no stream") as raised:
        open_store("nats://me:secret@one")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [("s3://bucket/prefix", "obstore", "mirror"), ("nats://host/STREAM", "nats", "nats")],
)
def test_a_missing_package_is_named(
    url: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the package that an address needs, the error says what to install."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs the package {package}; .*\[{extra}\]"):
        open_store(url)


# --- directories ---


def test_files_are_private_and_named_in_order(tmp_path: Path) -> None:
    """Only the owner reads the files of a store. A trim removes the unfinished entries and blobs of
    a dead writer, up to the last number that is trimmed."""
    store = open_store(f"file://{tmp_path}/m")
    folder = tmp_path / "m"
    names = f"entry-{1:020d}", f"blob-{1:020d}-{1:020d}.roll", f"blob-{2:020d}-{1:020d}.roll"
    leftovers = [folder / f"{name}.{'a' * 32}.tmp" for name in names]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    store.append(1, b"one")
    store.append(2, b"two")
    store.put_blob("b", [b"blob"])
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir() if path not in leftovers} == {
        0o600
    }
    store.trim([1])
    assert sorted(os.listdir(folder)) == [leftovers[2].name, "blob-b", f"entry-{2:020d}"]


def test_a_directory_of_others_is_refused(tmp_path: Path) -> None:
    """A directory that others can write to, or whose parent is missing, is refused."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(RefusedError, match="chmod 700"):
        open_store(f"file://{tmp_path}/open")
    with pytest.raises(RefusedError, match="No such file"):
        open_store(f"file://{tmp_path}/missing/mirror")


def test_nfs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory on NFS is refused, because the fence between two writers would not hold."""
    monkeypatch.setattr(directory_store, "file_system_of", lambda path: "nfs4")
    with pytest.raises(RefusedError, match="is on nfs4"):
        open_store(f"file://{tmp_path}/m")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names the type of a file system")
def test_the_file_system_is_named() -> None:
    """The type of the file system that holds a path is known."""
    assert mounts.file_system_of("/proc") == "proc"


def test_an_entry_is_durable_when_append_returns() -> None:
    """After a power cut, each appended entry and each blob has its bytes, in whatever way the
    unsynced changes are lost."""
    for seed in range(20):
        disk = SimulatedDisk()
        store = DirectoryStore("/m", disk)
        for number in range(1, 4):
            store.append(number, b"entry %d" % number)
            store.put_blob(f"b{number}", [b"blob"])
        disk.power_cut(seeded(seed))
        again = DirectoryStore("/m", disk)
        assert again.numbers(0) == [1, 2, 3]
        assert [again.entry(number) for number in (1, 2, 3)] == [b"entry 1", b"entry 2", b"entry 3"]
        assert again.blob_names() == ["b1", "b2", "b3"]


def test_nothing_is_taken_for_durable_after_a_failed_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a sync of the directory failed, neither a new entry nor a repeated one is reported as
    stored: a later sync may succeed without the lost names."""
    store = DirectoryStore(tmp_path / "m")
    directory = store._directory
    no_fd = 1 << 20
    with monkeypatch.context() as patch:
        patch.setattr(directory, "sync", partial(os.fsync, no_fd))
        with pytest.raises(UnreachableError, match=os.strerror(errno.EBADF)):
            store.append(1, b"one")
    for number in (1, 2):
        with pytest.raises(UnreachableError, match=os.strerror(errno.EBADF)):
            store.append(number, b"one")
    with pytest.raises(TakenError):
        DirectoryStore(tmp_path / "m").append(1, b"one")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_a_reader_without_rights_is_refused(tmp_path: Path) -> None:
    """A reader that may not write, or not read, is refused: repeating the request is useless."""
    DirectoryStore(tmp_path / "m").append(1, b"one")
    (tmp_path / "m").chmod(0o500)
    store = DirectoryStore(tmp_path / "m", is_reader=True)
    with pytest.raises(RefusedError):
        store.append(2, b"two")
    (tmp_path / "m").chmod(0)
    with pytest.raises(RefusedError):
        DirectoryStore(tmp_path / "m", is_reader=True).numbers(0)


def test_a_reader_changes_nothing(tmp_path: Path) -> None:
    """A reader makes no directory, and narrows no mode."""
    with pytest.raises(FileNotFoundError, match="there is no mirror of a journal here"):
        open_store(f"file://{tmp_path}/m", is_reader=True)
    (tmp_path / "m").mkdir()
    (tmp_path / "m").chmod(0o777)
    assert open_store(f"file://{tmp_path}/m", is_reader=True).numbers(0) == []
    assert os.listdir(tmp_path) == ["m"]
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o777


# --- servers ---


def test_a_server_that_is_not_there_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """If nothing listens at the address, opening ends within a few timeouts."""
    import_package("obstore")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with free_ports(1) as [port]:
        monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{port}")
        with pytest.raises(UnreachableError, match="list blobs") as raised:
            open_store("s3://bucket/prefix", timeout_s=1)
    assert "Debug source" not in str(raised.value)


def test_a_profile_needs_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile of AWS is read by boto3, and without that package, the error says what to
    install."""
    import_package("obstore")
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "obstore.auth.boto3", raising=False)
    with pytest.raises(RefusedError, match="pip install boto3"):
        open_store("s3://bucket/prefix")


def _raised_by(package: str) -> Callable[[], object]:
    """Return a function of this package that raises an error."""
    names: dict[str, Any] = {"__name__": package}
    exec("def refuse(): raise ValueError('wrong time')", names)
    refuse: Callable[[], object] = names["refuse"]
    return refuse


@pytest.mark.parametrize("read", [partial(json.loads, ""), _raised_by("six")])  # used by dateutil
def test_a_profile_that_can_not_be_read_is_refused(
    read: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile is refused if boto3 can't read it, whichever library notices that."""
    import_package("obstore")
    auth = ModuleType("obstore.auth.boto3")
    auth.Boto3CredentialProvider = read  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "obstore.auth.boto3", auth)
    monkeypatch.setenv("AWS_PROFILE", "work")
    with pytest.raises(RefusedError, match="the credentials of the profile 'work' can't be read"):
        open_store("s3://bucket/prefix")


def test_the_credentials_of_a_profile_are_used(
    s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a profile, the requests have the credentials that its provider returns."""
    auth = ModuleType("obstore.auth.boto3")
    asked: list[str] = []

    class Provider:
        config: ClassVar[dict[str, str]] = {}

        def __call__(self) -> dict[str, object]:
            asked.append("credentials")
            expires_at = datetime.now(UTC) + timedelta(hours=1)
            keys = s3["AWS_ACCESS_KEY_ID"], s3["AWS_SECRET_ACCESS_KEY"]
            names = "access_key_id", "secret_access_key"
            return {**dict(zip(names, keys, strict=True)), "token": None, "expires_at": expires_at}

    auth.Boto3CredentialProvider = Provider  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "obstore.auth.boto3", auth)
    for variable, value in {**s3, "AWS_PROFILE": "work"}.items():
        if "KEY" not in variable:
            monkeypatch.setenv(variable, value)
    store = open_store(f"s3://{BUCKET}/profile")
    store.append(1, b"one")
    assert store.entry(1) == b"one"
    assert asked


def test_a_bucket_that_does_not_exist_is_refused(
    s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error for a missing bucket says so."""
    for variable, value in s3.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(RefusedError, match="the bucket does not exist"):
        open_store("s3://no-such-bucket/prefix")


def test_no_nats_server_is_unreachable() -> None:
    """If no server listens at any of the addresses, opening ends within a few timeouts, and the
    error states the cause."""
    import_package("nats")
    with (
        free_ports(2) as [one, two],
        pytest.raises(UnreachableError, match=rf"connect: .*Connect call failed.*({one}|{two})"),
    ):
        open_store(f"nats://127.0.0.1:{one},127.0.0.1:{two}/STREAM", timeout_s=1)


@pytest.mark.parametrize("is_mute", [False, True])
def test_a_connection_whose_cancellation_is_lost_is_unreachable(
    is_mute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt to connect ends in time, even if `asyncio.wait_for` loses its cancellation, as it
    may before Python 3.12."""
    import_package("nats")
    with (
        losing_a_cancellation(monkeypatch, is_mute=is_mute) as (address, attempts),
        pytest.raises(UnreachableError, match="connect: no answer"),
    ):
        open_store(f"nats://{address}/STREAM", timeout_s=0.5)
    assert len(attempts) == 1


def test_a_stream_that_does_not_exist_is_refused(nats_address: str) -> None:
    """The error for a missing stream gives the command that makes it."""
    import_package("nats")
    with pytest.raises(RefusedError, match="nats stream add"):
        open_store(f"nats://{nats_address}/MISSING")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"subjects": ["WRONG.*"]}, "one subject, without wildcards"),
        ({"subjects": ["WRONG2.a", "WRONG2.b"]}, "one subject, without wildcards"),
        ({"discard": "old"}, "discard must be new"),
        ({"retention": "workqueue"}, "retention must be limits"),
        ({"max_age": 3600}, "max_age must be unlimited"),
        ({"max_msgs_per_subject": 5}, "max_msgs_per_subject must be unlimited"),
        ({"max_msg_size": 100}, "max_msg_size must be at least"),
        ({"storage": "memory"}, "storage must be file"),
        ({"deny_delete": True}, "deleting a message must be allowed"),
    ],
)
def test_a_stream_that_may_drop_messages_is_refused(
    settings: dict[str, object], problem: str, nats_address: str, fresh_name: str
) -> None:
    """A stream whose settings can lose an entry, or that can't be trimmed, is no mirror."""
    make_stream(nats_address, fresh_name, **{"subjects": [f"{fresh_name}.log"], **settings})
    with pytest.raises(RefusedError, match=problem):
        open_store(f"nats://{nats_address}/{fresh_name}")


def test_a_bucket_that_forgets_is_refused(nats_address: str, fresh_name: str) -> None:
    """A bucket of blobs with a time to live would lose them."""
    nats = import_package("nats")
    make_stream(nats_address, fresh_name)

    async def make_bucket() -> None:
        client = await nats.connect(f"nats://{nats_address}")
        await client.jetstream().create_object_store(f"{fresh_name}-blobs", ttl=3600)
        await client.close()

    asyncio.run(make_bucket())
    with pytest.raises(RefusedError, match="its TTL must be 0"):
        open_store(f"nats://{nats_address}/{fresh_name}")


def test_entries_fit_the_streams_messages(nats_address: str, fresh_name: str) -> None:
    """An entry of the largest size that the store states fits into a message of the stream."""
    import_package("nats")
    make_stream(nats_address, fresh_name, max_msg_size=10_000)
    store = open_store(f"nats://{nats_address}/{fresh_name}")
    try:
        store.append(1, bytes(store.entry_bytes_max))
        assert store.entry_bytes_max < 10_000
    finally:
        store.close()


def test_a_stream_that_went_back_is_no_fence(
    nats_address: str, fresh_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that stays behind the number that is due was emptied. That is no other writer, and
    no outage. Before that is sure, it may be a former leader that answers."""
    import_package("nats")
    make_stream(nats_address, fresh_name)
    store = open_store(f"nats://{nats_address}/{fresh_name}")
    try:
        with pytest.raises(UnreachableError, match="whose last sequence is 0"):
            store.append(3, b"x")
        monkeypatch.setattr("journal._mirror.jetstream_store._FORMER_LEADER_S", 0.0)
        with pytest.raises(LostError, match="emptied or made anew"):
            store.append(3, b"x")
        store.append(1, b"x")
        with pytest.raises(UnreachableError):
            store.append(3, b"x")
    finally:
        store.close()


def test_a_number_that_is_refused_and_not_taken_stays_due(
    nats_address: str, fresh_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader refuses a publish while an earlier try of it is not stored by its replicas. The
    outcome is unknown then, however long that lasts."""
    api = import_package("nats.js.errors")
    make_stream(nats_address, fresh_name)
    store = open_store(f"nats://{nats_address}/{fresh_name}")
    assert isinstance(store, JetStreamStore)
    monkeypatch.setattr("journal._mirror.jetstream_store._FORMER_LEADER_S", 0.0)

    async def refuse(*_: object, **__: object) -> None:
        raise api.APIError(code=400, err_code=10071, description="wrong last sequence: 2")

    try:
        store.append(1, b"x")
        with monkeypatch.context() as patched:
            patched.setattr(store._js, "publish", refuse)
            for _ in range(2):
                with pytest.raises(UnreachableError, match="whose last sequence is 1"):
                    store.append(2, b"x")
        store.append(2, b"x")
    finally:
        store.close()

"""Object storage on a slow network: a large body takes its time, and a silent server is noticed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from journal._mirror import object_store
from journal._mirror.store import Store, UnreachableError
from journal._mirror.urls import open_store
from tests.installed import import_package

_TIMEOUT_S = 0.5
_BYTES = 1 << 20  # of a body, which takes twice the time limit
_BYTES_PER_S = _BYTES / (2 * _TIMEOUT_S)
_PIECE_BYTES = 1 << 16
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_UPLOAD = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
_COMPLETE = "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"


class _SlowServer(ThreadingHTTPServer):
    """An S3 server, as far as these tests need one. Everybody shares its slow network."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.network = threading.Lock()
        self.never = threading.Event()  # set at the end
        self.silent_after_bytes: int | None = None
        self.uploads = self.uploads_max = 0

    def transfer(self, size: int) -> None:
        with self.network:
            self.never.wait(size / _BYTES_PER_S)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _SlowServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_PUT(self) -> None:
        server = self.server
        server.uploads += 1
        server.uploads_max = max(server.uploads_max, server.uploads)
        self._read_body()
        server.uploads -= 1
        if server.silent_after_bytes is not None:
            server.never.wait()
        self._answer()

    def do_POST(self) -> None:
        self._read_body()
        self._answer((_COMPLETE if "uploadId" in self.path else _UPLOAD).encode())

    def do_GET(self) -> None:
        if "list-type" in self.path:
            self._answer(f'<ListBucketResult xmlns="{_NAMESPACE}"/>'.encode())
        elif "probe" in self.path:
            self._answer(status=404)
        else:
            self._answer(b"x" * _BYTES)

    def _read_body(self) -> None:
        left = int(self.headers.get("Content-Length", 0))
        while left:
            size = len(self.rfile.read(min(left, _PIECE_BYTES)))
            self.server.transfer(size)
            left -= size

    def _answer(self, body: bytes = b"", *, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        silent_after = self.server.silent_after_bytes
        for offset in range(0, len(body), _PIECE_BYTES):
            if silent_after is not None and offset >= silent_after:
                self.server.never.wait()
            self.server.transfer(_PIECE_BYTES)
            try:
                self.wfile.write(body[offset : offset + _PIECE_BYTES])
            except OSError:  # the client has given up
                self.close_connection = True
                return


@pytest.fixture
def server() -> Iterator[_SlowServer]:
    with _SlowServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.never.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def store(server: _SlowServer, monkeypatch: pytest.MonkeyPatch) -> Store:
    import_package("obstore")
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setattr(object_store, "_PART_BYTES", _BYTES // 4)
    return open_store("s3://bucket/prefix", timeout_s=_TIMEOUT_S)


def test_a_large_entry_goes_up_slowly(store: Store) -> None:
    """An entry whose upload takes longer than a silent server is waited for is stored."""
    store.append(1, bytes(_BYTES))


def test_a_blob_goes_up_slowly_in_few_parts(store: Store, server: _SlowServer) -> None:
    """A blob whose upload takes longer than a silent server is waited for is stored, and no more
    than two of its parts share the network at a time."""
    store.put_blob("b", [bytes(_BYTES // 4)] * 4)
    assert server.uploads_max <= 2


def test_a_blob_comes_down_slowly(store: Store) -> None:
    """A blob whose download takes longer than a silent server is waited for is read."""
    assert sum(map(len, store.blob("b"))) == _BYTES


@pytest.mark.parametrize("silent_after_bytes", [0, _BYTES // 2])
def test_a_silent_server_is_noticed(
    store: Store, server: _SlowServer, silent_after_bytes: int
) -> None:
    """A server that stops sending is unreachable after a few timeouts, for puts of small bodies and
    for gets."""
    server.silent_after_bytes = silent_after_bytes
    began = time.monotonic()
    with pytest.raises(UnreachableError, match="put entry 1"):
        store.append(1, b"claim")
    with pytest.raises(UnreachableError, match="get entry 1"):
        store.entry(1)
    with pytest.raises(UnreachableError, match="get blob b"):
        list(store.blob("b"))
    assert time.monotonic() - began < 20 * _TIMEOUT_S


def test_a_silent_server_is_noticed_during_a_large_upload(
    server: _SlowServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload of a large body is given up after the time that the slowest network needs."""
    monkeypatch.setattr(object_store, "_BYTES_PER_S_MIN", 16 << 20)
    store = open_store("s3://bucket/prefix", timeout_s=_TIMEOUT_S)
    server.silent_after_bytes = 0
    with pytest.raises(UnreachableError, match="put entry 1"):
        store.append(1, bytes(object_store._LARGE_BYTES))

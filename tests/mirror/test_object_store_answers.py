"""The answers of object storage that are errors, and the errors of a store that they become."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from journal._mirror.store import (
    LostError,
    RefusedError,
    Store,
    StoreError,
    TakenError,
    UnreachableError,
)
from journal._mirror.urls import open_store
from tests.installed import import_package

Call = Callable[[Store], object]
EMPTY = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
PAGE = b"<!DOCTYPE html><html><body>Welcome</body></html>"
CALLS: dict[str, Call] = {
    "append": lambda store: store.append(7, b"entry"),
    "entry": lambda store: store.entry(7),
    "numbers": lambda store: store.numbers(0),
    "put_blob": lambda store: store.put_blob("name", [b"blob"]),
    "blob": lambda store: list(store.blob("name")),
    "delete_blobs": lambda store: store.delete_blobs(["name"]),
}


class Answers:
    """An S3 server that is empty, or that gives the same answer to each request."""

    def __init__(self) -> None:
        self.status, self.body, self.kind = 200, EMPTY, "application/xml"
        answers = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, body = answers.status, answers.body
                if body == EMPTY and "list-type" not in self.path:
                    status, body = 404, b"<Error><Code>NoSuchKey</Code></Error>"
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Type", answers.kind)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def give(self, status: int, code: str, more: str = "") -> None:
        """Answer with an error from now on."""
        self.status = status
        self.body = f"<Error><Code>{code}</Code><Message>it&#39;s</Message>{more}</Error>".encode()


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    """Run a server, and lead obstore to it."""
    import_package("obstore")
    answers = Answers()
    thread = Thread(target=answers.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    _set(monkeypatch, AWS_ENDPOINT=f"http://127.0.0.1:{answers.server.server_port}")
    yield answers
    answers.server.shutdown()
    thread.join()
    answers.server.server_close()


def _set(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    for variable, value in {**keys, **variables}.items():
        monkeypatch.setenv(variable, value)


@pytest.mark.parametrize(
    ("call", "status", "code", "kind"),
    [
        ("append", 404, "NoSuchBucket", LostError),
        ("numbers", 404, "NoSuchBucket", RefusedError),
        ("put_blob", 404, "NoSuchUpload", UnreachableError),
        ("append", 412, "PreconditionFailed", TakenError),
        ("append", 409, "ConditionalRequestConflict", TakenError),
        *(
            (call, 409, "OperationAborted", UnreachableError)
            for call in ("entry", "numbers", "put_blob", "blob", "delete_blobs")
        ),
        *(
            (call, status, code, RefusedError)
            for call in CALLS
            for status, code in (
                (400, "ExpiredToken"),
                (400, "AuthorizationHeaderMalformed"),
                (301, "PermanentRedirect"),
                (403, "AccessDenied"),
            )
        ),
        *((call, 400, "RequestTimeout", UnreachableError) for call in CALLS),
    ],
)
def test_an_answer_becomes_the_documented_error(
    call: str, status: int, code: str, kind: type[StoreError], answers: Answers
) -> None:
    """A call raises what the interface of a store states for it. Only a put that replaces nothing
    can find that a number is taken, or that the bucket is gone with all entries."""
    store = open_store("s3://bucket/prefix", timeout_s=5)
    answers.give(status, code)
    with pytest.raises(StoreError) as raised:
        CALLS[call](store)
    assert type(raised.value) is kind, raised.value


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (PAGE, "text/html"),
        (b"<html/>", "application/xml"),
        (b"<!DOCTYPE html><html><br></html>", "text/html; charset=utf-8"),
        (b'{"status": "ok"}', "application/json"),
        (b"", "text/plain"),
    ],
)
def test_a_page_is_no_empty_bucket(body: bytes, kind: str, answers: Answers) -> None:
    """A server that answers everything with a page, such as a web server or the login page of a
    network, is reported with its address. obstore takes some pages for an empty list."""
    answers.body, answers.kind = body, kind
    port = answers.server.server_port
    with pytest.raises(UnreachableError, match=f"check .*AWS_ENDPOINT=http://127.0.0.1:{port},"):
        open_store("s3://bucket/prefix", timeout_s=5)


@pytest.mark.parametrize("status", [200, 401, 403, 404])
@pytest.mark.parametrize("call", CALLS)
def test_a_page_in_the_place_of_an_answer_is_no_answer(
    call: str, status: int, answers: Answers
) -> None:
    """A gateway may answer with a page while its server restarts, and a proxy where it forbids a
    request. So an entry is neither damaged nor missing, the bucket is not emptied, and no right is
    missing: the request is repeated."""
    store = open_store("s3://bucket/prefix", timeout_s=5)
    answers.status, answers.body, answers.kind = status, PAGE, "text/html"
    with pytest.raises(UnreachableError, match="object storage gives no such answer"):
        CALLS[call](store)


@pytest.mark.parametrize(
    ("status", "code", "more", "advice"),
    [
        (403, "AccessDenied", "", "grant the credentials the right to put"),
        (401, "Unauthorized", "", "check the credentials and the region"),
        (403, "InvalidAccessKeyId", "", "check the credentials and the region"),
        (403, "SignatureDoesNotMatch", "", "check the credentials and the region"),
        (403, "AuthenticationFailed", "", "check the credentials and the region"),
        (403, "RequestTimeTooSkewed", "", "set this machine's clock"),
        (403, "AuthenticationFailed", "Request date header too old", "set this machine's clock"),
        (400, "invalid_grant", "Token must be in a reasonable timeframe", "set this machine's"),
    ],
)
def test_a_refusal_names_what_to_change(
    status: int, code: str, more: str, advice: str, answers: Answers
) -> None:
    """Wrong credentials, a wrong clock and a missing right are told apart, by the answers of
    Amazon, Microsoft and Google."""
    store = open_store("s3://bucket/prefix", timeout_s=5)
    answers.give(status, code, f"<Detail>{more}</Detail>")
    with pytest.raises(RefusedError, match=f"{code}: it's; {advice}"):
        CALLS["append"](store)


def test_a_token_that_the_server_repeats_is_not_shown(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 repeats a session token that has expired. Neither the message nor the traceback shows it,
    or a password in the endpoint's address."""
    port = answers.server.server_port
    monkeypatch.setenv("AWS_ENDPOINT", f"http://me:secret@127.0.0.1:{port}")
    answers.give(400, "ExpiredToken", "<Token-0>secret</Token-0>")
    with pytest.raises(RefusedError, match="ExpiredToken: it's; check the credentials") as raised:
        open_store("s3://bucket/prefix", timeout_s=5)
    assert "secret" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_ENDPOINT", "127.0.0.1:8333"),
        ("AWS_ENDPOINT", ""),
        ("AWS_ACCESS_KEY_ID", "key\n"),
        ("AWS_SESSION_TOKEN", "token\n"),
        ("AWS_CONDITIONAL_PUT", "perhaps"),
    ],
)
def test_a_setting_that_obstore_can_not_use_is_refused(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong setting is refused, also one at which obstore panics, which is no Exception."""
    import_package("obstore")
    _set(monkeypatch, **{"AWS_ENDPOINT": "http://127.0.0.1:1", variable: value})
    with pytest.raises(RefusedError, match="s3://bucket/prefix: "):
        open_store("s3://bucket/prefix", timeout_s=1)


def test_names_in_folders_of_others_are_not_listed(answers: Answers) -> None:
    """Only an object directly in the folder of the entries is an entry."""
    store = open_store("s3://bucket/prefix", timeout_s=5)
    template = (
        "<Contents><Key>prefix/entries/{}{:020d}</Key><Size>1</Size><ETag>e</ETag>"
        "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
    )
    found = template.format("", 1) + template.format("copy/", 2)
    answers.body = EMPTY.replace(b"</ListB", f"{found}</ListB".encode())
    assert store.numbers(0) == [1]

"""ObjectStore: a store in a bucket of S3, GCS or Azure, through the package obstore.

An entry is an object that is put only if its name is absent. The objects of a mirror at
`s3://bucket/prefix` are `prefix/entries/` and 20 digits, and `prefix/blobs/` and the blob's name.
obstore reads credentials as the provider's own tools do; those of a profile of AWS come from boto3.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from html import unescape
from secrets import token_hex
from typing import Any

from journal._disk.process import environment
from journal._mirror.pieces_file import Pieces
from journal._mirror.store import (
    AbsentError,
    LostError,
    RefusedError,
    StoreError,
    TakenError,
    UnreachableError,
)
from journal._mutex import is_raised_by_call

ENTRY_BYTES_MAX = 16 << 20
_ENTRY_NAME = re.compile(r"[0-9]{20}")
_STATUS = re.compile(r"status code: ([0-9]{3})\b")
_SAID = re.compile(r"<(?:Code|Message)>([^<]*)<")
# An answer that no object storage gives: those of a web server, a gateway or a login page.
_FOREIGN = re.compile(
    r"status code: 404[^:]*: (?=\S)(?!.*<Code>)"
    r"|status code: 40[13][^:]*: \s*(?i:<!doctype html|<html)"
    r"|invalid \w+ response|Header missing from response",
    re.DOTALL,
)
# S3 answers 400 to a session token that has expired, and a redirect to the wrong region. The server
# of Google's tokens answers 400 to credentials that were withdrawn.
_WRONG_SETTING = re.compile(
    r"status code: 400.*(?:Token|Authori[sz]ation|Authentication|invalid_grant)|configured region"
    r"|status code: 401|InvalidAccessKeyId|SignatureDoesNotMatch|AuthenticationFailed"
)
_WRONG_CLOCK = re.compile(r"RequestTimeTooSkewed|in a reasonable timeframe|date header too old")
_DUMP = "\n\nDebug source"
_USER = re.compile(r"://[^/@\s]*@")
_PIECE_BYTES = 1 << 20
_PART_BYTES = 8 << 20
_PARTS = 2  # at a time: they share the uplink, and each has to arrive within its own time limit
_BYTES_PER_S_MIN = 1 << 18  # a large body that goes up more slowly counts as unreachable
_LARGE_BYTES = _BYTES_PER_S_MIN  # a smaller body goes up within a second, or the store is silent
_DOWNLOAD_S = 86_400  # a blob may have any size; a stalled one is noticed at the next read
_OF_BOTO3 = ("obstore", "boto3", "botocore", "dateutil", "jmespath", "six", "urllib3")
_PROFILES = (*sys.stdlib_module_names, *_OF_BOTO3)  # the packages that read a profile


class ObjectStore:
    """A store on an obstore store, whose root is the mirror's prefix."""

    entry_bytes_max = ENTRY_BYTES_MAX

    def __init__(self, url: str, store: Any, uploads: Any = None) -> None:
        """Use an obstore store. `uploads`: the same one, with a longer time limit for puts of large
        bodies."""
        self.url = url
        self._store = store
        self._uploads = uploads or store

    @classmethod
    def open(cls, url: str, *, open_s: float, timeout_s: float) -> ObjectStore:
        """Connect to the bucket, and list once to find out whether that is allowed.

        `timeout_s`: the time, in seconds, after which a store that sends nothing counts as
        unreachable. It gets more time for a large body. `open_s`: that time for the first list.
        Raises RefusedError, UnreachableError, and ImportError without obstore.
        """
        opened = cls._connected(url, timeout_s)
        first = opened if open_s >= timeout_s else cls._connected(url, open_s)
        first.blob_names()
        return opened

    @classmethod
    def _connected(cls, url: str, timeout_s: float) -> ObjectStore:
        """Return a store of the bucket. Makes no request, unless a profile needs one."""
        import obstore

        seconds = f"{timeout_s:g}s"
        # A few retries hide a dropped connection. A longer outage is the caller's to decide about.
        retries: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=timeout_s)}
        # Plain HTTP is used only if the endpoint's address says so, as for a server on this host.
        options: Any = {"connect_timeout": seconds, "allow_http": True}
        # The time limit of a read begins with the request, and again with each read of the answer.
        # So it would limit the upload of a body, which therefore has a limit for all of it instead.
        reading: Any = {**options, "read_timeout": seconds, "timeout": f"{_DOWNLOAD_S}s"}
        upload_s = timeout_s + max(ENTRY_BYTES_MAX, _PARTS * _PART_BYTES) / _BYTES_PER_S_MIN
        uploading: Any = {**options, "timeout": f"{upload_s:g}s"}
        try:
            provider = _profile_provider(url)
            store, uploads = (
                obstore.store.from_url(
                    url,
                    client_options=options,
                    retry_config=retries,
                    credential_provider=provider,
                )
                for options in (reading, uploading)
            )
        except (obstore.exceptions.BaseError, ValueError) as error:
            if not is_raised_by_call(error, "journal", "obstore"):
                raise
            raise RefusedError(
                f"{url}: the address or its settings are wrong: {_text(error)}"
            ) from error
        return cls(url, store, uploads)

    def append(self, number: int, data: bytes) -> None:
        import obstore

        store = self._store if len(data) < _LARGE_BYTES else self._uploads
        with self._reaching("put", f"entry {number}", is_new=True):
            obstore.put(store, _entry_path(number), data, mode="create", use_multipart=False)

    def entry(self, number: int) -> bytes:
        what = f"entry {number}"
        with self._reaching("get", what):
            return bytes(self._got(_entry_path(number), what).bytes())

    def numbers(self, after: int) -> list[int]:
        names = self._names("entries", _entry_path(after) if after else None)
        numbers = (int(name) for name in names if _ENTRY_NAME.fullmatch(name))
        return sorted(number for number in numbers if number > after)

    def last(self, after: int) -> int:
        return max(self.numbers(after), default=0)

    def trim(self, numbers: Iterable[int]) -> None:
        self._delete([_entry_path(number) for number in numbers])

    def put_blob(self, name: str, pieces: Iterable[bytes]) -> None:
        import obstore

        source = Pieces(pieces)
        try:
            with self._reaching("put", f"blob {name}"):
                obstore.put(
                    self._uploads,
                    f"blobs/{name}",
                    source,
                    chunk_size=_PART_BYTES,
                    max_concurrency=_PARTS,
                )
        except BaseException:
            if source.error is not None:
                raise source.error from None
            raise

    def blob(self, name: str) -> Iterator[bytes]:
        what = f"blob {name}"
        with self._reaching("get", what):
            stream = self._got(f"blobs/{name}", what).stream(min_chunk_size=_PIECE_BYTES)
        while True:
            with self._reaching("get", what):
                piece = next(stream, None)
            if piece is None:
                return
            yield bytes(piece)

    def blob_names(self) -> list[str]:
        return sorted(self._names("blobs", None))

    def delete_blobs(self, names: Iterable[str]) -> None:
        self._delete([f"blobs/{name}" for name in names])

    def close(self) -> None:
        pass

    # --- internal ---

    def _check_absence(self) -> None:
        """Raise UnreachableError if there is an object of a name that nobody uses.

        obstore reads any page as an empty list. So behind a wrong port or the login page of a
        network, a mirror would look empty, and its writer would be told that it was emptied.
        """
        name = f"probe-{token_hex(8)}"
        what = f"blob {name}"
        with suppress(AbsentError), self._reaching("get", what):
            self._got(f"blobs/{name}", what)
            raise _foreign(f"{self.url}: get {what}: there is such a blob")

    def _got(self, path: str, what: str) -> Any:
        """Return obstore's answer to a get. Raises UnreachableError for a page, and what obstore
        raises."""
        import obstore

        result = obstore.get(self._store, path)
        if result.attributes.get("Content-Type", "").startswith("text/html"):
            raise _foreign(f"{self.url}: get {what}: an HTML page")
        return result

    def _names(self, folder: str, after: str | None) -> list[str]:
        import obstore

        with self._reaching("list", folder):
            pages = obstore.list(self._store, folder, offset=after)
            paths = [meta["path"].removeprefix(f"{folder}/") for page in pages for meta in page]
        if not paths:
            self._check_absence()
        return [path for path in paths if "/" not in path]  # a folder inside is somebody else's

    def _delete(self, paths: list[str]) -> None:
        import obstore

        if not paths:
            return
        try:
            with self._reaching("delete", f"{len(paths)} objects"):
                obstore.delete(self._store, paths)
        except AbsentError:
            # Some stores fail the whole call for one absent object, and then skip the others.
            for path in paths:
                with suppress(AbsentError), self._reaching("delete", path):
                    obstore.delete(self._store, path)

    @contextmanager
    def _reaching(self, call: str, what: str, *, is_new: bool = False) -> Iterator[None]:
        """Turn obstore's errors into errors of the store. `is_new`: a put that replaces nothing."""
        from obstore import exceptions

        try:
            yield
        except (exceptions.BaseError, OSError) as error:
            if not is_raised_by_call(error, "journal", "obstore"):
                raise
            is_whole = _shown(str(error)) == str(error)
            found = self._store_error(error, call, what, is_new=is_new)
            raise found from (error if is_whole else None)
        except BaseException as error:
            if type(error).__module__ != "pyo3_runtime":  # the module of a panic in Rust
                raise
            raise RefusedError(
                f"{self.url}: {call} {what}: obstore can't make the request: {error}; look for a "
                "line break in the credentials, and for an endpoint without http:// or https://"
            ) from error

    def _store_error(self, error: Exception, call: str, what: str, *, is_new: bool) -> StoreError:
        from obstore import exceptions

        where, text, status = f"{self.url}: {call} {what}", _text(error), _status(error)
        taken = exceptions.AlreadyExistsError, exceptions.PreconditionError
        absent = exceptions.NotFoundError, FileNotFoundError
        denied = exceptions.PermissionDeniedError, exceptions.UnauthenticatedError
        if is_new and isinstance(error, taken):
            return TakenError(f"{where}: it exists")
        if _FOREIGN.search(str(error).partition(_DUMP)[0]):
            return _foreign(f"{where}: {text}")
        if isinstance(error, absent) or status == 404:
            if call == "list":
                return RefusedError(f"{self.url}: the bucket does not exist; make it first")
            if is_new:
                problem = "the bucket does not exist any more, so the mirror was emptied"
                return LostError(f"{where}: {problem}; mirror to a new one")
            if call != "put":  # a put of a blob has parts, and the server may forget one of them
                return AbsentError(f"{where}: it does not exist")
        is_wrong = _WRONG_SETTING.search(text)
        if isinstance(error, denied) or status in (401, 403) or is_wrong:
            advice = f"grant the credentials the right to {call} under this prefix"
            if _WRONG_CLOCK.search(str(error)):
                advice = "set this machine's clock"
            elif is_wrong:
                advice = "check the credentials and the region"
            return RefusedError(f"{where}: not permitted: {text}; {advice}")
        return UnreachableError(f"{where}: {text}")


def _profile_provider(url: str) -> Any:
    """Return the provider of the credentials of the profile that AWS_PROFILE names, perhaps with
    single sign-on. Return None without a profile: then obstore reads what the environment, the
    instance or the container has. Raises RefusedError."""
    profile = environment("AWS_PROFILE")
    if not url.startswith(("s3://", "s3a://")) or not profile:
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        if not is_raised_by_call(error, *_PROFILES):
            raise
        raise RefusedError(
            f"{url}: AWS_PROFILE is set, and a profile needs the package boto3; "
            "run: pip install boto3"
        ) from error
    try:
        return Boto3CredentialProvider()
    except Exception as error:  # boto3's own, of many kinds
        if not is_raised_by_call(error, *_PROFILES):
            raise
        raise RefusedError(
            f"{url}: the credentials of the profile {profile!r} can't be read: {error}; "
            "check it with: aws sts get-caller-identity"
        ) from error


def _foreign(problem: str) -> UnreachableError:
    shown = "address"
    for name in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL"):
        if problem.startswith("s3:") and (endpoint := environment(name)):
            shown = f"endpoint {name}={_shown(endpoint)}"
    return UnreachableError(
        f"{problem}; object storage gives no such answer: check the {shown}, and whether a web "
        "server, a gateway or a login page answers in its place"
    )


def _entry_path(number: int) -> str:
    return f"entries/{number:020d}"


def _text(error: BaseException) -> str:
    """Return the message of an error without obstore's dump of its causes."""
    return _shown(str(error).partition(_DUMP)[0])


def _shown(text: str) -> str:
    """Return a text without credentials: without the user in an address, and with only the code
    and the message of an answer in XML, because S3 repeats a session token that has expired."""
    text, _, answer = _USER.sub("://", text).partition("<")
    return text + unescape(": ".join(_SAID.findall(f"<{answer}")))


def _status(error: BaseException) -> int:
    """Return the HTTP status that an error states, or 0 if it states none.

    For a failed list, obstore raises a GenericError, which has the status only in its text.
    """
    match = _STATUS.search(_text(error))
    return int(match[1]) if match else 0

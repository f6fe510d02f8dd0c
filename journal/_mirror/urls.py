"""URLs: the store that an address names.

s3://bucket/prefix   gs://bucket/prefix   az://container/prefix     object storage, by obstore
nats://host,host/STREAM                                             JetStream, by nats-py
file:///directory                                                   a mounted directory
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from urllib.parse import SplitResult, unquote, urlsplit

from journal._disk.mounts import is_inside
from journal._mirror.store import Store
from journal._mutex import is_raised_by_call

_OBJECTS = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss")
_NATS = ("nats", "tls")
_KNOWN = "s3://, gs://, az://, nats:// or file://"
REQUEST_TIMEOUT_S = 10.0
_OPEN_S_MIN = 1.0


def open_store(
    url: str,
    *,
    open_s: float = REQUEST_TIMEOUT_S,
    timeout_s: float = REQUEST_TIMEOUT_S,
    is_reader: bool = False,
) -> Store:
    """Open the store at `url`. `timeout_s`: the time limit of each request, in seconds. `open_s`:
    that of the requests of this call, at least 1 s. `is_reader`: make no directory and no bucket,
    and change no mode.

    Raises what `opener` raises, RefusedError for an address that can't be used, UnreachableError,
    and, for a reader, FileNotFoundError if there is no directory.
    """
    open_s = min(max(open_s, _OPEN_S_MIN), timeout_s)
    return opener(url, open_s=open_s, timeout_s=timeout_s, is_reader=is_reader)()


def opener(url: str, *, open_s: float, timeout_s: float, is_reader: bool) -> Callable[[], Store]:
    """Return the function that opens the store at `url`. Makes no request, and nothing on disk.

    Raises TypeError and ValueError for an address that names no store, and ImportError if the
    package that the address needs is not installed.
    """
    parts, shown = _split(url), shown_url(url)
    if _has_cut_login(parts):
        raise ValueError(f"{shown}: has an @ after a / ? or #; in a login, write %2F, %3F or %23")
    if parts.scheme in (*_OBJECTS, *_NATS, "file") and (parts.query or parts.fragment):
        # They may be a secret, so they are not shown.
        raise ValueError(f"{shown}: has a ? or a #; in a name, write %3F or %23")
    if parts.scheme in _OBJECTS:
        _check(shown, parts.netloc, "bucket")
        _import("obstore", "mirror")
        from journal._mirror.object_store import ObjectStore

        return lambda: ObjectStore.open(shown, open_s=open_s, timeout_s=timeout_s)
    if parts.scheme in _NATS:
        stream = parts.path.strip("/")
        _check(shown, parts.netloc, "server")
        _check(shown, stream, "stream")
        if any(sign in ">*. /\\" or sign.isspace() for sign in stream):
            raise ValueError(f"{shown}: {stream!r} is not the name of a stream")
        _import("nats", "nats")
        from journal._mirror.jetstream_store import JetStreamStore

        servers = [f"{parts.scheme}://{server}" for server in parts.netloc.split(",") if server]
        return lambda: JetStreamStore(shown, servers, stream, open_s, timeout_s, is_reader)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise ValueError(f"{url}: has a host; write file:///DIRECTORY, with three slashes")
        path = _path(parts)
        _check(url, path.strip("/"), "directory")
        if not path.startswith("/") or "\0" in path:
            raise ValueError(
                f"{url}: is not the absolute path of a directory; write file:///DIRECTORY"
            )
        from journal._mirror.directory_store import DirectoryStore

        return lambda: DirectoryStore(path, is_reader=is_reader)
    raise ValueError(f"{shown!r} is not the address of a mirror; give one of {_KNOWN}")


def check_url(url: str, path: str) -> None:
    """Check the address of the mirror of the journal at `path`. Raises what `opener` raises, and
    ValueError for a mirror in the journal's own directory."""
    opener(url, open_s=0.0, timeout_s=0.0, is_reader=True)
    parts = _split(url)
    if parts.scheme == "file" and is_inside(_path(parts), path):
        raise ValueError(
            f"{shown_url(url)}: the mirror is in the journal's own directory {path}; give a "
            "directory outside of it, on another disk"
        )


def shown_url(url: str) -> str:
    """Return the address without a user, a password, a query and a fragment, for messages."""
    parts = _split(url)
    if _has_cut_login(parts):
        return f"{parts.scheme}://"
    hosts = (host.rpartition("@")[2] for host in parts.netloc.split(","))
    return f"{parts.scheme}://{','.join(hosts)}{parts.path}" if parts.scheme else parts.path


def _split(url: str) -> SplitResult:
    if not isinstance(url, str):
        raise TypeError(f"the address of a mirror must be text, not {url!r:.80}")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        if not is_raised_by_call(error, "urllib", "ipaddress"):
            raise
        # Neither the address nor the error is shown, because both may contain a password.
        problem = "the host of a mirror's address is wrong; write [ and ] as %5B and %5D"
        raise ValueError(f"{problem}, except around an IPv6 address") from None
    if " " in parts.netloc:
        raise ValueError("the host or the bucket of a mirror's address has a space")
    return parts


def _has_cut_login(parts: SplitResult) -> bool:
    """Return whether a sign in a login of NATS has ended what counts as the hosts."""
    return parts.scheme in _NATS and "@" in f"{parts.path}{parts.query}{parts.fragment}"


def _check(url: str, part: str, what: str) -> None:
    if not part:
        raise ValueError(f"{url}: names no {what}")


def _import(package: str, extra: str) -> None:
    try:
        import_module(package)
    except ImportError as error:
        if (error.name or "").partition(".")[0] != package:  # of a signal handler, for example
            raise
        raise ImportError(
            f"this kind of mirror needs the package {package}; "
            f"run: pip install 'journal-engine[{extra}]'"
        ) from error


def _path(parts: SplitResult) -> str:
    """Return the path of a directory's address, whose bytes need not be UTF-8."""
    return unquote(parts.path, errors="surrogateescape")

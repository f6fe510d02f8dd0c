"""Mirror: the choices of a journal's owner for its mirror, checked when the object is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from journal._mirror.store import Store
from journal._mirror.urls import REQUEST_TIMEOUT_S, check_url, open_store, shown_url
from journal._public import public
from journal._waits import refuse
from journal.options import Options

GIB = 1 << 30


@public
@dataclass(frozen=True, slots=True)
class Mirror:
    """The mirror of a journal, for `open(mirror=...)`. A bad value raises a ValueError that names
    it.

    Source: journal/docs/RELIABILITY.md, "Mirrors".
    """

    url: str
    """The address: `s3://bucket/prefix`, `gs://`, `az://`, `nats://host,host/STREAM` or
    `file:///directory`."""

    ack: Literal["local", "remote"] = field(default="local", kw_only=True)
    """The event that acknowledges a record: with "local" its commit on this machine's disk, with
    "remote" its arrival in the mirror. With "remote", `durable_lsn` and all waits follow
    `mirrored_lsn`."""

    interval_s: float = field(default=1.0, kw_only=True)
    """The longest time, in seconds, between two uploads while there is something to ship and the
    mirror answers. With "remote", records are shipped at once."""

    keep_s: float = field(default=86400, kw_only=True)
    """The time, in seconds, for which a restore can reach every commit of the past."""

    lag_bytes_max: int = field(default=GIB, kw_only=True)
    """The size of the log, in bytes, that is kept for a mirror that is behind, although compaction
    has covered it."""

    open_timeout_s: float = field(default=30, kw_only=True)
    """The time, in seconds, after which an open gives up on a mirror that does not answer, and at
    most one request later. Even with 0, the mirror gets one second to answer."""

    start_over: bool = field(default=False, kw_only=True)
    """True to begin the mirror again if it has lost all entries of this directory. Otherwise, the
    open refuses."""

    _ranges: ClassVar[dict[str, tuple[float, float]]] = {
        "interval_s": (0.001, 3600),
        "keep_s": (0, 1e10),
        "lag_bytes_max": (0, 1 << 62),
        "open_timeout_s": (0, 1e6),
    }

    def __post_init__(self) -> None:
        if not isinstance(self.url, str):
            raise ValueError(f"url must be a string, not {type(self.url).__name__}")
        if self.ack not in ("local", "remote"):
            raise ValueError(f'ack must be "local" or "remote", not {self.ack!r}')
        if not isinstance(self.start_over, bool):
            raise ValueError(f"start_over must be True or False, not {self.start_over!r:.80}")
        for name, (low, high) in self._ranges.items():
            value = getattr(self, name)
            kinds = int if name.endswith("_max") else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                kind = "a whole number" if kinds is int else "a number"
                bounds = f"{low:g} to {high:g}"
                raise ValueError(f"{name} must be {kind} from {bounds}, not {value!r}")

    def __repr__(self) -> str:
        """Show the address without credentials, and whose acknowledgement counts."""
        return f"Mirror({self.shown_url!r}, ack={self.ack!r})"

    @property
    def shown_url(self) -> str:
        """The address without credentials, for messages."""
        return shown_url(self.url)

    def _check(self, path: str) -> None:
        """Check the address, as of the mirror of the journal at `path`. See `check_url`."""
        check_url(self.url, path)

    def _open_store(self, open_s: float = REQUEST_TIMEOUT_S, *, is_reader: bool = False) -> Store:
        return open_store(self.url, open_s=open_s, is_reader=is_reader)


MirrorChoice = Mirror | str | Literal[False] | None
"""The argument `mirror` of an open: False goes on without the mirror that a directory has."""


def as_mirror(mirror: object) -> Mirror:
    """Return the Mirror that a caller gave, maybe by its address. Raises TypeError."""
    if isinstance(mirror, str):
        return Mirror(mirror)
    if not isinstance(mirror, Mirror):
        refuse(TypeError, "mirror must be an address or Mirror(...)", mirror)
    return mirror


def chosen(mirror: MirrorChoice, takeover: bool, options: Options) -> Mirror | None:
    """Return the mirror that an open was given. Raises TypeError and ValueError."""
    if mirror is None or mirror is False:
        if takeover:
            raise ValueError("takeover=True takes over a mirror; pass mirror, too")
        return None
    mirror = as_mirror(mirror)
    if mirror.ack == "remote" and options.durability == "os":
        raise ValueError(
            'durability="os" can\'t be combined with ack="remote": only synced bytes are shipped; '
            'use durability="disk"'
        )
    return mirror

"""Options: the choices of a journal's owner, checked when the object is made."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from journal._format.checkpoint import CHECKPOINTS_KEPT_MIN
from journal._format.layout import PAYLOAD_BYTES_MAX
from journal._public import public

KIB = 1 << 10
MIB = 1 << 20
_IDLE_S_MIN, _IDLE_S_MAX = 0.005, 0.05


@public
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Choices of a journal's owner. A bad value raises a ValueError that names it."""

    durability: Literal["disk", "os"] = "disk"
    """The crash that an acknowledged record survives: with "disk" a power cut, with "os" only the
    death of the process (commits are not synced)."""

    flush_interval_s: float = 0.010
    """The longest time, in seconds, that a record for which nobody waits stays in memory."""

    flush_bytes: int = 256 * KIB
    """The number of buffered bytes that starts a commit."""

    segment_bytes: int = 16 * MIB
    """The size of a segment in bytes, all of which is preallocated."""

    buffer_bytes: int = 64 * MIB
    """The largest number of bytes that may be appended but not yet committed."""

    record_bytes_max: int = 4 * MIB
    """The largest packed record, in bytes."""

    frame_bytes_max: int = 16 * MIB
    """The largest payload of a frame, in bytes."""

    checkpoint_min_bytes: int = 4 * MIB
    """The smallest growth of the log, in bytes, at which compaction is due. A log that grows while
    a checkpoint is written is compacted up to a quarter earlier."""

    checkpoint_growth: float = 3.0
    """The growth of the log at which compaction is due, as a multiple of the last checkpoint's
    size. The log must also have grown by `checkpoint_min_bytes`."""

    checkpoints_kept: int = 2
    """The number of checkpoints that are retained, with all segments after the oldest of them."""

    retain_s: float | None = None
    """The age, in seconds, from which records of a Journal without a state are removed. Whole
    segments are removed, so a record may stay until it is 1.4 times as old, and the segment with
    the last record always stays. None: never by age."""

    retain_bytes: int | None = None
    """The size of the log of a Journal without a state, in bytes, that is always kept. Segments
    before that are removed. None: never by size."""

    application: str = ""
    """The application's name, which a new journal and each checkpoint state. An open refuses a
    journal of another application; "" states nothing, and refuses none. But a Journal that was
    opened with "" appends nothing to the journal of an application."""

    _ranges: ClassVar[dict[str, tuple[float, float]]] = {
        "flush_interval_s": (0, 3600),
        "segment_bytes": (4 * KIB, 1 << 40),
        "frame_bytes_max": (1, PAYLOAD_BYTES_MAX),
        "record_bytes_max": (1, PAYLOAD_BYTES_MAX),
        "checkpoint_growth": (0, 1e6),
        "retain_s": (0, 1e10),
        "retain_bytes": (0, 1 << 62),
        # One would not do: it could decay right after the log that it covers was removed.
        "checkpoints_kept": (CHECKPOINTS_KEPT_MIN, 1000),
    }

    @property
    def idle_s(self) -> float:
        """The time without activity, in seconds, after which the log counts as idle."""
        return min(max(self.flush_interval_s, _IDLE_S_MIN), _IDLE_S_MAX)

    @property
    def has_retention(self) -> bool:
        """True if records are removed by age or by size."""
        return self.retain_s is not None or self.retain_bytes is not None

    def __repr__(self) -> str:
        """Show the options that differ from the defaults."""
        values = [(field.name, getattr(self, field.name), field.default) for field in fields(self)]
        shown = (f"{name}={value!r}" for name, value, default in values if value != default)
        return f"Options({', '.join(shown)})"

    def __post_init__(self) -> None:
        if self.durability not in ("disk", "os"):
            raise ValueError(f'durability must be "disk" or "os", not {self.durability!r}')
        if not isinstance(self.application, str):
            raise ValueError(f"application must be a string, not {self.application!r}")
        if any("\ud800" <= character <= "\udfff" for character in self.application):
            raise ValueError(f"application has half a surrogate pair: {self.application!r:.200}")
        for field in fields(self):
            is_number = field.type.removesuffix(" | None") in ("int", "float")
            is_none = field.type.endswith(" | None") and getattr(self, field.name) is None
            if is_number and not is_none:
                self._check_number(field.name)

    def _check_number(self, name: str) -> None:
        value = getattr(self, name)
        low, high = self._ranges.get(name, (1, float("inf")))
        whole = name.endswith(("_bytes", "_bytes_max", "_kept"))
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            raise ValueError(f"{name} must be {kind} from {low} to {high}, not {value!r}")


def check_options(options: object) -> None:
    """Raise TypeError for options of another type, such as a dict."""
    if not isinstance(options, Options):
        raise TypeError(f"options must be Options(...), not {options!r:.200}")

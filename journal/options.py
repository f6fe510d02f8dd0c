"""Options: what an owner may choose, checked when it is made."""

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
    """How a journal is kept. A bad value is a ValueError that names it.

    `durability`: "disk" acknowledges what survives a power cut; "os" what survives the
    process (no sync a commit). `flush_interval_s`: the longest a record that nobody waits for
    stays in memory. `flush_bytes`: buffered bytes that start a commit. `segment_bytes`: a
    segment's size, and what is preallocated. `buffer_bytes`: the bound of what is appended and
    not yet committed. `record_bytes_max`, `frame_bytes_max`: of one packed record, of one
    frame's payload. `checkpoint_min_bytes`, `checkpoint_growth`: compaction is due when the
    log has grown by more than the first and by more than the second times the last
    checkpoint's size; where it grows while one is made, by up to a quarter less.
    `checkpoints_kept`: how many, with the segments after the oldest.
    `application`: stands in every checkpoint; "" refuses none.
    """

    durability: Literal["disk", "os"] = "disk"
    flush_interval_s: float = 0.010
    flush_bytes: int = 256 * KIB
    segment_bytes: int = 16 * MIB
    buffer_bytes: int = 64 * MIB
    record_bytes_max: int = 4 * MIB
    frame_bytes_max: int = 16 * MIB
    checkpoint_min_bytes: int = 4 * MIB
    checkpoint_growth: float = 3.0
    checkpoints_kept: int = 2
    application: str = ""

    _ranges: ClassVar[dict[str, tuple[float, float]]] = {
        "flush_interval_s": (0, 3600),
        "segment_bytes": (4 * KIB, 1 << 40),
        "frame_bytes_max": (1, PAYLOAD_BYTES_MAX),
        "record_bytes_max": (1, PAYLOAD_BYTES_MAX),
        "checkpoint_growth": (0, 1e6),
        # One could rot the moment after what it covers was dropped.
        "checkpoints_kept": (CHECKPOINTS_KEPT_MIN, 1000),
    }

    @property
    def idle_s(self) -> float:
        """How long the log must be quiet to be called idle."""
        return min(max(self.flush_interval_s, _IDLE_S_MIN), _IDLE_S_MAX)

    def __post_init__(self) -> None:
        if self.durability not in ("disk", "os"):
            raise ValueError(f'durability must be "disk" or "os", not {self.durability!r}')
        if not isinstance(self.application, str):
            raise ValueError(f"application must be a string, not {self.application!r}")
        for field in fields(self):
            if field.type in ("int", "float"):
                self._check_number(field.name)

    def _check_number(self, name: str) -> None:
        value = getattr(self, name)
        low, high = self._ranges.get(name, (1, float("inf")))
        whole = name.endswith(("_bytes", "_bytes_max", "_kept"))
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            raise ValueError(f"{name} must be {kind} from {low} to {high}, not {value!r}")

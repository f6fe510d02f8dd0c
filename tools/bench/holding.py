"""Measure the holds of one version: `PYTHONPATH=CHECKOUT python holding.py [DIRECTORY]`.

`bench.hold` runs this.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgpack

from journal import DurableState, Options, pack

SLICES, UPDATES, KEPT = 60, 500, 1000
OPTIONS = Options(durability="os", buffer_bytes=1 << 28, checkpoint_min_bytes=1 << 40)


class Newest:
    """A state machine that keeps the newest records, so that unpacked objects stay alive."""

    application = "hold/1"

    def __init__(self) -> None:
        self.table: dict[int, Any] = {}

    def load(self, item: Any) -> None: ...

    def apply(self, lsn: int, record: Any) -> None:
        self.table[lsn % KEPT] = record

    def freeze(self) -> Iterable[Any]:
        return ()


def record(n: int) -> list[Any]:
    return ["step", n % 1000, 1_700_000_000_000 + n, f"agent_{n:012x}", {"n": n, "x": f"{n:020d}"}]


def _given(record: Any, _: Newest) -> Any:
    return record


def held_ns(state: DurableState[Newest], make: Callable[[int], Any]) -> float:
    """Return the mean time in ns for which an update holds the lock, in the fastest slice."""
    means = []
    for _ in range(SLICES):
        decides = [partial(_given, make(n)) for n in range(UPDATES)]
        before = state.lock_stats().hold
        for decide in decides:
            state.update(decide)
        after = state.lock_stats().hold
        means.append((after.mean * after.count - before.mean * before.count) / UPDATES)
        state.wait_durable()
    return min(means)


def unpacked_ns(kept: int) -> float:
    """Return the mean time in ns to unpack a record, in the fastest slice.

    `kept` is the number of unpacked records that stay alive.
    """
    packed = [msgpack.packb(record(n)) for n in range(UPDATES)]
    table: dict[int, Any] = {}
    means = []
    for at in range(SLICES):
        began = time.perf_counter_ns()
        for n, each in enumerate(packed, at * UPDATES):
            table[n % kept] = msgpack.unpackb(each, strict_map_key=False)
        means.append((time.perf_counter_ns() - began) / UPDATES)
    return min(means)


def main(directory: str | None = None) -> None:
    with (
        tempfile.TemporaryDirectory(dir=directory) as name,
        DurableState.open(f"{name}/state", Newest(), options=OPTIONS) as state,
    ):
        gc.disable()
        results = {
            "plain_ns": held_ns(state, record),
            "packed_ns": held_ns(state, lambda n: pack(record(n))),
            "unpackb_ns": unpacked_ns(1),
            "unpackb_kept_ns": unpacked_ns(KEPT),
        }
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])

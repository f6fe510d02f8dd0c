"""The writer of `python tools/proof failover`: a process that works until it is killed.

It takes the mirror over, and prints lines: `open AFTER LAST EPOCH:COUNT ...` for the records that
it recovered, by the epoch in which they were written; `ack LSN EPOCH SECONDS` for a record that was
acknowledged by then; `mirrored SECONDS` for a moment up to which everything that was acknowledged
is in the mirror, as the journal's stats say; and `fenced`.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Literal, cast

from journal import FencedError, Journal, Mirror, Options

INTERVAL_S = 0.2
_THREADS = 4
_OPEN_S = 60  # the machine may be busy
_REPORT_S, _TRIM_S = 0.01, 0.25
_KEPT = 2000  # records


def say(*words: object) -> None:
    # The line is written at once and whole, since it is shorter than a pipe's atomic size.
    os.write(1, " ".join(map(str, words)).encode() + b"\n")


def work(path: Path, url: str, ack: Literal["local", "remote"]) -> None:
    """Append, wait and trim until something raises."""
    mirror = Mirror(url, ack=ack, interval_s=INTERVAL_S, keep_s=0, open_timeout_s=_OPEN_S)
    options = Options(segment_bytes=1 << 16)  # so that there are roll-ups
    journal = Journal.open(path, options=options, mirror=mirror, takeover=True)
    journal.wait_durable()  # a replay ends there
    after = journal.checkpoint.lsn if journal.checkpoint else 0
    recovered = [(entry.lsn, entry.record) for entry in journal.replay()]
    assert [lsn for lsn, _ in recovered] == [*range(after + 1, journal.last_lsn + 1)]
    epochs = (record[0] for _, record in recovered if record)
    runs = [f"{epoch}:{len([*group])}" for epoch, group in groupby(epochs)]
    say("open", after, journal.last_lsn, *runs)
    epoch, generator = journal.epoch, random.Random()

    def append() -> None:
        while True:
            lsn = journal.append([epoch, "x" * generator.randrange(200)])
            journal.wait_durable(lsn)
            say("ack", lsn, epoch, time.monotonic())

    def report() -> None:
        while True:
            now_s, stats = time.monotonic(), journal.stats()
            assert stats.mirror_lag_s is not None
            say("mirrored", now_s - stats.mirror_lag_s)
            time.sleep(_REPORT_S)

    def trim() -> None:
        while True:
            time.sleep(generator.random() * 2 * _TRIM_S)
            journal.trim(max(1, journal.durable_lsn - _KEPT))

    for call in (*[append] * _THREADS, report):
        threading.Thread(target=until_fenced, args=(call,), daemon=True).start()
    until_fenced(trim)


def until_fenced(call: Callable[[], None]) -> None:
    """Call, and end the process when that raises."""
    try:
        call()
    except FencedError:
        say("fenced")
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    _, path, url, ack = sys.argv
    work(Path(path), url, cast(Literal["local", "remote"], ack))

"""Measure how far a follower is behind its writer, and how fast it takes over.

A journal with `--mib` MiB of log is mirrored with ack="local" and the default interval, and a
follower copies it. While the writer commits records at `--rate` a second, the time from each
acknowledgement to the follower's copy is taken. Then the follower takes over: the time is that of
its claim, its recovery and its first durable commit. The next round begins with a new follower.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.figures import Bar, Quantiles, at_most
from bench.machine import about
from bench.output import parsed, parser_of, show
from bench.restore import MIB, mirror_in
from journal import Follower, Journal, JournalError, Mirror, follow
from journal._mirror.memory_store import MemoryStore

_RECORD = b"x" * 1000
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Round:
    """The seconds by which the follower was behind, and those of its takeover."""

    behind: Quantiles
    takeover_s: float


def behind(writer: Journal, follower: Follower, rate: float, seconds: float) -> Quantiles:
    committed = deque[tuple[int, float]]()
    times_s, ended = list[float](), threading.Event()

    def commit() -> None:
        until_s = time.monotonic() + seconds
        while not committed or time.monotonic() < until_s:
            lsn = writer.append(_RECORD)
            writer.wait_durable(lsn)
            committed.append((lsn, time.perf_counter()))
            time.sleep(1 / rate)
        ended.set()

    thread = threading.Thread(target=commit)
    thread.start()
    while not ended.is_set() or committed:
        if not committed:
            time.sleep(0.001)
            continue
        lsn, at_s = committed.popleft()
        follower.wait(lsn, timeout_s=_TIMEOUT_S)
        times_s.append(time.perf_counter() - at_s)
    thread.join()
    return Quantiles.of(times_s)


def rounds(options: argparse.Namespace, folder: Path) -> Iterator[Round]:
    mirror = Mirror(options.url) if options.url else mirror_in(MemoryStore())
    writer = Journal.open(folder / "0", mirror=mirror)
    for _ in range(max(1, int(options.mib * MIB / len(_RECORD)))):
        lsn = writer.append(_RECORD)
        if lsn % 1000 == 0:
            writer.wait_durable(lsn)
    writer.wait_mirrored()
    for number in range(1, options.rounds + 1):
        follower = follow(mirror, folder / f"{number}")
        follower.wait(writer.last_lsn, timeout_s=_TIMEOUT_S)
        found = behind(writer, follower, options.rate, options.seconds)
        began_s = time.perf_counter()
        journal = follower.promote()
        journal.wait_durable(journal.append(_RECORD))
        yield Round(found, time.perf_counter() - began_s)
        with suppress(JournalError):  # it is fenced
            writer.close()
        writer = journal
    writer.close()


def main(arguments: list[str]) -> int:
    parser = parser_of("standby", __doc__)
    parser.add_argument("--url", help="the address of an empty mirror; default: in memory")
    parser.add_argument("--mib", type=float, default=40, help="size of the log; default: 40")
    parser.add_argument("--rate", type=float, default=20, help="commits a second; default: 20")
    parser.add_argument("--seconds", type=float, default=10, help="per round; default: 10")
    parser.add_argument("--rounds", type=int, default=3)
    options = parsed(parser, arguments)
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        results = list(rounds(options, Path(name)))
    lag = Quantiles.median(each.behind for each in results)
    takeovers_s = Quantiles.of(each.takeover_s for each in results)
    return show(
        "standby",
        options,
        about("obstore", "nats-py"),
        {"rounds": [asdict(each) for each in results]},
        (
            f"{'behind':20} p50 {lag.p50:.2f} s, p99 {lag.p99:.2f} s, max {lag.max:.2f} s",
            f"{'takeover':20} p50 {takeovers_s.p50:.2f} s, max {takeovers_s.max:.2f} s",
        ),
        bars(lag, takeovers_s, options.mib),
    )


def bars(lag: Quantiles, takeovers_s: Quantiles, mib: float) -> Iterator[Bar]:
    yield at_most("a follower is behind, p99", lag.p99, 1.5, "s")
    yield at_most(f"takeover with a copy of {mib:g} MiB", takeovers_s.p50, 0.5, "s")

"""Kill, stop and cut off writers of a mirror again and again, and look for records that are lost.

A writer process appends in threads. After each fault, another one takes the mirror over, in a new
directory, in the same one, or in an older copy of it. What was acknowledged has to be there:

- ack="remote": everything;
- ack="local": everything if the directory is the same. Otherwise, everything up to the moment for
  which the writer's stats last said that the mirror had everything.

`--fault kill` kills the writer. `stop` stops it, lets another one take over, and wakes it: it has
to be refused, and may acknowledge nothing with ack="remote". `server` kills or stops the server
while the writer works: the leader of a JetStream cluster of three, or the S3 server. `answers` lets
the S3 server do what it is asked for, and drops its answers; every other writer is killed
meanwhile.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from proof import servers
from proof.dropping_proxy import DroppingProxy
from proof.servers import Server, wait_until

CHECKOUT = Path(__file__).resolve().parents[2]
FAULTS = ("kill", "stop", "server", "answers")
_TIMEOUT_S = 90.0
_WORK_S = 0.5  # at most, between two faults
_STREAM = "FAILOVER"


class LostError(AssertionError):
    """An acknowledged record is missing, or a writer went on that another one had overtaken."""


@dataclass(frozen=True)
class Store:
    """A store: the mirror's address, the servers, and what a client needs in its environment."""

    url: str
    servers: list[Server] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    proxy: DroppingProxy | None = None

    def leader(self) -> Server:
        """Return the server to strike. In a cluster, wait until each replica is up to date."""
        if len(self.servers) == 1:
            return self.servers[0]
        addresses = self.url.removeprefix("nats://").partition("/")[0]
        found: list[Server] = []

        def find() -> bool:
            leader = servers.leader_of(addresses, _STREAM)
            found[:] = [server for server in self.servers if server.name == leader]
            return bool(found)

        wait_until(find, "the stream has a leader", _TIMEOUT_S)
        return found[0]


@dataclass
class Report:
    """The faults and what came of them."""

    faults: int = 0
    server_kills: int = 0
    answers_dropped: int = 0
    acknowledged: int = 0
    refused: int = 0
    within_lag: int = 0
    stalls_s: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        text = (
            f"{self.faults} faults, {self.acknowledged:,} records acknowledged, "
            f"{self.refused} writers refused, 0 lost, {self.within_lag} within the lag, "
            f"{self.server_kills} servers killed, {self.answers_dropped} answers dropped"
        )
        if stalls := sorted(self.stalls_s):
            text += f", stall p50 {stalls[len(stalls) // 2]:.1f} s, max {stalls[-1]:.1f} s"
        return text


class Writer:
    """A writer process, and what it has printed."""

    def __init__(self, path: Path, store: Store, ack: str) -> None:
        self.path = path
        self.acknowledged: dict[int, tuple[int, float]] = {}  # by LSN: the epoch, and when
        self.mirrored_s = 0.0
        self.opened = threading.Event()
        self.is_fenced = False
        self.after = self.last_lsn = 0
        self.epochs: list[tuple[int, int]] = []  # of the recovered records, and how many they are
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "proof.failover_writer", str(path), store.url, ack],
            stdout=subprocess.PIPE,
            env=os.environ
            | store.environment
            | {"PYTHONPATH": f"{CHECKOUT}{os.pathsep}{CHECKOUT / 'tools'}"},
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,))
        self._reader.start()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait_open(self) -> None:
        wait_until(
            lambda: self.opened.is_set() or self._process.poll() is not None, "an open", _TIMEOUT_S
        )
        if not self.opened.is_set():
            raise LostError(f"{self.path}: the writer ended with {self._process.returncode}")

    def join(self) -> None:
        """Wait until the process has ended and everything that it printed is read."""
        try:
            self._process.wait(_TIMEOUT_S)
        finally:
            self._process.kill()
            self._reader.join(_TIMEOUT_S)

    def epoch_of(self, lsn: int) -> int | None:
        """Return the epoch of a recovered record, None if it was not recovered."""
        at = self.after
        for epoch, count in self.epochs:
            at += count
            if lsn <= at:
                return epoch
        return None

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            self._take(pipe)

    def _take(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            if not line.endswith(b"\n"):
                break  # the kill cut it off
            kind, *words = line.decode().split()
            if kind == "ack":
                lsn, epoch, at_s = words
                self.acknowledged[int(lsn)] = int(epoch), float(at_s)
            elif kind == "mirrored":
                self.mirrored_s = max(self.mirrored_s, float(words[0]))
            elif kind == "open":
                self.after, self.last_lsn = int(words[0]), int(words[1])
                pairs = (word.split(":") for word in words[2:])
                self.epochs = [(int(epoch), int(count)) for epoch, count in pairs]
                self.opened.set()
            elif kind == "fenced":
                self.is_fenced = True


class Failover:
    """A mirror with one writer after the other."""

    def __init__(self, folder: Path, store: Store, ack: str, seed: int) -> None:
        self.report = Report()
        self._folder, self._store, self._ack = folder, store, ack
        self._random = random.Random(seed)
        self._number = 0
        self._expected: dict[int, int] = {}  # the epoch of each acknowledged record, by LSN
        self._last: Writer | None = None  # the writer that worked before the one to be opened
        self._writers: list[Writer] = []

    def kill(self) -> None:
        """Let a writer work, perhaps not yet open, and kill it."""
        writer = self._begin(self._next_path())
        if self._random.random() < 0.9:
            writer.wait_open()
        time.sleep(self._random.random() * _WORK_S)
        writer.send(signal.SIGKILL)
        writer.join()
        if writer.opened.is_set():
            self._succeed(writer)
        self.report.faults += 1

    def stop(self) -> None:
        """Stop the writer, let another one take over, and wake it."""
        last = self._last or self._open()
        time.sleep(self._random.random() * _WORK_S)
        last.send(signal.SIGSTOP)
        writer = self._open(is_new=True)
        time.sleep(self._random.random() * _WORK_S)
        last.send(signal.SIGCONT)
        last.join()
        if not last.is_fenced:
            raise LostError(f"{last.path}: the writer that was woken was not refused")
        self._check(last, writer)
        self.report.refused += 1
        self.report.faults += 1

    def server(self) -> None:
        """Kill or stop the server while the writer works, and wait until the mirror goes on."""
        writer = self._last or self._open()
        victim = self._store.leader()
        time.sleep(self._random.random() * _WORK_S)
        began_s = time.monotonic()
        if is_killed := self._random.random() < 0.7:
            victim.kill()
            self.report.server_kills += 1
        else:
            victim.send(signal.SIGSTOP)
        time.sleep(self._random.random() * 2)
        if is_killed:
            victim.start()
        else:
            victim.send(signal.SIGCONT)
        wait_until(lambda: writer.mirrored_s > began_s, "the mirror goes on", _TIMEOUT_S)
        self.report.stalls_s.append(time.monotonic() - began_s)
        self.report.faults += 1

    def answers(self) -> None:
        """Drop answers of the server while the writer works, or while another one opens."""
        writer, proxy = self._last or self._open(), self._store.proxy
        assert proxy is not None
        time.sleep(self._random.random() * _WORK_S)
        began_s, dropped = time.monotonic(), proxy.dropped
        with proxy.dropping(self._random.choice((0.1, 0.5, 1.0))):
            time.sleep(self._random.random() * 2)
        if self._random.random() < 0.5:
            with proxy.dropping(0.02):  # an open has 30 s for all its requests together
                writer.send(signal.SIGKILL)
                writer.join()
                writer = self._open()
        wait_until(lambda: writer.mirrored_s > began_s, "the mirror goes on", _TIMEOUT_S)
        self.report.stalls_s.append(time.monotonic() - began_s)
        self.report.answers_dropped += proxy.dropped - dropped
        self.report.faults += 1

    def finish(self) -> None:
        """End the last writer, and check that a new machine finds everything."""
        self.close()
        self._open(is_new=True)

    def close(self) -> None:
        """Kill all writers."""
        for writer in self._writers:
            writer.send(signal.SIGKILL)
            writer.join()

    def _begin(self, path: Path) -> Writer:
        writer = Writer(path, self._store, self._ack)
        self._writers = [*self._writers[-1:], writer]  # an earlier one has ended
        return writer

    def _open(self, *, is_new: bool = False) -> Writer:
        writer = self._begin(self._next_path(is_new=is_new))
        writer.wait_open()
        self._succeed(writer)
        return writer

    def _succeed(self, writer: Writer) -> None:
        last, self._last = self._last, writer
        if last is not None:
            self._check(last, writer)

    def _check(self, last: Writer, writer: Writer) -> None:
        """Check that `writer` has found what `last` and those before it have acknowledged."""
        is_same = last.path == writer.path
        taken, last.acknowledged = last.acknowledged, {}  # one that was woken may go on
        acknowledged = dict(taken)
        for lsn, (epoch, _) in acknowledged.items():
            self._expected[lsn] = epoch
        self.report.acknowledged += len(acknowledged)
        for lsn, epoch in sorted(self._expected.items()):
            if lsn <= writer.after:
                del self._expected[lsn]  # trimmed
            elif writer.epoch_of(lsn) != epoch:
                at_s = acknowledged.get(lsn, (0, 0.0))[1]
                if self._ack == "remote" or is_same or at_s < last.mirrored_s:
                    raise LostError(f"LSN {lsn} of epoch {epoch} is lost")
                self.report.within_lag += 1
                del self._expected[lsn]

    def _next_path(self, *, is_new: bool = False) -> Path:
        """Return a new directory, or the last one, perhaps as it was before the last writer."""
        last = self._last.path if self._last else None
        chosen = self._random.random()
        if last is None or is_new or chosen < 0.5:
            self._number += 1
            path = self._folder / f"{self._number}"
            path.mkdir(mode=0o700)
            return path
        old = Path(f"{last}.old")
        if chosen < 0.7 and old.exists():
            self._number += 1
            path = self._folder / f"{self._number}"
            old.rename(path)
            return path
        shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(last, old)
        return last


@contextmanager
def open_store(name: str, folder: Path, generator: random.Random) -> Iterator[Store]:
    """Run the servers of a store, the S3 server behind a proxy."""
    if name == "directory":
        yield Store(f"file://{folder}/mirror")
    elif name == "s3":
        with servers.s3_server(folder) as (server, environment):
            proxy = DroppingProxy(int(environment["AWS_ENDPOINT"].rpartition(":")[2]), generator)
            environment = {**environment, "AWS_ENDPOINT": f"http://127.0.0.1:{proxy.port}"}
            with closing(proxy):
                yield Store(f"s3://{servers.BUCKET}/failover", [server], environment, proxy)
    else:
        with servers.nats_servers(folder, 3) as (nodes, addresses):

            def is_made() -> bool:
                servers.make_stream(addresses, _STREAM, num_replicas=3)
                return True

            wait_until(is_made, "the cluster has a leader")
            yield Store(f"nats://{addresses}/{_STREAM}", nodes)


def main(arguments: list[str]) -> int:
    """Run the faults, and return the exit code: 1 after the first record that is lost."""
    parser = argparse.ArgumentParser(
        prog="python tools/proof failover",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--store", choices=("s3", "nats", "directory"), default="directory")
    parser.add_argument("--ack", choices=("local", "remote"), default="remote")
    parser.add_argument("--fault", choices=FAULTS, default="kill")
    parser.add_argument("--times", type=int, default=100, help="faults; default: 100")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    options = parser.parse_args(arguments)
    needed = {"server": ("s3", "nats"), "answers": ("s3",)}.get(options.fault, (options.store,))
    if options.times < 1 or options.store not in needed:
        parser.error(f"--times must be 1 or more, and --fault {options.fault} needs {needed}")
    what = f"{options.store}, ack={options.ack}, {options.fault}, seed {options.seed}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "store").mkdir()
        chances = random.Random(options.seed)
        store = stack.enter_context(open_store(options.store, folder / "store", chances))
        failover = Failover(folder, store, options.ack, options.seed)
        strike = getattr(failover, options.fault)
        try:
            for _ in range(options.times):
                strike()
            failover.finish()
        except LostError as error:
            print(f"{what}: {error}")
            return 1
        finally:
            failover.close()
    print(f"{what}: {failover.report}")
    return 0

"""Count the flushes of the device and the bytes written to it for each commit.

Threads wait for each of their updates on a file system of its own, on a loop device in memory, so
that no other program's requests are counted. It needs root, and mkfs. The counts hardly depend on
the load of the machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.figures import Bar, at_most
from bench.load import run_threads
from bench.machine import about
from bench.output import parsed, parser_of, show
from journal import Journal

IMAGE_BYTES = 600 << 20
SECTOR_BYTES = 512
# The number of threads and the bytes of each record.
LOADS = ((1, 260), (8, 260), (64, 260), (256, 260), (8, 8_000), (8, 32_000))


@dataclass(frozen=True)
class Row:
    """The counts of one load, for each commit, and the device's bytes for each byte of records."""

    threads: int
    record_bytes: int
    commits: int
    commit_bytes: float
    flushes: float
    device_bytes: float


@contextmanager
def private_disk(file_system: str) -> Iterator[tuple[Path, Path]]:
    """Yield a new file system's mount point, and the `stat` file of its device."""
    memory = Path(tempfile.mkdtemp(dir="/dev/shm"))
    image, mount = memory / "image", memory / "mount"
    mount.mkdir()
    try:
        with image.open("wb") as file:
            os.truncate(file.fileno(), IMAGE_BYTES)
        subprocess.run([f"mkfs.{file_system}", "-q", image], check=True)
        attach = ["losetup", "--find", "--show", str(image)]
        done = subprocess.run(attach, check=True, stdout=subprocess.PIPE, text=True)
        device = Path(done.stdout.strip())
        try:
            subprocess.run(["mount", str(device), str(mount)], check=True)
            yield mount, Path("/sys/block", device.name, "stat")
        finally:
            subprocess.run(["umount", str(mount)], check=False)
            subprocess.run(["losetup", "--detach", str(device)], check=True)
    finally:
        shutil.rmtree(memory)


def requests(stat: Path) -> tuple[int, int]:
    """Return the flushes and the bytes written since the device was made."""
    fields = stat.read_text().split()
    return int(fields[15]), int(fields[6]) * SECTOR_BYTES


def measure(folder: Path, stat: Path, threads: int, record_bytes: int, updates: int) -> Row:
    record = "x" * (record_bytes - 3)  # its header takes 3 bytes
    updates_each = max(updates // threads, 20)
    with Journal.open(folder / f"{threads}-{record_bytes}") as journal:

        def update(_thread: int) -> None:
            for _ in range(updates_each):
                journal.wait_durable(journal.append(record))

        journal.wait_durable(journal.append(record))
        commits, (flushes, size) = journal.stats().commits, requests(stat)
        run_threads(threads, update)
        commits, (flushes_now, size_now) = journal.stats().commits - commits, requests(stat)
    record_bytes_in_all = threads * updates_each * record_bytes
    return Row(
        threads=threads,
        record_bytes=record_bytes,
        commits=commits,
        commit_bytes=record_bytes_in_all / commits,
        flushes=(flushes_now - flushes) / commits,
        device_bytes=(size_now - size) / record_bytes_in_all,
    )


def table(rows: list[Row]) -> Iterator[str]:
    yield f"{'threads':>8} {'record':>9} {'commits':>8} {'commit':>9} {'flushes':>8} {'device':>8}"
    for row in rows:
        yield (
            f"{row.threads:8} {row.record_bytes:7} B {row.commits:8} {row.commit_bytes:7.0f} B "
            f"{row.flushes:8.3f} {row.device_bytes:6.2f} x"
        )


def bars(rows: list[Row]) -> Iterator[Bar]:
    for row in rows:
        name = f"flushes a commit, {row.threads} threads, records of {row.record_bytes} B"
        yield at_most(name, row.flushes, 1.06, "")


def main(arguments: list[str]) -> int:
    parser = parser_of("flushes", __doc__)
    parser.add_argument("--file-system", default="ext4", choices=("ext4", "xfs", "btrfs"))
    parser.add_argument("--updates", type=int, default=6_000, help="for each load; default: 6,000")
    options = parsed(parser, arguments)
    if os.geteuid():
        parser.error("only root may mount the file system whose requests are counted")
    try:
        with private_disk(options.file_system) as (folder, stat):
            rows = [measure(folder, stat, *load, options.updates) for load in LOADS]
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        raise SystemExit(f"bench: flushes needs loop devices and mkfs: {error}") from None
    results = {"file_system": options.file_system, "rows": [asdict(row) for row in rows]}
    in_place = options.file_system != "btrfs"
    return show("flushes", options, about(), results, table(rows), bars(rows) if in_place else ())

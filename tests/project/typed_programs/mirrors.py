"""Programs that mirror a journal, and that use what its mirror has."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from journal import (
    DurableState,
    FencedError,
    Follower,
    Journal,
    Mirror,
    MirrorCheckpoint,
    MirrorError,
    MirrorFinding,
    MirrorInfo,
    MirrorObserver,
    MirrorReason,
    ReappendReport,
    RestoreReport,
    SavePlaceError,
    Tables,
    follow,
    mirror_info,
    reappend,
    restore,
    verify_mirror,
)
from tests.project.typed_programs.journals import Jobs, Watcher


class MirrorWatcher(Watcher):
    def mirrored(self, lsn: int, size_bytes: int, duration_ns: int) -> None: ...

    def mirror_stalled(self, error: BaseException) -> None: ...


async def use_mirrored_journal(path: Path, url: str) -> None:
    mirror = Mirror(url, ack="remote", interval_s=0.1)
    observer: MirrorObserver = MirrorWatcher()
    with Journal.open(path, mirror=mirror, takeover=True) as journal:
        journal.observe(observer)
        journal.wait_mirrored(journal.append("x"), timeout_s=1.5)
        await journal.mirrored()
        assert_type(journal.mirrored_lsn, int)
        assert_type(reappend("aside.d", journal), ReappendReport)
        journal.wait_mirrored("3")  # type: ignore[arg-type]
    with Journal.open(path, mirror=False), Tables.open("t", mirror=url):
        pass
    async with DurableState.aopen(path, Jobs(), mirror=mirror) as state:
        assert_type(state, DurableState[Jobs])
    Journal.open(path, mirror=True)  # type: ignore[arg-type]
    Mirror(url, ack="both")  # type: ignore[arg-type]


def use_mirror(url: str, path: Path) -> None:
    info: MirrorInfo = mirror_info(url)
    newest: MirrorCheckpoint = info.checkpoints[-1]
    report: RestoreReport = restore(url, path / "restored", newest.lsn)
    findings: list[MirrorFinding] = list(verify_mirror(url, probe=False))
    with follow(url, path / "copy") as follower:
        assert_type(follower, Follower)
        assert_type(follower.lag_s, float)
        follower.check()
    print(report.lsn, findings)
    restore(url)  # type: ignore[call-arg]
    follow(url, path, poll_s="1")  # type: ignore[arg-type]


def use_mirror_errors(error: Exception) -> MirrorReason | str | None:
    if isinstance(error, FencedError):
        return error.host
    if isinstance(error, SavePlaceError):
        return error.parent
    return error.reason if isinstance(error, MirrorError) else None

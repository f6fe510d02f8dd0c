"""Mirrored journals on real servers: S3, and NATS with JetStream."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest

from journal import FencedError, Journal, LockedError, Mirror, MirrorError, MirrorReason, Options
from tests.installed import import_package
from tests.mirror.servers import BUCKET, make_stream
from tests.mirror.stores import TIMEOUT_S, crash, records_in, write

pytestmark = pytest.mark.slow
SMALL = Options(segment_bytes=1 << 16)


@pytest.fixture(params=["s3", "nats"])
def url(request: pytest.FixtureRequest, fresh_name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of an empty mirror on a server."""
    if request.param == "nats":
        import_package("nats")
        address = request.getfixturevalue("nats_address")
        make_stream(address, f"{fresh_name}R")
        return f"nats://{address}/{fresh_name}R"
    import_package("obstore")
    for variable, value in request.getfixturevalue("s3").items():
        monkeypatch.setenv(variable, value)
    return f"s3://{BUCKET}/real/{fresh_name}"


@pytest.mark.parametrize("ack", ["local", "remote"])
def test_a_real_server_mirrors_a_journal(
    ack: Literal["local", "remote"], url: str, tmp_path: Path
) -> None:
    """Records of many threads reach the server. After a crash, the directory opens without a
    takeover, another one only with it, and the first writer is then fenced."""
    mirror = Mirror(url, ack=ack)
    journal = Journal.open(tmp_path / "a", options=SMALL, mirror=mirror)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write(journal, 100), range(8)))
    journal.wait_mirrored(timeout_s=TIMEOUT_S)
    crash(journal)
    with pytest.raises(LockedError, match="holds its mirror"):
        Journal.open(tmp_path / "b", options=SMALL, mirror=mirror)
    journal = Journal.open(tmp_path / "a", options=SMALL, mirror=mirror)
    with Journal.open(tmp_path / "b", options=SMALL, mirror=mirror, takeover=True) as other:
        assert other.last_lsn == 800
        with pytest.raises(FencedError):
            journal.wait_mirrored(journal.append("late"), timeout_s=TIMEOUT_S)
        with pytest.raises(FencedError):
            journal.close()
        write(other)
    with Journal.open(tmp_path / "c", options=SMALL, mirror=mirror) as third:
        assert third.last_lsn == 801
    assert records_in(tmp_path / "c") == 801


def test_a_missing_bucket_or_stream_is_an_error(url: str, tmp_path: Path) -> None:
    """An address without a bucket or stream raises a clear error at the open."""
    missing = url.replace(BUCKET, "no-such-bucket") if url.startswith("s3") else f"{url}X"
    with pytest.raises(MirrorError) as refused:
        Journal.open(tmp_path / "a", mirror=Mirror(missing, open_timeout_s=1))
    assert refused.value.reason is MirrorReason.REFUSED

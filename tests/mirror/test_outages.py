"""A follower whose mirror is unreachable for long."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from journal._mirror.store import UnreachableError
from tests.mirror.shipping_support import TIMEOUT_S, Mirrored
from tests.mirror.test_comparing import Counted
from tests.mirror.test_following import followed
from tests.support import until


def test_a_long_outage_delays_a_follower_by_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the mirror was unreachable, the follower asks for it again after a second."""
    store, pauses = Counted(), list[float]()
    mirrored = Mirrored(tmp_path / "a", store)
    assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)

    def fail(number: int) -> bytes:
        raise UnreachableError("the store is down")

    with followed(store, tmp_path / "b") as following:
        monkeypatch.setattr(store, "entry", fail)
        alarm = SimpleNamespace(sleep=pauses.append, wake=lambda: None)
        monkeypatch.setattr(following, "_alarm", alarm)
        following.start()
        until(lambda: len(pauses) > 20, "the follower asks again and again", TIMEOUT_S)
        assert max(pauses) == 1.0
    mirrored.close()

"""Weakenings of the time limits of opens and followers whose mirror does not answer."""

from __future__ import annotations

from proof.weakenings import Weakening

TIMEOUTS = ("tests/mirror/test_open_timeouts.py",)

ALL_OF = (
    Weakening(
        "open_gives_a_store_more_than_what_is_left",
        "journal/_mirror/attaching.py",
        "left_s = inf if until_s is None else until_s - time.monotonic()",
        "left_s = inf",
        TIMEOUTS,
    ),
    Weakening(
        "follower_gives_a_store_more_than_what_is_left",
        "journal/_engine/follower.py",
        "return call(until_s - time.monotonic())",
        "return call(10.0)",
        TIMEOUTS,
    ),
    Weakening(
        "bucket_is_opened_without_the_limit_of_the_open",
        "journal/_mirror/object_store.py",
        "first = opened if open_s >= timeout_s else cls._connected(url, open_s)",
        "first = opened",
        TIMEOUTS,
    ),
    Weakening(
        "stream_keeps_the_limit_of_the_open",
        "journal/_mirror/jetstream_store.py",
        "            self._timeout_s = timeout_s\n",
        "            pass\n",
        TIMEOUTS,
    ),
    Weakening(
        "store_is_opened_in_no_time",
        "journal/_mirror/urls.py",
        "min(max(open_s, _OPEN_S_MIN), timeout_s)",
        "min(open_s, timeout_s)",
        TIMEOUTS,
    ),
    Weakening(
        "follower_pauses_longer_and_longer",
        "journal/_mirror/following.py",
        "_RETRY_S_MAX = 1.0",
        "_RETRY_S_MAX = 5.0",
        ("tests/mirror/test_outages.py",),
    ),
)

"""Measure how long an update holds the owner's lock, beside the time to unpack its record.

A plain record is packed and unpacked under the lock; a packed one (`journal.pack`) is packed before
that. The state keeps the newest records. Unpacking alone is measured with as many records kept, and
with none. With --before, another version is measured as well. Each round is a process of its own,
and rounds of the two versions alternate. Other load on the machine only adds time, so the result is
the minimum of the rounds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import holding
from bench.figures import Bar, at_most
from bench.machine import about
from bench.output import parsed, parser_of, show

ROOT = Path(__file__).resolve().parents[2]


def measure_round(checkout: Path, directory: Path | None) -> dict[str, float]:
    command = [sys.executable, "-P", holding.__file__, *([str(directory)] if directory else [])]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    times_ns: dict[str, float] = json.loads(done.stdout)
    return times_ns


def minimum(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: min(times_ns[key] for times_ns in rounds) for key in rounds[0]}


def lines(results: dict[str, Any]) -> Iterator[str]:
    for version in ("before", "now"):
        if version in results:
            times_ns = results[version]
            yield (
                f"{version:8}held {times_ns['plain_ns']:,.0f} ns for a plain record, "
                f"{times_ns['packed_ns']:,.0f} ns for a packed one; unpackb alone takes "
                f"{times_ns['unpackb_ns']:,.0f} ns, {times_ns['unpackb_kept_ns']:,.0f} ns if "
                "records are kept"
            )


def bars(results: dict[str, Any]) -> Iterator[Bar]:
    """Yield bars for the holds beside those of the other version, if there is one.

    The hold may be longer by the time to unpack and 200 ns for a plain record, and by 150 ns for a
    packed one.
    """
    if "before" in results:
        now, before = results["now"], results["before"]
        plain_ns = before["plain_ns"] + now["unpackb_ns"] + 200
        yield at_most("held for a plain record", now["plain_ns"], plain_ns, "ns")
        yield at_most("held for a packed record", now["packed_ns"], before["packed_ns"] + 150, "ns")


def main(arguments: list[str]) -> int:
    parser = parser_of("hold", __doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--before", type=Path, metavar="CHECKOUT", help="a checkout of the version to compare with"
    )
    options = parsed(parser, arguments)
    checkouts = {"before": options.before, "now": ROOT}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name, at in checkouts.items() if at}
    for _ in range(options.rounds):
        for name, measured in rounds.items():
            measured.append(measure_round(checkouts[name], options.dir))
    results = {**{name: minimum(each) for name, each in rounds.items()}, "rounds": rounds}
    return show("hold", options, about(), results, lines(results), bars(results))

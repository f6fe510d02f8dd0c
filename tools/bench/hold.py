"""How long an update holds the owner's lock, beside what unpacking its record takes.

A plain record is packed and unpacked under the lock, a packed one (`journal.pack`) before. The
state keeps the newest records; unpacking alone is measured with as many kept, and with none. With
--before it is measured beside another version, too. Each round is a process of its own; rounds of
the two versions alternate. What else the machine does only adds, so the least of the rounds counts.
"""

from __future__ import annotations

import argparse
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
from bench.output import parsed, show

ROOT = Path(__file__).resolve().parents[2]


def a_round(checkout: Path, directory: Path | None) -> dict[str, float]:
    command = [sys.executable, "-P", holding.__file__, *([str(directory)] if directory else [])]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def least(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: min(found[key] for found in rounds) for key in rounds[0]}


def lines(found: dict[str, Any]) -> Iterator[str]:
    for version in ("before", "now"):
        if version in found:
            it = found[version]
            yield (
                f"{version:8}held {it['plain_ns']:,.0f} ns for a plain record, "
                f"{it['packed_ns']:,.0f} ns for a packed one; unpackb alone takes "
                f"{it['unpackb_ns']:,.0f} ns, {it['unpackb_kept_ns']:,.0f} ns if records are kept"
            )


def bars(found: dict[str, Any]) -> Iterator[Bar]:
    if "before" in found:
        now, before = found["now"], found["before"]
        plain_ns = before["plain_ns"] + now["unpackb_ns"] + 200
        yield at_most("held for a plain record", now["plain_ns"], plain_ns, "ns")
        yield at_most("held for a packed record", now["packed_ns"], before["packed_ns"] + 150, "ns")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python tools/bench hold",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another version")
    options = parsed(parser, arguments)
    checkouts = {"before": options.before, "now": ROOT}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name, at in checkouts.items() if at}
    for _ in range(options.rounds):
        for name, so_far in rounds.items():
            so_far.append(a_round(checkouts[name], options.dir))
    found = {**{name: least(each) for name, each in rounds.items()}, "rounds": rounds}
    return show("hold", options, about(), found, lines(found), bars(found))

"""mirror list, mirror verify: show the contents of a mirror, and check them."""

from __future__ import annotations

from collections.abc import Iterator

import click
from _journal_console.exits import CORRUPT, FINE, NEGATIVE
from _journal_console.text import count_of, escaped, painted, put_facts, put_lines

from journal import MirrorFinding, MirrorInfo, mirror_info, verify_mirror
from journal_inspect.rendering.messages import say
from journal_inspect.rendering.objects import (
    JSON,
    as_object,
    dumps,
    put_objects,
    put_one,
    versioned,
)
from journal_inspect.rendering.progress import counter
from journal_inspect.rendering.renderer import Renderer

_EXITS = {"damage": CORRUPT, "gap": NEGATIVE, "store": NEGATIVE, "stray": FINE}


def show_mirror(url: str, renderer: Renderer) -> int:
    """Show the contents of a mirror, from its names and its last entry."""
    try:
        info = mirror_info(url)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if renderer.form != "text":
        put_one(_object(info))
        return FINE
    newest = ", ".join(f"LSN {each.lsn}" for each in info.checkpoints[-2:])
    writer = f"process {info.pid} on {info.host}, epoch {info.epoch}"
    put_facts(
        [
            ("mirror", info.url),
            ("journal", info.journal_id),
            ("application", info.application or "none"),
            ("restorable", f"LSN {info.first_lsn} to {info.last_lsn}"),
            ("checkpoints", f"{len(info.checkpoints)}{'; the newest: ' * bool(newest)}{newest}"),
            ("objects", f"{info.entries} entries, {info.roll_ups} roll-ups"),
            ("writer", f"{writer}, since {renderer.time(round(info.since * 1e9))}"),
            ("held", "yes: another writer has to take over" if info.held else "no"),
        ]
    )
    return FINE


def verify(url: str, renderer: Renderer, *, probe: bool) -> int:
    """Print each problem as soon as it is found, then a summary. Return the exit code."""
    found: list[MirrorFinding] = []

    def findings() -> Iterator[MirrorFinding]:
        with counter("verify") as progress:
            for finding in verify_mirror(url, probe=probe, progress=progress):
                found.append(finding)
                yield finding

    objects: list[JSON] = []
    try:
        if renderer.form == "text":
            put_lines(map(_line, findings()))
        elif renderer.form == "jsonl":
            put_objects(map(as_object, findings()), renderer.form)
        else:
            objects = list(map(as_object, findings()))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if renderer.form == "text":
        print(count_of(len(found), "finding") if found else "no findings")
    else:
        summary = versioned(kind="summary", findings_count=len(found))
        print(dumps(summary | {"findings": objects} if renderer.form == "json" else summary))
    if any(finding.kind == "damage" for finding in found):
        say(
            "the mirror is damaged; a writer whose directory is whole can begin a new one at "
            "another address; restore what is left with --lsn or --at"
        )
    return max((_EXITS[finding.kind] for finding in found), default=FINE)


def _line(finding: MirrorFinding) -> str:
    return f"{painted(finding.kind, f'{finding.kind:<8}')}{escaped(finding.message)}"


def _object(info: MirrorInfo) -> JSON:
    checkpoints = [{"lsn": each.lsn, "made_at_ms": each.made_at_ms} for each in info.checkpoints]
    return as_object(info) | {"checkpoints": checkpoints}

"""What stands in a report: words, numbers, places on the time axis, as the template takes them."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from journal import Finding, foresee
from journal_inspect.diagnosis.recovery import durable_lsn
from journal_inspect.rendering.look import REDACTED
from journal_inspect.rendering.text import escaped, size, some
from journal_inspect.report.axis import (
    LABELLED,
    TICK_STEPS_MS,
    TICKS_MAX,
    WIDTH_MIN,
    YEAR_MS,
    Axis,
    duration,
    percent,
)
from journal_inspect.report.data import Observed, Step
from journal_inspect.report.fleet import TOLD, FleetTimeline, Life

STATUSES = (
    *("running", "queued", "interrupted"),
    *("failed", "budget_exhausted", "cancelled", "completed"),
)
ERRORS = ("failed", "interrupted", "budget_exhausted")
ERRORS_MAX = 50
KINDS_MAX = 12
ROWS_MAX = 100  # of segments, and of checkpoints
_VERDICTS = {
    "corruption": ("Damaged", "What was acknowledged is damaged. Copy the directory first."),
    "torn_tail": (
        "Torn tail",
        "A crash left a commit unfinished. Nothing says that it was acknowledged.",
    ),
    "bad_checkpoint": (
        "Bad checkpoint",
        "A checkpoint does not verify. An older one, or the log, serves.",
    ),
    "stray": ("Whole", "Every segment and checkpoint verifies. Some files are not the journal's."),
    "": ("Whole", "Every segment and checkpoint verifies."),
}


def page(seen: Observed, *, redact: Collection[str], utc: bool) -> dict[str, object]:
    """All of the template's names and what they stand for."""
    log = seen.log
    lives = list(log.fleet.by_family()) if log.fleet else []
    times = [log.commits.first_ms, log.commits.last_ms] if log.commits.total.commits else []
    times += [ms for life in lives for _, begin, end in life.spans for ms in (begin, end)]
    axis = Axis(
        min(times, default=seen.observed_at_ms), max(times, default=seen.observed_at_ms), utc=utc
    )
    told = [_told(life, redact) for life in lives]
    verdict = next(kind for kind in _VERDICTS if not kind or seen.findings.counts[kind])
    return {
        "path": escaped(seen.path),
        "name": escaped(Path(seen.path).name),
        "made_at": axis.stamp(seen.observed_at_ms),
        "zone": axis.zone,
        "verdict": verdict or "whole",
        "verdict_words": _VERDICTS[verdict],
        "next_open": _next_open(seen, lives),
        "command": _command("verify", seen),
        "facts": _facts(seen, axis),
        "findings": [_finding(it) for it in seen.findings.first],
        "findings_left": seen.findings.counts.total() - len(seen.findings.first),
        "damage": [escaped(it) for it in dict.fromkeys(log.damage)],
        "ticks": axis.ticks(),
        "fleet": log.fleet and _fleet(log.fleet, lives, told, axis),
        "fleet_lsn": log.last_lsn if seen.is_damaged else 0,
        "errors": _errors(lives, told, axis),
        "charts": _charts(seen, axis),
        "kinds": [] if log.fleet else _kinds(seen, axis),
        "segments": _segments(seen),
        "checkpoints": _checkpoints(seen, axis),
        "data": {
            "begin": axis.begin_ms,
            "span": axis.span_ms,
            "offset": axis.offset_ms,
            "zone": axis.zone,
            "step": log.commits.step_ms,
            "ticks": [TICKS_MAX, YEAR_MS, *TICK_STEPS_MS],
            "labelled": LABELLED,
            "width": WIDTH_MIN,
            "boots": [at_ms - axis.begin_ms for at_ms in log.fleet.boots] if log.fleet else [],
            "fields": TOLD,
            "agents": [
                [*values, life.depth, [_from(axis, span) for span in life.spans]]
                for life, values in zip(lives, told, strict=True)
            ],
        },
    }


def _from(axis: Axis, span: tuple[str, int, int]) -> tuple[str, int, int]:
    kind, begin_ms, end_ms = span
    return kind, begin_ms - axis.begin_ms, end_ms - axis.begin_ms


# --- agents ---


def _told(life: Life, redact: Collection[str]) -> list[Any]:
    return [REDACTED if name in redact else _safe(life.agent[name]) for name in TOLD]


def _safe(value: Any) -> Any:
    """Text whose lines are kept, and of which nothing else is obeyed, by any screen."""
    if not isinstance(value, str) or value.isprintable():
        return value
    lines = value.replace("\r\n", "\n").expandtabs(4).split("\n")
    return "\n".join(map(escaped, lines))


def _field(values: list[Any], name: str) -> Any:
    return values[TOLD.index(name)]


def _fleet(
    fleet: FleetTimeline, lives: list[Life], told: list[list[Any]], axis: Axis
) -> dict[str, object]:
    counts = Counter(life.agent["status"] for life in fleet.lives.values())
    return {
        "total": some(len(lives), "agent"),
        "left": len(fleet.lives) > len(lives) and some(len(fleet.lives) - len(lives), "agent"),
        "removed": fleet.removed and some(fleet.removed, "agent"),
        "unknown": fleet.unknown and some(fleet.unknown, "record"),
        "counts": [(status, counts[status]) for status in STATUSES if counts[status]],
        "rows": [
            {
                "status": _field(values, "status"),
                "look": life.agent["status"] if life.agent["status"] in STATUSES else "other",
                "name": _field(values, "name"),
                "depth": life.depth,
                "bars": [
                    (kind, axis.place(begin_ms), axis.width(begin_ms, end_ms))
                    for kind, begin_ms, end_ms in life.spans
                ],
            }
            for life, values in zip(lives, told, strict=True)
        ],
    }


def _errors(lives: list[Life], told: list[list[Any]], axis: Axis) -> dict[str, object]:
    """The newest first."""
    found = [row for row, life in enumerate(lives) if life.agent["status"] in ERRORS]
    found.sort(key=lambda row: lives[row].agent["updated_at_ms"], reverse=True)
    return {
        "total": len(found),
        "first": [
            {
                "row": row,
                "status": lives[row].agent["status"],
                "name": _field(told[row], "name"),
                "at": axis.stamp(lives[row].agent["updated_at_ms"]),
                "reason": _field(told[row], "reason") or "no reason given",
                "was_cut_off": lives[row].was_cut_off,
            }
            for row in found[:ERRORS_MAX]
        ],
    }


# --- commits ---


def _charts(seen: Observed, axis: Axis) -> list[dict[str, object]]:
    commits = seen.log.commits
    if not commits.total.commits:
        return []
    steps, step = commits.steps(), duration(commits.step_ms).removeprefix("1 ")
    counted, most = axis.bars(steps, commits.step_ms, lambda it: [("all", it.commits)])
    sizes, largest = axis.bars(
        steps,
        commits.step_ms,
        lambda it: [("largest", it.largest), ("mean", it.records / it.commits)],
    )
    total, mean = commits.total, commits.total.records / commits.total.commits
    return [
        {
            "title": f"Commits per {step}",
            "top": f"{most:.0f}",
            "words": f"{some(total.commits, 'commit')}, at most {most:.0f} per {step}",
            "bars": counted,
        },
        {
            "title": "Records in a commit: filled, the mean; outlined, the largest",
            "top": f"{largest:.0f}",
            "words": f"{some(total.records, 'record')}, {mean:.1f} in a commit, "
            f"at most {total.largest}",
            "bars": sizes,
        },
    ]


def _kinds(seen: Observed, axis: Axis) -> list[dict[str, object]]:
    commits = seen.log.commits
    kinds = []
    for kind, count in commits.total.kinds.most_common(KINDS_MAX):

        def of_kind(step: Step, kind: str = kind) -> list[tuple[str, float]]:
            return [("all", step.kinds[kind])]

        bars, top = axis.bars(commits.steps(), commits.step_ms, of_kind)
        share = percent(count, commits.total.records)
        kinds.append(
            {
                "name": escaped(kind),
                "count": count,
                "top": f"{top:.0f}",
                "share": share,
                "bars": bars,
            }
        )
    return kinds


# --- the journal ---


def _next_open(seen: Observed, lives: list[Life]) -> list[str]:
    """What recovery would do, a sentence each."""
    plan = seen.recovery
    said = []
    if seen.writer_pid is not None:
        who = f"Process {seen.writer_pid}" if seen.writer_pid else "A live process"
        said.append(f"{who} has it open, so nothing is to be recovered. Were it to end now:")
    if plan.refused:
        said.append(f"Refuses, and changes nothing: {escaped(plan.refused)}.")
        return [
            *said,
            f"What can be saved is told, and nothing changed, by: {_command('repair', seen)}",
        ]
    begin = (
        "Starts from nothing"
        if plan.checkpoint_lsn is None
        else f"Takes the checkpoint at LSN {plan.checkpoint_lsn}"
    )
    said.append(f"{begin}, then replays {some(plan.records, 'record')}.")
    last_path = seen.segments[-1].path if seen.segments else ""
    for finding in seen.findings.first:
        if finding.kind == "torn_tail" and finding.path == last_path:
            said.append(f"Leaves a torn tail of {size(finding.size_bytes)} behind.")
    cut_off = sum(life.was_cut_off for life in lives)
    if running := sum(life.agent["status"] == "running" for life in lives):
        said.append(f"Interrupts {some(running, 'agent')}, which run{'s' * (running == 1)} now.")
    elif cut_off:
        said.append(f"Interrupts {some(cut_off, 'agent')}, which ran when the process ended.")
    return said


def _command(verb: str, seen: Observed) -> str:
    return f"journal-inspect {verb} {escaped(shlex.quote(seen.path))}"


def _facts(seen: Observed, axis: Axis) -> list[tuple[str, str]]:
    segments, newest = seen.segments, next(iter(seen.checkpoints), None)
    epochs = sorted({it.epoch for it in segments})
    first_lsn = next((it.first_lsn for it in segments if it.last_lsn), 0)
    last_lsn = foresee(segments, seen.checkpoints).last_lsn
    total = sum(it.size_bytes for it in segments) + sum(it.size_bytes for it in seen.checkpoints)
    pid, commits, fleet = seen.writer_pid, seen.log.commits, seen.log.fleet
    application = newest.application if newest else fleet.application if fleet else ""
    kept = f"{first_lsn} to {last_lsn}" if first_lsn else "none"
    return [
        ("Journal id", escaped(seen.journal_id or "none yet")),
        ("Application", escaped(application) or "not said"),
        ("Writer", "none" if pid is None else f"process {pid}" if pid else "a live process"),
        ("Epochs", f"{epochs[0]} to {epochs[-1]}" if epochs else "none yet"),
        ("LSNs", f"{kept}, durable up to {durable_lsn(segments, seen.checkpoints)}"),
        ("Last good LSN", str(seen.findings.last_good_lsn)),
        ("First commit kept", axis.stamp(commits.first_ms) if commits.total.commits else "none"),
        ("Last commit", axis.stamp(commits.last_ms) if commits.total.commits else "none"),
        ("Size on disk", size(total)),
    ]


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "kind": finding.kind,
        "file": escaped(Path(finding.path).name),
        "offset": finding.offset,
        "lsn": finding.lsn or "-",
        "size": size(finding.size_bytes),
        "message": escaped(finding.message),
    }


def _segments(seen: Observed) -> dict[str, object]:
    largest = max((it.size_bytes for it in seen.segments), default=0)
    shown = seen.segments[-ROWS_MAX:]
    return {
        "left": len(seen.segments) - len(shown),
        "shown": [
            {
                "name": escaped(Path(it.path).name),
                "state": it.state,
                "epoch": it.epoch,
                "lsns": f"{it.first_lsn} to {it.last_lsn}" if it.last_lsn else "none",
                "frames": it.frames,
                "size": size(it.size_bytes),
                "share": percent(it.size_bytes, largest),
            }
            for it in shown
        ],
    }


def _checkpoints(seen: Observed, axis: Axis) -> list[dict[str, object]]:
    largest = max((it.size_bytes for it in seen.checkpoints), default=0)
    return [
        {
            "name": escaped(Path(it.path).name),
            "lsn": it.lsn,
            "count": it.count,
            "created": axis.stamp(it.created_at_ms),
            "size": size(it.size_bytes),
            "share": percent(it.size_bytes, largest),
        }
        for it in seen.checkpoints[:ROWS_MAX]
    ]

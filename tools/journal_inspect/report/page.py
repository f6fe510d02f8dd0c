"""The contents of a report: texts, numbers and positions on the time axis, for the template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from _journal_console.text import count_of, cut, escaped, one_line, size

from journal import Finding, preview_recovery
from journal_inspect.diagnosis.recovery import durable_lsn
from journal_inspect.rendering.messages import command
from journal_inspect.rendering.renderer import REDACTED
from journal_inspect.report.axis import (
    LABELED,
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
from journal_inspect.report.next_open import next_open

STATUSES = (
    *("running", "queued", "interrupted"),
    *("failed", "budget_exhausted", "cancelled", "completed"),
)
ERRORS = ("failed", "interrupted", "budget_exhausted")
ERRORS_MAX = 50
_LABEL_WIDTH = 80  # columns of a prompt in place of a name
KINDS_MAX = 12
ROWS_MAX = 100  # of the table of segments, and of that of checkpoints
_VERDICTS = {
    "corruption": ("Damaged", "Acknowledged records are damaged. Copy the directory first."),
    "torn_tail": (
        "Torn tail",
        "A crash left a commit unfinished. Nothing shows that it was acknowledged.",
    ),
    "bad_checkpoint": (
        "Bad checkpoint",
        "A checkpoint does not verify. An open uses an older one, or the log.",
    ),
    "stray": ("Whole", "Every segment and checkpoint verifies. Stray files are in the directory."),
    "": ("Whole", "Every segment and checkpoint verifies."),
}
_MARKER_DAMAGED = "Damaged", "The file MIRROR is damaged. Every segment and checkpoint verifies."


def page(observed: Observed, *, redact: Collection[str], utc: bool) -> dict[str, object]:
    """Return the values of all names in the template."""
    log, is_only_marker_damaged = observed.log, observed.is_only_marker_damaged
    lives = list(log.fleet.by_family()) if log.fleet else []
    times = [log.commits.first_ms, log.commits.last_ms] if log.commits.total.commits else []
    times += [ms for life in lives for _, begin, end in life.spans for ms in (begin, end)]
    axis = Axis(
        min(times, default=observed.observed_at_ms),
        max(times, default=observed.observed_at_ms),
        utc=utc,
    )
    rows_shown = [_life_row(life, redact) for life in lives]
    verdict = next(kind for kind in _VERDICTS if not kind or observed.findings.counts[kind])
    return {
        "path": escaped(observed.path),
        "name": escaped(Path(observed.path).name),
        "made_at": axis.stamp(observed.observed_at_ms),
        "zone": axis.zone,
        "verdict": verdict or "whole",
        "verdict_words": _MARKER_DAMAGED if is_only_marker_damaged else _VERDICTS[verdict],
        "next_open": next_open(observed, lives),
        "command": escaped(command("verify", observed.path)),
        "facts": _facts(observed, axis),
        "findings": [_finding(each) for each in observed.findings.first],
        "findings_left": observed.findings.counts.total() - len(observed.findings.first),
        "damage": [escaped(each) for each in dict.fromkeys(log.damage)],
        "ticks": axis.ticks(),
        "fleet": log.fleet and _fleet(log.fleet, lives, rows_shown, axis),
        "fleet_lsn": log.last_lsn if observed.is_damaged and not is_only_marker_damaged else 0,
        "errors": _errors(lives, rows_shown, axis),
        "charts": _charts(observed, axis),
        "kinds": [] if log.fleet else _kinds(observed, axis),
        "segments": _segments(observed),
        "checkpoints": _checkpoints(observed, axis),
        "data": {
            "begin": axis.begin_ms,
            "span": axis.span_ms,
            "offset": axis.offset_ms,
            "zone": axis.zone,
            "step": log.commits.step_ms,
            "ticks": [TICKS_MAX, YEAR_MS, *TICK_STEPS_MS],
            "labelled": LABELED,
            "width": WIDTH_MIN,
            "boots": [at_ms - axis.begin_ms for at_ms in log.fleet.boots] if log.fleet else [],
            "fields": TOLD,
            "agents": [
                [*values, life.depth, [_from(axis, span) for span in life.spans]]
                for life, values in zip(lives, rows_shown, strict=True)
            ],
        },
    }


def _from(axis: Axis, span: tuple[str, int, int]) -> tuple[str, int, int]:
    kind, begin_ms, end_ms = span
    return kind, begin_ms - axis.begin_ms, end_ms - axis.begin_ms


# --- agents ---


def _life_row(life: Life, redact: Collection[str]) -> list[Any]:
    return [REDACTED if name in redact else _safe(life.agent[name]) for name in TOLD]


def _safe(value: Any) -> Any:
    """Return `value`. In a text, escape control characters, but keep the line breaks."""
    if not isinstance(value, str) or value.isprintable():
        return value
    lines = value.replace("\r\n", "\n").expandtabs(4).split("\n")
    return "\n".join(map(escaped, lines))


def _field(values: list[Any], name: str) -> Any:
    return values[TOLD.index(name)]


def _label(values: list[Any]) -> str:
    """Return the agent's name, or the beginning of its prompt if it has only an id. The prompt of a
    task is its command."""
    name: str = _field(values, "name")
    prompt = _field(values, "prompt")
    if name != _field(values, "agent_id") or not isinstance(prompt, str) or prompt == REDACTED:
        return name
    return cut(one_line(prompt), _LABEL_WIDTH) or name


def _fleet(
    fleet: FleetTimeline, lives: list[Life], rows_shown: list[list[Any]], axis: Axis
) -> dict[str, object]:
    counts = Counter(life.agent["status"] for life in fleet.lives.values())
    return {
        "total": count_of(len(lives), "agent"),
        "left": len(fleet.lives) > len(lives) and count_of(len(fleet.lives) - len(lives), "agent"),
        "removed": fleet.removed and count_of(fleet.removed, "agent"),
        "unknown": fleet.unknown and count_of(fleet.unknown, "record"),
        "counts": [(status, counts[status]) for status in STATUSES if counts[status]],
        "rows": [
            {
                "status": _field(values, "status"),
                "look": life.agent["status"] if life.agent["status"] in STATUSES else "other",
                "name": _label(values),
                "depth": life.depth,
                "bars": [
                    (kind, axis.place(begin_ms), axis.width(begin_ms, end_ms))
                    for kind, begin_ms, end_ms in life.spans
                ],
            }
            for life, values in zip(lives, rows_shown, strict=True)
        ],
    }


def _errors(lives: list[Life], rows_shown: list[list[Any]], axis: Axis) -> dict[str, object]:
    """Return the agents with a status in ERRORS, the last changed first."""
    failures = [row for row, life in enumerate(lives) if life.agent["status"] in ERRORS]
    failures.sort(key=lambda row: lives[row].agent["updated_at_ms"], reverse=True)
    return {
        "total": len(failures),
        "first": [
            {
                "row": row,
                "status": lives[row].agent["status"],
                "name": _label(rows_shown[row]),
                "at": axis.stamp(lives[row].agent["updated_at_ms"]),
                "reason": _field(rows_shown[row], "reason") or "no reason given",
                "was_cut_off": lives[row].was_cut_off,
            }
            for row in failures[:ERRORS_MAX]
        ],
    }


# --- commits ---


def _charts(observed: Observed, axis: Axis) -> list[dict[str, object]]:
    commits = observed.log.commits
    if not commits.total.commits:
        return []
    steps, step = commits.steps(), duration(commits.step_ms).removeprefix("1 ")
    counted, most = axis.bars(steps, commits.step_ms, lambda each: [("all", each.commits)])
    sizes, largest = axis.bars(
        steps,
        commits.step_ms,
        lambda each: [("largest", each.largest), ("mean", each.records / each.commits)],
    )
    total, mean = commits.total, commits.total.records / commits.total.commits
    return [
        {
            "title": f"Commits per {step}",
            "top": f"{most:.0f}",
            "words": f"{count_of(total.commits, 'commit')}, at most {most:.0f} per {step}",
            "bars": counted,
        },
        {
            "title": "Records per commit (filled: the mean, outlined: the largest)",
            "top": f"{largest:.0f}",
            "words": f"{count_of(total.records, 'record')}, {mean:.1f} per commit, "
            f"at most {total.largest} in one",
            "bars": sizes,
        },
    ]


def _kinds(observed: Observed, axis: Axis) -> list[dict[str, object]]:
    commits = observed.log.commits
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


def _facts(observed: Observed, axis: Axis) -> list[tuple[str, str]]:
    segments, newest = observed.segments, next(iter(observed.checkpoints), None)
    epochs = sorted({file.epoch for file in segments})
    first_lsn = next((file.first_lsn for file in segments if file.last_lsn), 0)
    last_lsn = preview_recovery(segments, observed.checkpoints).last_lsn
    total = sum(file.size_bytes for file in segments) + sum(
        file.size_bytes for file in observed.checkpoints
    )
    pid, commits, fleet = observed.writer_pid, observed.log.commits, observed.log.fleet
    application = newest.application if newest else fleet.application if fleet else ""
    kept = f"{first_lsn} to {last_lsn}" if first_lsn else "none"
    return [
        ("Journal id", escaped(observed.journal_id or "none yet")),
        ("Application", escaped(application) or "unknown"),
        ("Writer", "none" if pid is None else f"process {pid}" if pid else "a live process"),
        ("Epochs", f"{epochs[0]} to {epochs[-1]}" if epochs else "none yet"),
        ("LSNs", f"{kept}, durable up to {durable_lsn(segments, observed.checkpoints)}"),
        ("Last good LSN", str(observed.findings.last_good_lsn)),
        ("First commit kept", axis.stamp(commits.first_ms) if commits.total.commits else "none"),
        ("Last commit", axis.stamp(commits.last_ms) if commits.total.commits else "none"),
        ("Size on disk", size(total)),
        *([("Mirror", escaped(observed.mirror))] if observed.mirror else []),
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


def _segments(observed: Observed) -> dict[str, object]:
    largest = max((segment.size_bytes for segment in observed.segments), default=0)
    shown = observed.segments[-ROWS_MAX:]
    return {
        "left": len(observed.segments) - len(shown),
        "shown": [
            {
                "name": escaped(Path(segment.path).name),
                "state": segment.state,
                "epoch": segment.epoch,
                "lsns": f"{segment.first_lsn} to {segment.last_lsn}"
                if segment.last_lsn
                else "none",
                "frames": segment.frames,
                "size": size(segment.size_bytes),
                "share": percent(segment.size_bytes, largest),
            }
            for segment in shown
        ],
    }


def _checkpoints(observed: Observed, axis: Axis) -> list[dict[str, object]]:
    largest = max((checkpoint.size_bytes for checkpoint in observed.checkpoints), default=0)
    return [
        {
            "name": escaped(Path(checkpoint.path).name),
            "lsn": checkpoint.lsn,
            "count": checkpoint.count,
            "created": axis.stamp(checkpoint.created_at_ms),
            "size": size(checkpoint.size_bytes),
            "share": percent(checkpoint.size_bytes, largest),
        }
        for checkpoint in observed.checkpoints[:ROWS_MAX]
    ]

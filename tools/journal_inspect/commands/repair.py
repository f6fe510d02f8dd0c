"""repair: show what a repair would keep and cut, and with --apply do it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace

import click
from _journal_console.exits import CORRUPT, FINE, NEGATIVE
from _journal_console.text import count_of, put_facts, put_lines, table

from journal import (
    CompactedError,
    CutError,
    CutReason,
    DamageReason,
    JournalError,
    JournalReader,
    PutBackReport,
    RecoveryPreview,
    Refusal,
    RepairReport,
    repair,
)
from journal_inspect.commands import putting_back
from journal_inspect.commands.next_steps import WITHOUT_STEPS, advice_on, describe_copies
from journal_inspect.commands.reading import open_reader
from journal_inspect.diagnosis import damage
from journal_inspect.diagnosis.advice import Action
from journal_inspect.diagnosis.damage import AfterDamage, Loss, joined, read_after_damage
from journal_inspect.diagnosis.mirrored import advise_mirror
from journal_inspect.diagnosis.retention import describe_kept
from journal_inspect.exits import NothingFoundError
from journal_inspect.rendering.entries import is_managers
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.objects import JSON, as_object, put_one
from journal_inspect.rendering.renderer import Renderer

_PARTS_SHOWN = 5
_AGENTS_HEADER = ("LOST OF AGENT", "NAME", "RECORDS", "FIRST LSN", "LAST LSN", "KINDS")
_HEADER = ("LOST RECORDS", *_AGENTS_HEADER[3:])


def show_repair(
    path: str,
    renderer: Renderer,
    *,
    apply: bool,
    cut_at: int | None,
    salvage: bool,
    save_to: str | None,
    restore: bool,
    as_is: bool,
) -> int:
    """Show or apply a repair, under the lock. Return 3 if the journal is still damaged, and 1 if
    salvaged records could not be appended again."""
    _check_options(path, cut_at, save_to, restore=restore, as_is=as_is)
    owner = putting_back.owner_of(path, save_to, as_is=as_is) if restore else None
    salvage = salvage or restore
    report = _planned(path, cut_at, save_to, salvage=salvage)
    with open_reader(path) as reader:
        preview = damage.preview_of(reader) if report.problem else None
        after_damage = read_after_damage(reader, report.last_lsn, preview)
        _name_losses(after_damage, reader)
        of_agents = is_managers(reader)
        is_lost = report.problem and (after_damage.lost or after_damage.is_open_ended)
        findings = reader.verify() if is_lost and not apply else ()
        advice = None
        if corruptions := [finding for finding in findings if finding.kind == "corruption"]:
            advice = advice_on(reader, corruptions, preview, after_damage)
    marker = _damaged_marker(path) if report.problem is None else None
    is_cut = report.problem is not None or cut_at is not None
    if not is_cut:
        after_damage.losses.clear()
    if apply:
        report = repair(path, apply=True, cut_at=cut_at, salvage=salvage, save_to=save_to)
    restored = putting_back.pending(path, save_to) if owner else []
    if apply and owner:
        restored = putting_back.restore_all(path, restored, owner, as_is=as_is)
    shown = replace(report, refusal=marker) if marker else report
    if apply and report.problem:  # what the repair has fixed may have hidden a damaged marker
        marker = _damaged_marker(path)
    if renderer.form == "text":
        _put(shown, after_damage, is_cut, preview, restored)
        if is_cut and after_damage.unreadable:
            print("unreadable:", damage.describe_unreadable(after_damage, of_agents=of_agents))
    else:
        if shown.refusal and (shown.applied or not shown.problem):
            # The engine has no text for the marker, and its others say that nothing was changed.
            shown = replace(shown, problem=_problem(shown))
        put_one(_object(shown, after_damage, is_cut, renderer, restored))
    if advice and advice.copies:
        _advise(report, [describe_copies(path, advice)])
    options = ["--cut-at", str(cut_at)] * (cut_at is not None)
    options += ["--save-to", str(save_to)] * (save_to is not None)
    wanted = ["--restore", *["--as-is"] * as_is] if restore else ["--salvage"] * salvage
    if not marker or report.problem:
        _advise(report, _advice(report, is_cut, options, wanted, restored if owner else None))
    if report.salvaged_to and not restore:
        _advise(report, [putting_back.advise_restore(report.path, save_to)])
    if marker:
        _advise(report, [WITHOUT_STEPS[Action.REMOVE_MARKER]])
    if marker or (report.problem and not report.applied):
        return CORRUPT
    return NEGATIVE if any(each.refused for each in restored) else FINE


def _check_options(
    path: str, cut_at: int | None, save_to: str | None, *, restore: bool, as_is: bool
) -> None:
    """Raise UsageError for options that contradict each other or the path."""
    if as_is and not restore:
        raise click.UsageError("--as-is says how records are appended again: add --restore")
    if restore and cut_at is not None:
        raise click.UsageError("--restore would append again what --cut-at cuts off; give one")
    if save_to is not None:
        journal = os.path.realpath(path)
        if os.path.commonpath([journal, os.path.realpath(save_to)]) == journal:
            raise click.UsageError(f"--save-to {save_to} lies inside the journal; give another one")


def _planned(path: str, cut_at: int | None, save_to: str | None, *, salvage: bool) -> RepairReport:
    """Return the report of a repair that changes nothing. Raise an error with words for the user if
    `cut_at` is impossible."""
    try:
        # A dry run first, so that the losses are known before files are removed.
        return repair(path, cut_at=cut_at, salvage=salvage, save_to=save_to)
    except CompactedError as error:  # `cut_at` is before the first LSN at which a cut is possible
        with open_reader(path) as reader:
            first_lsn = reader.first_state_lsn
            raise NothingFoundError(
                f"{path}: --cut-at {cut_at} is before what is kept; {describe_kept(reader)}, and "
                f"an open needs everything up to LSN {first_lsn}; to cut there: "
                f"{command('repair', path, '--cut-at', first_lsn)}"
            ) from error
    except CutError as error:
        raise click.UsageError(_describe_cut(error)) from error
    except JournalError:
        raise
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _describe_cut(error: CutError) -> str:
    """Describe why a cut is impossible, and which cut near it is possible."""
    if error.reason is CutReason.AFTER_DAMAGE:
        return (
            f"--cut-at {error.cut_at} lies after damage that only a later checkpoint covers; cut "
            f"at LSN {error.at_least} at least, or {error.at_most} at most"
        )
    ends = [lsn for lsn in (error.at_most, error.at_least) if lsn is not None]
    nearest = (
        f"nearest are LSN {ends[0]} and {ends[1]}" if ends[1:] else f"nearest is LSN {ends[0]}"
    )
    return (
        f"--cut-at {error.cut_at} is not between two batches up to the last good LSN, "
        f"{error.good_lsn}; the {nearest}"
    )


def _damaged_marker(path: str) -> Refusal | None:
    """Return the damage of the file MIRROR, which no repair fixes; or None."""
    if not putting_back.has_mirror(path):
        return None  # a preview reads the whole journal
    with open_reader(path) as reader:
        refusal = reader.preview_recovery().refusal
    return refusal if refusal and refusal.reason is DamageReason.MIRROR_DAMAGED else None


def _name_losses(after_damage: AfterDamage, reader: JournalReader) -> None:
    """Add the names that agents had as of the last good LSN."""
    if not after_damage.losses or not is_managers(reader):
        return
    from manager import read_fleet

    with suppress(JournalError, LookupError, TypeError, ValueError):
        fleet = read_fleet(reader.path, at=after_damage.last_good_lsn)
        for agent in fleet.agents(include_archived=True):
            if loss := after_damage.losses.get(agent.agent_id):
                loss.name = loss.name or agent.name


def _put(
    report: RepairReport,
    after_damage: AfterDamage,
    is_cut: bool,
    preview: RecoveryPreview | None,
    restored: list[PutBackReport],
) -> None:
    lost = "none"
    if is_cut:
        lost = damage.describe_lost(after_damage)
        lost += f", {after_damage.unreadable} of them unreadable" if after_damage.lost else ""
    aside = preview.aside if preview else ()
    cut_away = [name for name in report.removed if name not in aside]
    is_state = preview and 0 < preview.checkpoint_lsn == report.last_lsn
    facts: list[tuple[str, object]] = [
        ("path", report.path),
        ("problem", _problem(report)),
        ("kept", f"up to LSN {report.last_lsn}{', from its checkpoint' * bool(is_state)}"),
        ("lost", lost),
        *[
            (
                "rebuilt" if report.applied else "rebuild",
                f"the header of {', '.join(report.rebuilt)}",
            )
        ]
        * bool(report.rebuilt),
        *[
            ("renamed" if report.applied else "rename", f"{old} to {new}")
            for old, new in report.renamed
        ],
        *[("set aside", ", ".join(aside))] * bool(aside),
        ("cut away", ", ".join(cut_away) or "no file"),
        ("salvageable", damage.describe_ranges(damage.merged(report.salvaged))),
    ]
    if report.saved_to:
        facts.append(("copied to", report.saved_to))
    if report.salvaged_to:
        facts.append(("salvaged to", report.salvaged_to))
    key = "restored" if report.applied else "to restore"
    facts += [(key, putting_back.describe(each)) for each in restored]
    put_facts(facts)
    if after_damage.losses:
        print()
        header = _AGENTS_HEADER if any(after_damage.losses) else _HEADER
        rows = (_row(each, loss)[-len(header) :] for each, loss in after_damage.losses.items())
        put_lines(table(header, rows, flexible=("KINDS", "NAME"), optional=("FIRST LSN",)))


def _problem(report: RepairReport) -> str:
    refusal = report.refusal
    if refusal is None:
        return "none: it opens as it is"
    lsn = f", LSN {refusal.lsn}" if refusal.lsn else ""
    return f"{refusal.path}: offset {refusal.offset}{lsn}: {refusal.what}"


def _row(agent_id: str | None, loss: Loss) -> tuple[object, ...]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in loss.kinds.most_common())
    name = None if loss.name == agent_id else loss.name
    return agent_id, name, loss.records, loss.first_lsn, loss.last_lsn, kinds


def _object(
    report: RepairReport,
    after_damage: AfterDamage,
    is_cut: bool,
    renderer: Renderer,
    restored: list[PutBackReport],
) -> JSON:
    return as_object(
        report,
        renamed=[{"old": old, "new": new} for old, new in report.renamed],
        first_lost_lsn=after_damage.first_lost_lsn if is_cut else None,
        last_lost_lsn=after_damage.last_lost_lsn if is_cut else None,
        readable=damage.as_json(after_damage.readable if is_cut else []),
        lost_by_agent=[
            {
                "agent_id": agent_id,
                "name": renderer.plain({"name": loss.name})["name"],
                "records": loss.records,
                "first_lsn": loss.first_lsn,
                "last_lsn": loss.last_lsn,
                "kinds": dict(loss.kinds),
            }
            for agent_id, loss in after_damage.losses.items()
        ],
        restored=putting_back.as_json(restored),
    )


def _describe_salvaged(report: RepairReport) -> str:
    """Describe the new LSNs and the old ones for which they stand: `LSN 1 to 3 = 7 to 9`."""
    parts, next_lsn = [], 1
    for first, last in joined(report.salvaged):
        new_last = next_lsn + last - first
        parts.append(f"{_span(next_lsn, new_last)} = {_span(first, last)}")
        next_lsn = new_last + 1
    more = f" and {len(parts) - _PARTS_SHOWN} more ranges" if parts[_PARTS_SHOWN:] else ""
    return f"LSN {', '.join(parts[:_PARTS_SHOWN])}{more}"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _advise(report: RepairReport, lines: Iterable[str]) -> None:
    for line in lines:
        say(f"{report.path}: {line}")


def _advice(
    report: RepairReport,
    is_cut: bool,
    options: list[str],
    wanted: list[str],
    restored: list[PutBackReport] | None,
) -> Iterator[str]:
    """Yield the results of the repair, and the next steps. `options`: --cut-at and --save-to as
    they were given. `wanted`: the same for the salvage. `restored`: None without --restore."""
    path = report.path
    if report.problem and (first := advise_mirror(path)):
        yield f"{first}; a repair makes the directory diverge from it"
    if restored == [] and not (report.salvaged and not report.applied):
        yield "no salvage of it is left to append again"
    if report.applied and not is_cut and not report.salvaged_to and not restored:
        yield "it opens as it is; there was nothing to repair"
        return
    if report.applied:
        yield f"repaired; check it again: {command('verify', path)}"
        if report.saved_to:
            saved_to = report.saved_to
            yield f"the files as they were are in {saved_to}; keep them until all is well"
        if report.salvaged_to:
            yield (
                f"the salvaged records, {_describe_salvaged(report)}: "
                f"{command('log', report.salvaged_to)}"
            )
        return
    if is_cut or (wanted and report.salvaged) or restored:
        yield (
            "nothing was changed; to repair it, copy the directory first, then: "
            f"{command('repair', path, *options, *wanted, '--apply')}"
        )
    else:
        yield "it opens as it is; there is nothing to repair"
    if report.salvaged and not wanted:
        yield (
            f"{count_of(len(report.salvaged), 'whole frame')} after the end can be written to a "
            f"separate journal: {command('repair', path, *options, '--salvage')}"
        )

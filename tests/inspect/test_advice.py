"""The advice of `verify` and `repair`, as a pure function of their findings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from journal_inspect.commands.next_steps import next_steps
from journal_inspect.diagnosis.advice import Action, Advice, advise

from journal import DamageReason, Finding, JournalReader, RecoveryPreview, Refusal
from tests.inspect.inspect_support import make

A, B, C, D = (f"{lsn:020d}-{2:010d}.seg" for lsn in (7, 16, 22, 31))
CHECKPOINT = "checkpoint-00000000000000000020.json"
HEALS = RecoveryPreview(None, 20, 45, False, (), 20)
REFUSES = RecoveryPreview("damaged", 20, 21, False, (), 20)
NO_START = RecoveryPreview("damaged", 0, 0, True, (), 0)
FIXABLE = RecoveryPreview("damaged", 20, 45, False, (), 20, None, 2)
UNMARKED = replace(
    HEALS,
    problem="damaged",
    refusal=Refusal(DamageReason.MIRROR_DAMAGED, "/j/MIRROR", 0, 0, "damaged", None),
)
LIVE = None  # with a live writer there is no preview


def finding(
    name: str = C,
    lsn: int = 22,
    *,
    kind: Literal["torn_tail", "corruption", "bad_checkpoint", "stray"] = "corruption",
    reason: DamageReason = DamageReason.FRAME_DAMAGED,
    header_of: str | None = None,
) -> Finding:
    return Finding(kind, f"/j/{name}", 0, lsn, 100, "in words", reason, header_of)


def misnamed(name: str, header_of: str, lsn: int = 22) -> Finding:
    return finding(name, lsn, reason=DamageReason.MISNAMED, header_of=header_of)


MARKER = finding("MIRROR", 0, reason=DamageReason.MIRROR_DAMAGED)

# Each row holds the findings, the preview, the other arguments of `advise`, and the advice.
ADVICE: dict[str, tuple[list[Finding], RecoveryPreview | None, dict[str, Any], Advice]] = {
    "a torn tail": ([finding(kind="torn_tail")], LIVE, {}, Advice(Action.NOTHING)),
    "a stray file": ([finding("notes", 0, kind="stray")], LIVE, {}, Advice(Action.MOVE_STRAYS)),
    "a damaged checkpoint": (
        [finding(CHECKPOINT, 20, kind="bad_checkpoint", reason=DamageReason.CHECKPOINT_DAMAGED)],
        LIVE, {}, Advice(Action.SEE_INFO)),
    "a newer checkpoint": (
        [finding(CHECKPOINT, 20, kind="bad_checkpoint", reason=DamageReason.NEWER_VERSION)],
        LIVE, {}, Advice(Action.UPGRADE)),
    "a damaged checkpoint, and a newer one": (
        [finding(CHECKPOINT, 20, kind="bad_checkpoint", reason=DamageReason.CHECKPOINT_DAMAGED),
         finding(CHECKPOINT, 20, kind="bad_checkpoint", reason=DamageReason.NEWER_VERSION)],
        LIVE, {}, Advice(Action.UPGRADE)),
    "damage that a checkpoint covers": (
        [finding(A, 9)], HEALS, {}, Advice(Action.RESUME_WRITING, checkpoint_lsn=20)),
    "swapped files that a checkpoint covers": (
        [misnamed(A, B, 7), misnamed(B, A, 16)], HEALS, {"taken": {A, B}},
        Advice(Action.RESUME_WRITING, checkpoint_lsn=20)),
    "stray segments": (
        [finding(B, 0, reason=DamageReason.FOREIGN)], REFUSES, {"is_salvageable": True},
        Advice(Action.SET_ASIDE)),
    "a checkpoint under a later name": (
        [finding(CHECKPOINT, 0, reason=DamageReason.MISNAMED)], REFUSES, {},
        Advice(Action.SET_ASIDE_COPY)),
    "a renamed checkpoint": (
        [finding(CHECKPOINT, 0, reason=DamageReason.MISNAMED)], FIXABLE, {}, Advice(Action.FIX)),
    "a stray segment in the place of the last one": (
        [finding(B, 0, reason=DamageReason.FOREIGN)], REFUSES, {"is_open_ended": True},
        Advice(Action.REPAIR, whole_lsn=15, checkpoint_lsn=20)),
    "stray segments beside a live writer": (
        [finding(B, 0)], LIVE, {}, Advice(Action.SET_ASIDE)),
    "damage with nothing readable after it": (
        [finding(lsn=25)], REFUSES, {},
        Advice(Action.REPAIR, whole_lsn=24, checkpoint_lsn=20)),
    "damage with readable frames after it": (
        [finding(D, 34), finding(lsn=25)], REFUSES, {"is_salvageable": True},
        Advice(Action.SALVAGE, whole_lsn=24, checkpoint_lsn=20)),
    "damage after a stray segment": (
        [finding(B, 0), finding(CHECKPOINT, 0), finding(D, 34)], REFUSES, {},
        Advice(Action.REPAIR, whole_lsn=15, checkpoint_lsn=20)),
    "damage beside a live writer": (
        [finding(lsn=25)], LIVE, {}, Advice(Action.REPAIR, whole_lsn=24)),
    "no start": (
        [finding(A, 7)], NO_START, {"is_salvageable": True},
        Advice(Action.RESTORE_BACKUP, whole_lsn=6)),
    "wrong names, or damaged headers": (
        [misnamed(C, D), misnamed(D, C, 31)], FIXABLE, {"taken": {B, C, D}},
        Advice(Action.FIX, whole_lsn=21, checkpoint_lsn=20)),
    "a wrong name beside a live writer": (
        [misnamed(D, C)], LIVE, {"taken": {A, B, D}}, Advice(Action.REPAIR, whole_lsn=21)),
    "a damaged marker": ([MARKER], UNMARKED, {}, Advice(Action.REMOVE_MARKER)),
    "a damaged marker beside a live writer": ([MARKER], LIVE, {}, Advice(Action.REMOVE_MARKER)),
    "a damaged marker, and damage that a checkpoint covers": (
        [finding(A, 9), MARKER], UNMARKED, {}, Advice(Action.REMOVE_MARKER)),
    "a damaged marker, and damage that no checkpoint covers": (
        [finding(lsn=25), MARKER], REFUSES, {},
        Advice(Action.REPAIR, whole_lsn=24, checkpoint_lsn=20)),
    "a copy in place of another file": (
        [misnamed(D, C, 31)], REFUSES, {"taken": {C, D}, "is_salvageable": True},
        Advice(Action.SALVAGE, copies=((D, C),), whole_lsn=30, checkpoint_lsn=20)),
    "a copy in place of a file, and no start": (
        [misnamed(D, C, 31)], NO_START, {"taken": {C, D}},
        Advice(Action.RESTORE_BACKUP, copies=((D, C),), whole_lsn=30)),
    "a copy under a name that lost nothing": (
        [misnamed(B, A, 0), finding(D, 34)], REFUSES, {"taken": {A, B, D}},
        Advice(Action.REPAIR, whole_lsn=15, checkpoint_lsn=20)),
    "two copies of a file that is gone": (
        [misnamed(C, A), misnamed(D, A, 31)], REFUSES, {"taken": {C, D}},
        Advice(Action.REPAIR, whole_lsn=21, checkpoint_lsn=20)),
}  # fmt: skip


@pytest.mark.parametrize(("findings", "preview", "known", "advice"), ADVICE.values(), ids=ADVICE)
def test_the_fields_of_findings_decide_the_advice(
    findings: list[Finding], preview: RecoveryPreview | None, known: dict[str, Any], advice: Advice
) -> None:
    """The advice follows from the fields of the findings, never from their words."""
    assert advise(findings, preview, **known) == advice


def test_every_action_is_advised_in_its_own_words(tmp_path: Path) -> None:
    """Every action occurs in the table, and no two actions have the same sentence."""
    assert {advice.action for *_, advice in ADVICE.values()} == set(Action)
    with JournalReader.open(make(tmp_path / "j")) as reader:
        sentences = {next_steps(reader, Advice(action)) for action in Action}
    assert len(sentences) == len(Action)

"""info: show the facts of a journal, its files, and what the next open would do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from _journal_console.exits import CORRUPT, FINE, NEGATIVE
from _journal_console.text import age, put_facts, put_lines, size, table

from journal import (
    Checkpoint,
    DamageReason,
    JournalReader,
    RecoveryPreview,
    SegmentInfo,
    UnsafePathError,
    preview_recovery,
)
from journal_inspect.diagnosis.damage import (
    Range,
    as_json,
    describe_ranges,
    merged,
    preview_of,
)
from journal_inspect.diagnosis.mirrored import mirror_of
from journal_inspect.diagnosis.recovery import durable_lsn, recovery_of
from journal_inspect.diagnosis.retention import list_files
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.objects import JSON, as_object, put_one, versioned
from journal_inspect.rendering.renderer import Renderer

_SEGMENTS = ("SEGMENT", "STATE", "EPOCH", "FIRST LSN", "LAST LSN", "DURABLE", "FRAMES", "SIZE")
_CHECKPOINTS = ("CHECKPOINT", "LSN", "EPOCH", "ITEMS", "SIZE", "CREATED", "AGE")
_OPTIONAL = ("FRAMES", "DURABLE", "EPOCH", "CREATED", "SIZE")  # on a narrow terminal


def show_info(reader: JournalReader, renderer: Renderer) -> int:
    sizes = _checkpoint_sizes(reader)
    segments, checkpoints = list_files(reader)
    verified = {checkpoint.path for checkpoint in checkpoints}
    bad = [path for path in sizes if path not in verified and Path(path).exists()]
    may_be_bad = bool(bad) or any(file.kind == "mirror" for file in reader.files())
    unsafe = _refused_place(reader)
    recovery = recovery_of(reader, segments, checkpoints, may_be_bad=may_be_bad, unsafe=unsafe)
    facts = _facts(reader, segments, checkpoints, sum(sizes[path] for path in bad))
    unreadable = merged(_unreadable(segments, facts["durable_lsn"]))
    if renderer.form == "text":
        # Nothing says how far the log went in a segment whose damage has no end.
        is_open_ended = any(not last for file in segments for _, last in file.unreadable)
        lines = _describe_facts(facts, unreadable, len(checkpoints), is_open_ended=is_open_ended)
        # The mirror replaces files, but does not make a directory safe.
        has_way = mirror_of(reader.path) is not None and not unsafe
        lines.append(("recovery", recovery.describe(has_mirror=has_way)))
        if recovery.refused and not unsafe and (preview := preview_of(reader)):
            lines.append(("repair", _describe_repair(preview)))
        put_facts(lines)
        _put_tables(segments, checkpoints, renderer)
    else:
        parts = {
            "segments": list(map(as_object, segments)),
            "checkpoints": list(map(as_object, checkpoints)),
            "recovery": asdict(recovery),
        }
        put_one(versioned(**facts, unreadable=as_json(unreadable), **parts))
    for path in bad:
        say(f"{path}: does not verify; see what is wrong with it: {command('verify', reader.path)}")
    if unsafe:
        raise unsafe
    if recovery.refused or any(segment.state in ("damaged", "stray") for segment in segments):
        say(f"{reader.path}: damaged; look closer with: {command('verify', reader.path)}")
        return CORRUPT if recovery.refused else NEGATIVE
    return FINE


def _refused_place(reader: JournalReader) -> UnsafePathError | None:
    """Return why an open refuses the directory, LOCK or MIRROR, whatever the log is, or None."""
    files = [Path(reader.path, name) for name in ("LOCK", "MIRROR")]
    may_be_odd = any(file.is_symlink() or (file.exists() and not file.is_file()) for file in files)
    with suppress(FileNotFoundError):  # it was moved meanwhile
        if may_be_odd or Path(reader.path).stat().st_mode & 0o022:
            try:
                reader.preview_recovery()  # it looks at these first
            except UnsafePathError as error:
                return error
    return None


def _unreadable(segments: list[SegmentInfo], durable_lsn: int) -> Iterator[Range]:
    """Yield the ranges of LSNs that can't be read. A range without a known end is taken to end at
    `durable_lsn`."""
    for segment in segments:
        for first_lsn, last_lsn in segment.unreadable:
            yield first_lsn, last_lsn or max(first_lsn, durable_lsn)


def _checkpoint_sizes(reader: JournalReader) -> dict[str, int]:
    """Return the size of each file with a checkpoint's name, whether it verifies or not."""
    sizes = {}
    for file in reader.files():
        if file.kind == "checkpoint":
            with suppress(FileNotFoundError):  # compacted meanwhile
                sizes[file.path] = Path(file.path).stat().st_size
    return sizes


def _describe_repair(preview: RecoveryPreview) -> str:
    if preview.refusal and preview.refusal.reason is DamageReason.MIRROR_DAMAGED:
        return "would not help: only the file MIRROR keeps it from opening"
    if preview.has_no_start:
        return "impossible: neither a checkpoint nor the beginning of the log is left"
    return f"would keep everything up to LSN {preview.last_lsn}"


def _facts(
    reader: JournalReader,
    segments: list[SegmentInfo],
    checkpoints: list[Checkpoint],
    bad_bytes: int,
) -> dict[str, JSON]:
    first_lsn = next((segment.first_lsn for segment in segments if segment.last_lsn), None)
    newest = checkpoints[0] if checkpoints else None
    return {
        "path": reader.path,
        "format_version": reader.format_version,
        "journal_id": reader.journal_id or (newest.journal_id if newest else None),
        "application": newest.application if newest else None,
        "writer_pid": reader.writer_pid,
        "epochs": sorted({segment.epoch for segment in segments}),
        "first_lsn": first_lsn,
        "last_lsn": preview_recovery(segments, checkpoints).last_lsn,
        "durable_lsn": durable_lsn(segments, checkpoints),
        "disk_bytes": sum(file.size_bytes for file in segments)
        + sum(file.size_bytes for file in checkpoints)
        + bad_bytes,
    }


def _describe_facts(
    facts: dict[str, JSON], unreadable: list[Range], checkpoints: int, *, is_open_ended: bool
) -> list[tuple[str, JSON]]:
    epochs, first_lsn, pid = facts["epochs"], facts["first_lsn"], facts["writer_pid"]
    kept = "none" if first_lsn is None else f"{first_lsn} to {facts['last_lsn']}"
    is_empty = not epochs and not facts["durable_lsn"]
    empty = "; the journal is empty: it has no segment" * is_empty
    if unreadable:
        kept += f", unreadable: {describe_ranges(unreadable).removeprefix('LSN ')}"
        kept += " and any records after it" * is_open_ended
    return [
        ("path", facts["path"]),
        ("format", facts["format_version"]),
        ("journal id", facts["journal_id"] or "none yet"),
        (
            "application",
            repr(facts["application"]) if checkpoints else "unknown until the first checkpoint",
        ),
        ("writer", "none" if pid is None else f"process {pid}" if pid else "a live process"),
        ("epochs", f"{epochs[0]} to {epochs[-1]}" if epochs else "none yet"),
        ("LSNs", f"{kept}, durable up to {facts['durable_lsn']}{empty}"),
        ("size on disk", f"{size(facts['disk_bytes'])}"),
    ]


def _put_tables(
    segments: list[SegmentInfo], checkpoints: list[Checkpoint], renderer: Renderer
) -> None:
    segment_rows = [
        (
            Path(file.path).name,
            file.state,
            file.epoch,
            file.first_lsn,
            file.last_lsn or None,
            file.durable_lsn,
            file.frames,
            size(file.size_bytes),
        )
        for file in segments
    ]
    checkpoint_rows = [
        (
            Path(file.path).name,
            file.lsn,
            file.epoch,
            file.count,
            size(file.size_bytes),
            renderer.time_ms(file.created_at_ms),
            age(time.time() - file.created_at_ms / 1000),
        )
        for file in checkpoints
    ]
    for header, rows in ((_SEGMENTS, segment_rows), (_CHECKPOINTS, checkpoint_rows)):
        if rows:
            print()
            put_lines(table(header, rows, optional=_OPTIONAL))

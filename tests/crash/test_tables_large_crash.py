"""Crashes of large values: between any two pieces, and around the record that publishes them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from journal._tables.keys import encode_key
from journal._tables.machine import ROWS, TablesMachine
from journal._tables.pieces import DROP, PIECE
from journal._tables.publisher import Publisher
from journal._tables.tables import Tables
from journal._tables.values import pack_value
from journal.errors import ConflictError
from journal.testing import Owner, explore
from journal.testing.machine import CrashMachine, Draw
from journal.testing.owner import ManualOptions
from tests.tiers import examples

IDS = [bytes([n]) * 16 for n in range(3)]
TEXT = "large " * 8
STORED = pack_value(TEXT, 4e9)
PARTS = [STORED[:10], STORED[10:20], STORED[20:]]


class CrashPieces(CrashMachine[TablesMachine]):
    """Uploads that overlap, are published, and are dropped."""

    machine = TablesMachine

    def draw_record(self, draw: Draw, machine: TablesMachine) -> Any:
        sent = {upload_id: len(pieces) for upload_id, pieces in machine.uploads.freeze()}
        whole = [upload_id for upload_id, count in sent.items() if count == len(PARTS)]
        choices: list[Any] = [
            [PIECE, upload_id, sent.get(upload_id, 0), PARTS[sent.get(upload_id, 0)]]
            for upload_id in IDS
            if upload_id not in whole
        ]
        key = encode_key(draw(st.integers(0, 2)))
        choices += [[ROWS, ["t", key, [upload_id, len(PARTS)]]] for upload_id in whole]
        choices += [[DROP, [upload_id]] for upload_id in sent]
        choices += [[ROWS, ["t", key, None]], [ROWS, ["t", key, pack_value(1)]]]
        return draw(st.sampled_from(choices))


TestCrashPieces = CrashPieces.TestCase
TestCrashPieces.settings = settings(max_examples=examples(30), stateful_step_count=25)


@pytest.mark.slow
def test_every_crash_between_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """P1 to P6: A kill or a power cut leaves the old row, or the row that the transaction set."""
    write_piece = Publisher._write_piece
    owners: list[Owner[TablesMachine]] = []
    is_compacting = False

    def write_and_wait(self: Publisher, piece: Any) -> None:
        write_piece(self, piece)
        owners[-1].wait()
        if is_compacting:
            owners[-1].compact()

    monkeypatch.setattr(Publisher, "_write_piece", write_and_wait)

    def tables(owner: Owner[TablesMachine]) -> Tables:
        owners.append(owner)
        return Tables._opened(owner.state, 100)

    def work(owner: Owner[TablesMachine]) -> None:
        nonlocal is_compacting
        app = tables(owner)
        table = app.table("t")
        table[1] = TEXT * 5
        with app.transaction() as t:
            t[table][1] = "small"
            t[table].set(2, TEXT * 5, expires_at=4e9)
        owner.wait()
        is_compacting = True
        table[1] = TEXT * 8
        is_compacting = False

        def conflict(t: Any) -> None:
            t[table][2] = t[table][1] * 2
            table_of_others[1] = "changed"

        table_of_others = _Unguarded(app)
        with pytest.raises(ConflictError):
            app.transact(conflict, attempts=1)
        owner.wait()
        write_half(owner)
        owner.kill()
        owner.reopen()
        app = tables(owner)
        assert app._machine.uploads.ids() == []
        assert dict(app.table("t").items()) == {1: "changed", 2: TEXT * 5}
        owner.wait()
        owner.compact()
        owner.reopen()

    options = ManualOptions(record_bytes_max=160)
    assert explore(TablesMachine, work, options=options).states > 1000


class _Unguarded:
    """Writes as if by another thread, made by this one."""

    def __init__(self, app: Tables) -> None:
        self._app = app

    def __setitem__(self, key: int, value: Any) -> None:
        write = ["t", encode_key(key), pack_value(value)]
        self._app._state.update(lambda _: [ROWS, write])


def write_half(owner: Owner[TablesMachine]) -> None:
    """Write the pieces of a value that is never published."""
    for number in range(2):
        owner.append([PIECE, IDS[0], number, PARTS[number]])
        owner.wait()

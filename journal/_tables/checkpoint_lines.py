"""Lines of a checkpoint of tables, in the order of tables and keys.

The rows of a chunk are encoded together where that gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from journal._format.items import EncodedItems, encode_item, encode_large, encode_together
from journal._tables.chunked_map import Chunk, Keys, Stored, rows_of
from journal._tables.expiry import HEAD_BYTES, MARK_BYTE, expiry_of
from journal._tables.keys import decode_key, decode_keys
from journal._tables.pieces import PIECE_BYTES_MAX, Pieces, split, upload_lines
from journal._tables.values import json_text, json_texts

_LINES_AT_ONCE = 32  # of a checkpoint; encoding them takes some 100 us
_BYTES_AT_ONCE = 1 << 16
_PART_BYTES = 1 << 15  # of values on average, which is half of what `json_texts` takes


def encoded_lines(
    uploads: list[tuple[bytes, Pieces]], tables: list[tuple[str, list[Chunk]]]
) -> Iterator[EncodedItems]:
    """Yield the lines of a checkpoint, several at a time."""
    lines: list[bytes] = []
    size = 0
    for line in _lines(uploads, tables):
        # One line may be as long as a checkpoint takes, so a long one has no others beside it.
        if lines and (len(lines) == _LINES_AT_ONCE or size + len(line) > _BYTES_AT_ONCE):
            yield EncodedItems(b",\n".join(lines), len(lines))
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    if lines:
        yield EncodedItems(b",\n".join(lines), len(lines))


def _lines(
    uploads: list[tuple[bytes, Pieces]], tables: list[tuple[str, list[Chunk]]]
) -> Iterator[bytes]:
    yield from upload_lines(uploads)
    for name, chunks in tables:
        head = b'{"table":' + encode_item(name, 0) + b',"key":'
        for keys, values in chain.from_iterable(map(_parts_of, chunks)):
            texts = json_texts(values)
            if texts is None:
                yield from _chunk_lines(head, keys, values)
                continue
            for key, text in zip(_key_texts(keys), texts, strict=True):
                yield b'%b%b,"value":%b}' % (head, key, text)


def _parts_of(chunk: Chunk) -> Iterator[tuple[Keys, list[Stored]]]:
    """Yield the rows of a chunk, as many together as `json_texts` mostly takes."""
    keys, values = rows_of(chunk)
    size = max(1, len(keys) * _PART_BYTES // (sum(map(len, values)) + 1))
    for at in range(0, len(keys), size):
        yield keys[at : at + size], values[at : at + size]


def _chunk_lines(head: bytes, keys: Keys, values: Sequence[Stored]) -> Iterator[bytes]:
    """Yield the lines of rows, encoded one at a time."""
    for key, value in zip(keys, values, strict=True):
        if type(value) is bytes and len(value) <= PIECE_BYTES_MAX:
            yield _line(head, key, value)
        else:
            yield from _large_lines(head, key, value)


def _line(head: bytes, key: bytes, stored: bytes) -> bytes:
    head += _key_text(key)
    if stored[0] == MARK_BYTE and (expires_at_ms := expiry_of(stored)) is not None:
        head += b',"expires_at_ms":%d' % expires_at_ms
        stored = stored[HEAD_BYTES:]
    text = json_text(stored)
    if text is not None:
        return b'%b,"value":%b}' % (head, text)
    return b'%b,"packed":%b}' % (head, encode_item(stored, 0))


def _large_lines(head: bytes, key: bytes, stored: Stored) -> Iterator[bytes]:
    """Yield a line for each piece of a value, and the row's line.

    A value that is stored as JSON text came from one line, so it fits in one line again.
    """
    expires_at_ms = expiry_of(stored)
    if type(stored) is bytes:
        if stored[0 if expires_at_ms is None else HEAD_BYTES] == MARK_BYTE:
            yield _line(head, key, stored)
            return
        stored = split(stored)
    pieces = stored if expires_at_ms is None else stored[1:]
    for piece in pieces:
        yield b'{"piece":%b}' % encode_large(piece, 0)
    time_text = b"" if expires_at_ms is None else b',"expires_at_ms":%d' % expires_at_ms
    yield b'%b%b%b,"pieces":%d}' % (head, _key_text(key), time_text, len(pieces))


def _key_text(key: bytes) -> bytes:
    decoded = decode_key(key)
    return encode_item(list(decoded) if type(decoded) is tuple else decoded, 0)


def _key_texts(keys: Keys) -> Iterable[bytes]:
    decoded = [list(key) if type(key) is tuple else key for key in decode_keys(keys)]
    return encode_together(decoded) or map(_key_text, keys)

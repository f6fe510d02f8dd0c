"""Large record: a check that a record unpacks, and an estimate of its objects, without making them.

A record may unpack to more than a hundred times its size: 64 MiB of empty maps take 5 GB. This walk
over the bytes checks what the unpacker checks, one value at a time.
"""

from __future__ import annotations

import re
from sys import getsizeof

import msgpack
from msgpack import unpackb

_LEVELS_MAX = 1024  # as many as the unpacker's own stack has
# By the first byte of a value: the number of bytes of its length, or of the value itself.
_ARRAYS, _MAPS = {0xDC: 2, 0xDD: 4}, {0xDE: 2, 0xDF: 4}
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED = {
    **dict.fromkeys((0xC0, 0xC2, 0xC3), 0),
    **dict.fromkeys((0xCC, 0xD0), 1),
    **dict.fromkeys((0xCD, 0xD1), 2),
    **dict.fromkeys((0xCA, 0xCE, 0xD2), 4),
    **dict.fromkeys((0xCB, 0xCF, 0xD3), 8),
    **{0xD4 + power: 1 + (1 << power) for power in range(5)},
}
_SHARED = (0xC0, 0xC2, 0xC3, 0xCC)  # nil, the bools, and numbers up to 255 are no new objects
_EXT = (0xC7, 0xC8, 0xC9)
# The values of one byte, which a hostile record may have by the million: all of them, and those of
# which each is a new object.
_ONE_BYTE = re.compile(rb"[\x00-\x80\x90\xc0\xc2\xc3\xe0-\xff]+")
_NO_NEW_NUMBER = bytes({*range(256)} - {*range(0xE0, 0xFB)})
_RUN_BYTES = 1 << 20
# The sizes of objects in CPython 3.11 and later, and of one more item in a list or a dict.
_POINTER, _NUMBER, _LIST, _EMPTY_DICT, _DICT, _DICT_ITEM, _EXT_TYPE = 8, 32, 56, 64, 136, 24, 64


def measure_large(data: memoryview) -> int:
    """Estimate the memory that the objects of the record `data` take, in bytes.

    Raises ValueError unless `data` is one record that unpacks.
    """
    size, memory_bytes = walk_large(data)
    if size != len(data):
        raise ValueError("bytes follow a record")
    return memory_bytes


def walk_large(data: memoryview) -> tuple[int, int]:
    """Return the size of the record at the beginning of `data`, and an estimate of the memory that
    its objects take, in bytes. Raises ValueError if it does not unpack.
    """
    # For each open array or map: the number of values still to come. For a map, they are keys and
    # values in turn.
    remaining: list[int] = [1]
    maps: list[bool] = [False]
    at, size, memory_bytes = 0, len(data), 0
    while remaining:
        if not remaining[-1]:
            remaining.pop()
            maps.pop()
            continue
        if not maps[-1] and len(remaining) <= _LEVELS_MAX:
            run_end = min(at + remaining[-1], at + _RUN_BYTES)
            if run := _ONE_BYTE.match(data, at, run_end):
                memory_bytes += _memory_of_run(bytes(data[at : run.end()]))
                remaining[-1] -= run.end() - at
                at = run.end()
                continue
        is_key = maps[-1] and remaining[-1] % 2 == 0
        remaining[-1] -= 1
        if at >= size:
            raise ValueError("a record is cut short")
        first = data[at]
        count, is_map = _count(data, at, first)
        if count is None:
            at, of_leaf = _leaf(data, at, first)
            memory_bytes += of_leaf
            continue
        if is_key:
            raise ValueError("a record does not unpack: a map key is an array or a map")
        if len(remaining) > _LEVELS_MAX:
            raise ValueError("a record does not unpack: it nests too deep")
        at += 1 + (_MAPS if is_map else _ARRAYS).get(first, 0)
        if count > size - at:
            raise ValueError("a record does not unpack: it counts more values than it has bytes")
        if not is_map:
            memory_bytes += _LIST + count * _POINTER
        else:
            memory_bytes += _DICT + count * _DICT_ITEM if count else _EMPTY_DICT
        if count:
            remaining.append(2 * count if is_map else count)
            maps.append(is_map)
    return at, memory_bytes


def _memory_of_run(run: bytes) -> int:
    numbers = len(run.translate(None, _NO_NEW_NUMBER))
    return run.count(0x80) * _EMPTY_DICT + run.count(0x90) * _LIST + numbers * _NUMBER


def _count(data: memoryview, at: int, first: int) -> tuple[int | None, bool]:
    """Return the count of an array or a map that begins at `at`, or None for any other value, and
    whether it is a map."""
    if 0x80 <= first <= 0x8F:
        return first & 0x0F, True
    if 0x90 <= first <= 0x9F:
        return first & 0x0F, False
    for widths, is_map in ((_ARRAYS, False), (_MAPS, True)):
        if width := widths.get(first):
            return int.from_bytes(data[at + 1 : at + 1 + width], "big"), is_map
    return None, False


def _leaf(data: memoryview, at: int, first: int) -> tuple[int, int]:
    """Return the end of the value at `at`, which is neither an array nor a map, and the estimated
    size of a new object for it, in bytes. Raises ValueError if it does not unpack."""
    if first <= 0x7F or first >= 0xE0:
        return at + 1, _NUMBER * (first >= 0xE0)
    if 0xA0 <= first <= 0xBF:
        end = at + 1 + (first & 0x1F)
    elif width := _SIZED.get(first):
        length = int.from_bytes(data[at + 1 : at + 1 + width], "big")
        end = at + 1 + width + length + (first in _EXT)
    elif first in _FIXED:
        end = at + 1 + _FIXED[first]
    else:
        raise ValueError(f"a record does not unpack: no value begins with the byte {first:#x}")
    if end > len(data):
        raise ValueError("a record is cut short")
    is_checked = first >= 0xA0 and not 0xC0 <= first <= 0xC6 and not 0xCA <= first <= 0xD3
    if is_checked:  # a string, which has to be UTF-8, or an ext type
        try:
            value = unpackb(data[at:end], strict_map_key=False)
        except (ValueError, msgpack.UnpackException, OverflowError) as error:
            raise ValueError(f"a record does not unpack: {type(error).__name__}: {error}") from None
        if isinstance(value, str):
            return end, getsizeof(value) if len(value) > 1 else 0
        return end, getsizeof(value) + end - at + _EXT_TYPE
    return end, end - at + _NUMBER if first not in _SHARED else 0

"""Columns: lines of a checkpoint that are rows of one table, taken apart together.

Most blocks of lines are like that. This takes half the time of a search in each line.
"""

from __future__ import annotations

import re
from operator import methodcaller

_SEPARATOR = b',"value":'
_END = b"},\n"
# A name of 255 bytes takes at most 5 steps for each; a longer one would take memory.
_HEAD = re.compile(rb'\{"table":("(?:[^"\\]|\\.){1,1275}"),"key":', re.DOTALL)


def columns_of(lines: list[bytes]) -> tuple[bytes, bytes, list[bytes]] | None:
    """Return the JSON of a table's name, that of the array of its keys, and the texts of the
    values.

    Return None unless each line is a row of the same table that has its value in the line and never
    expires. Inside a JSON string a quote has a backslash before it, so the first `,"value":` ends
    the key.
    """
    head = _HEAD.match(lines[0]) if lines else None
    if not head or not all(map(methodcaller("startswith", head[0]), lines)):
        return None
    rows = [line.partition(_SEPARATOR) for line in lines if line.endswith(_END)]
    begin, end = head.end(), -len(_END)
    keys = b",".join([key[begin:] for key, _, _ in rows])
    texts = [text[:end] for _, _, text in rows if text]
    if len(texts) < len(lines) or b'"expires_at_ms":' in keys:
        return None
    return head[1], b"[%b]" % keys, texts

"""Quick test: whether the shown text of a record may match a pattern, without making the text.

A run of letters that every match contains stands in the text of a record only if it stands in one
of its strings, in a name of its fields, or in a word of `_WORDS`; or else the record has bytes,
which are shown as base64.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from journal_inspect.rendering.kinds import field_names

# An escape or a class may stand for letters, and a group or an alternative may be absent.
_UNKNOWN = re.compile(r"[()\[\]{}|]|\\[xuUN0-9]")
_RUN = re.compile(r"([A-Za-z_]+)([*?]?)")
_END_OF_ESCAPE = re.compile(r"(?:[nrt]|u?[a-f]{0,4})")  # of a JSON escape
_WORDS = "true false null base64 ext map float nan inf filler"


def quick_test(pattern: re.Pattern[str]) -> Callable[[Any], bool] | None:
    """Return a function that returns False for records whose text can't match; None if `pattern`
    does not tell. The text is the one of `Lines.body` with nothing redacted and no decoder."""
    needle = max(_needles(pattern), key=len, default="")
    if not needle:
        return None

    def may_match(record: Any) -> bool:
        if type(record) is list and len(record) > 1:
            kind, second = record[0], record[1]
            if type(second) is list:  # maybe of tables, whose values are packed
                return True
            if type(kind) is type(second) is str and needle in " ".join(field_names(kind)):
                return True
        try:
            text = repr(record)
        except RecursionError:
            return True
        # All values that are shown as base64 have bytes in their repr, or this type.
        return needle in text or "b'" in text or 'b"' in text or "Timestamp(" in text

    return may_match


def _needles(pattern: re.Pattern[str]) -> list[str]:
    """Return letters that every match of `pattern` has, and that no text has by itself."""
    if pattern.flags != re.UNICODE or _UNKNOWN.search(pattern.pattern):
        return []
    plain = re.sub(r"\\.", " ", pattern.pattern, flags=re.DOTALL)
    found = []
    for letters, may_lack_last in _RUN.findall(plain):
        needle = letters[:-1] if may_lack_last else letters
        # The escape of another character may end with the first of these letters.
        needle = needle[_END_OF_ESCAPE.match(needle).end() :]  # type: ignore[union-attr]
        if needle and needle not in _WORDS:
            found.append(needle)
    return found

"""Plain: texts from elsewhere in a form that a terminal does not obey."""

from __future__ import annotations


def plain(text: str) -> str:
    """Return `text` in one line, with unprintable characters escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

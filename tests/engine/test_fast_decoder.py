"""A large checkpoint has the same items with the extra `fast` and without it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from journal import CorruptionError
from journal._format import checkpoint, items
from journal._format.items import decoder, encode_item
from journal.testing import SimulatedDisk
from tests.engine.items_support import ITEMS, forge, items_after

# What JSON texts are made of, and what the two decoders might read differently.
PIECES = st.sampled_from(
    [
        *'[]{}:,."\\ -0eE',
        *("$", "u0024", "\\u0024", "$bytes", "\\ud800", "\\/", "\x7f", "\x1f", "\ufeff"),
        *("NaN", "Infinity", "1e400", "1e-400", "-0", "-0.0", "01", "1.", "null", "9" * 40),
    ]
)
TEXTS = st.lists(ITEMS, min_size=1, max_size=3).map(
    lambda several: b",\n".join(encode_item(each, 0) for each in several).decode()
)


@st.composite
def broken(draw: st.DrawFn) -> str:
    """Return JSON texts of items, a part of which is replaced."""
    text = draw(TEXTS)
    begin = draw(st.integers(0, len(text)))
    end = draw(st.integers(begin, min(len(text), begin + 3)))
    return text[:begin] + "".join(draw(st.lists(PIECES, max_size=3))) + text[end:]


def read(text: str, *, is_large: bool) -> tuple[str, str]:
    """Return what the lines decode to, or the error."""
    try:
        return "items", repr(decoder(2, text.encode(), is_large=is_large)(f"[{text}]"))
    except (ValueError, RecursionError) as error:
        return type(error).__name__, str(error)


@given(text=TEXTS | broken() | st.lists(PIECES).map("".join))
@example(text="1e400")
@example(text='"\\ud800"')
@example(text="18446744073709551616,-9223372036854775809")
@example(text="1" * 5000)
@example(text="[" * 400 + "]" * 400)
@example(text='{"$bytes":"QQ=="}')
@example(text='{"\\u0024bytes":"QQ=="}')
@example(text='{"$by\\u0074es":"QQ=="}')
@example(text='{"a":"line\\nline","b":"$5"}')
@example(text='{"a":1,"a":2}')
def test_both_decoders_read_the_same(text: str) -> None:
    """P6: The decoder of large checkpoints returns the same items, or raises the same error."""
    assert items._fast_decoder() is not None
    assert read(text, is_large=True) == read(text, is_large=False)


@pytest.fixture
def imports() -> Iterator[None]:
    """Let the next decoder look for msgspec again."""
    items._fast_decoder.cache_clear()
    yield
    items._fast_decoder.cache_clear()


@pytest.mark.usefixtures("imports")
def test_without_the_extra_all_is_read_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else needs msgspec."""
    monkeypatch.setitem(sys.modules, "msgspec", None)
    assert items._fast_decoder() is None
    assert read('{"$bytes":"QQ=="},[1]', is_large=True) == ("items", "[b'A', [1]]")


@pytest.mark.usefixtures("imports")
@pytest.mark.parametrize(
    "content", ["1 / 0", "import absent", "json = None", '__version__ = "x"', "("]
)
def test_a_broken_msgspec_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """A journal opens also if another module is named msgspec, or its build is broken."""
    (tmp_path / "msgspec.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "msgspec")
    assert items._fast_decoder() is None
    monkeypatch.delitem(sys.modules, "msgspec", raising=False)


@pytest.mark.usefixtures("imports")
def test_an_old_msgspec_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """msgspec 0.18 decodes some integers of more than 64 bits to others."""
    monkeypatch.setattr("msgspec.__version__", "0.18.6")
    assert items._fast_decoder() is None


@pytest.mark.parametrize(
    ("least_bytes", "line", "is_fast"),
    [(0, b"[1]", True), (1 << 40, b"[1]", False), (0, b'{"a":1}', False)],
)
def test_only_large_checkpoints_of_lists_are_decoded_fast(
    monkeypatch: pytest.MonkeyPatch, least_bytes: int, line: bytes, is_fast: bool
) -> None:
    """To import msgspec takes longer than to read a small checkpoint, and its maps share fewer of
    their keys."""
    asked = Mock(return_value=None)
    monkeypatch.setattr(items, "_fast_decoder", asked)
    monkeypatch.setattr(checkpoint, "_FAST_FROM_BYTES", least_bytes)
    disk = SimulatedDisk()
    forge(disk, 2, [line])
    assert items_after(disk) == [json.loads(line)]
    assert asked.called == is_fast


def test_an_item_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: The error of a large checkpoint names the item, and gives the reason that json gives."""
    disk = SimulatedDisk()
    forge(disk, 2, [b"[1]", b"[nul]", b"[2]"])
    errors = []
    for least_bytes in (0, 1 << 40):
        monkeypatch.setattr(checkpoint, "_FAST_FROM_BYTES", least_bytes)
        with pytest.raises(CorruptionError, match=r"item 1 .* Expecting value") as caught:
            items_after(disk)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]

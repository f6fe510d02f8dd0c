"""With the extra `fast`, the items of a large checkpoint are those that are read without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from journal import CorruptionError
from journal._format import items
from journal._format.items import decoder, encode_item
from journal.testing import SimulatedDisk
from tests.engine.items_support import ITEMS, forge, items_after

LARGE = 1 << 40
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


def read_as(text: str, of_bytes: int) -> tuple[str, str]:
    """Return what the lines decode to, or the error, for a checkpoint of that size."""
    try:
        return "items", repr(decoder(2, text.encode(), of_bytes)(f"[{text}]"))
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
    assert read_as(text, LARGE) == read_as(text, 0)


@pytest.fixture
def imports() -> Iterator[None]:
    """Let the next decoder look for msgspec again."""
    items._fast_decoder.cache_clear()
    yield
    items._fast_decoder.cache_clear()


@pytest.mark.usefixtures("imports")
def test_a_large_checkpoint_is_read_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without msgspec, all is read as ever."""
    monkeypatch.setitem(sys.modules, "msgspec", None)
    assert items._fast_decoder() is None
    assert read_as('{"$bytes":"QQ=="},[1]', LARGE) == ("items", "[b'A', [1]]")


@pytest.mark.usefixtures("imports")
def test_a_small_checkpoint_does_not_import_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """To import msgspec takes longer than to read a small checkpoint."""
    monkeypatch.setattr(items, "_fast_decoder", pytest.fail)
    disk = SimulatedDisk()
    forge(disk, 2, [b"[1]"])
    assert items_after(disk) == [[1]]


def test_an_item_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: The error of a large checkpoint names the item, and gives the reason that json gives."""
    disk = SimulatedDisk()
    forge(disk, 2, [b'{"a":1}', b'{"a":nul}', b"[2]"])
    errors = []
    for least_bytes in (0, LARGE):
        monkeypatch.setattr(items, "_FAST_FROM_BYTES", least_bytes)
        with pytest.raises(CorruptionError, match=r"item 1 .* Expecting value") as caught:
            items_after(disk)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]

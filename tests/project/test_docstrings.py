"""The docstring of a function begins with a verb, and that of a class or a field with a noun."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project.docstrings import checked_modules, offences_in

METHOD = "class C:\n    {decorator}\n    def name(self):\n        '''{text}'''\n"


@pytest.mark.parametrize(
    ("source", "is_wrong"),
    [
        ("def f():\n    'Return the size.'", False),
        ("async def f():\n    'Pass the lock on.'", False),
        ("def f():\n    'Write, sync and close.'", False),
        ("def f():\n    'What is left.'", True),
        ("async def f():\n    'Of a segment: its name.'", True),
        ("def f():\n    'The size.'", True),
        ("def f():\n    'Files that are gone.'", True),
        ("def f():\n    'Raises ValueError.'", True),
        ("def f():\n    '`size` bytes.'", True),
        ("def f():\n    '16 random bytes.'", True),
        ("def f():\n    def g():\n        'None if there is none.'", True),
        ("class C:\n    'A segment.'", False),
        ("class C:\n    'What a segment holds.'", True),
        (METHOD.format(decorator="@property", text="The size in bytes."), False),
        (METHOD.format(decorator="@cached_property", text="The size in bytes."), False),
        (METHOD.format(decorator="@property", text="Whether it is open."), True),
        (METHOD.format(decorator="@staticmethod", text="The size in bytes."), True),
        ("class C:\n    size: int\n    'The size in bytes.'", False),
        ("class C:\n    size: int\n    'How large it is.'", True),
        ("class C:\n    size = 0\n    'What it takes.'", True),
        ("def f(self):\n    self.is_open = True\n    'Whether it is open.'", True),
        ("SIZE = 1\n'Where it ends.'", True),
        ("def test_rule():\n    'What is written is read.'", False),
        ("def f():\n    pass", False),
    ],
)
def test_a_wrong_first_word_is_found(tmp_path: Path, source: str, is_wrong: bool) -> None:
    """The check knows functions, properties, classes and fields, and ignores tests."""
    module = tmp_path / "module.py"
    module.write_text(source)
    assert bool(list(offences_in(module, tmp_path))) == is_wrong


@pytest.mark.usefixtures("few_to_collect")
def test_docstrings_open_with_a_verb_or_a_noun() -> None:
    """No checked docstring begins with a word that hides its subject."""
    checked = checked_modules()
    assert checked
    offences = [offence for path in checked for offence in offences_in(path)]
    assert [f"{each.path}:{each.line}: {each.text}" for each in offences] == []

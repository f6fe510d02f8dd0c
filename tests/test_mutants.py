"""The list of weakenings that the suite has to notice stays true to the code."""

from __future__ import annotations

import ast

import pytest
from bench.mutants import ROOT, WEAKENINGS, main, weakened
from bench.weakenings import Weakening


@pytest.mark.parametrize("weakening", WEAKENINGS, ids=lambda weakening: weakening.name)
def test_it_applies(weakening: Weakening) -> None:
    """What it takes away stands in the code once, and what is left is Python."""
    source = (ROOT / weakening.path).read_text()
    assert ast.dump(ast.parse(weakened(source, weakening))) != ast.dump(ast.parse(source))


def test_each_has_a_name_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """So one can be asked for by it; one that is not there is told of."""
    assert len({weakening.name for weakening in WEAKENINGS}) == len(WEAKENINGS)
    assert main(["--list", "no_page_drop"]) == 0
    assert capsys.readouterr().out.split() == ["no_page_drop", "journal/recovery.py"]
    with pytest.raises(SystemExit):
        main(["no_such_weakening"])

"""Journals and browsers that several tests of the inspector share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.inspect.browser_support import Browser


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a golden journal: four epochs, a torn tail, two checkpoints, records of every type."""
    from tests.inspect.inspect_support import golden

    return golden(tmp_path / "golden")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an undamaged journal whose checkpoints are at LSN 8 and 20."""
    from tests.inspect.damage_support import history

    return history(tmp_path_factory.mktemp("whole") / "j")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from tests.inspect.browser_support import browsing

    with browsing() as browser:
        yield browser


@pytest.fixture
def story(tmp_path: Path) -> Path:
    """Return a closed journal with at least one agent of every outcome."""
    from tests.inspect.report_support import STORY, write

    return write(tmp_path / "j", *STORY)


@pytest.fixture
def page(story: Path) -> Path:
    """Return the report of a fleet with at least one agent of every outcome."""
    from tests.inspect.report_support import write_report_beside

    return write_report_beside(story)

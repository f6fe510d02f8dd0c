"""What every test needs: the packages of this checkout and no others, and Hypothesis's settings.

A copy that is installed beside the checkout would be what is tested, in this process or in a child,
if the paths were left to chance.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("journal", "manager", "journal_inspect")

# Children inherit what pytest's `pythonpath` gives this process.
_paths = [str(ROOT), str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _paths))

# `--hypothesis-profile thorough` looks longer. Deadlines and slow generation are the machine's
# business; derandomize would try the same examples for ever, on a CI machine by default.
_quick = settings(
    max_examples=50,
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("quick", _quick)
settings.register_profile("thorough", _quick, max_examples=2000)
settings.load_profile("quick")


def strangers() -> list[str]:
    """Packages of ours that would be, or were, imported from elsewhere than this checkout."""
    found = []
    for name in PACKAGES:
        spec = find_spec(name)
        places = spec.submodule_search_locations if spec else None
        place = Path(next(iter(places))).resolve() if places else None
        if place not in (ROOT / name, ROOT / "tools" / name):
            found.append(f"{name} comes from {place}, not from {ROOT}")
    return found


def pytest_sessionstart() -> None:
    """Before anything is collected."""
    if found := strangers():
        raise pytest.UsageError("; ".join(found) + f"; sys.path is {sys.path}")


@pytest.fixture(autouse=True, scope="session")
def _packages_of_this_checkout() -> None:
    """Once more when all is imported, which may have changed the path."""
    assert not strangers()

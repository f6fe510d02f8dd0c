"""Tests of the imports of modules whose extra is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from journal._extra import needing_extra

MODULES = {
    "adapters.langgraph": ("langgraph", "langgraph"),
    "adapters.openai_agents": ("agents", "openai-agents"),
    "adapters.pydantic_ai": ("pydantic", "pydantic-ai"),
    "adapters.a2a": ("a2a", "a2a"),
    "otel": ("opentelemetry", "otel"),
    "prometheus": ("prometheus_client", "prometheus"),
}


@pytest.mark.parametrize("module", MODULES)
def test_an_import_without_the_extra_says_what_to_install(module: str) -> None:
    """The error of the import ends with the command that installs the module's own extra, and has
    the name of the missing package."""
    package, extra = MODULES[module]
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"try: import journal.{module}\n"
        "except ModuleNotFoundError as error: print(error.name, error, sep='\\n')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    name, message = run.stdout.splitlines()
    assert name.partition(".")[0] == package
    assert message.endswith(f"; run: pip install 'journal-engine[{extra}]'")


def test_a_package_of_another_version_says_what_to_install(tmp_path: Path) -> None:
    """The error for a name that the installed version of a package lacks ends with the command that
    installs the extra's version."""
    (tmp_path / "prometheus_client.py").touch()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "try: import journal.prometheus\n"
        "except ImportError as error: print(type(error).__name__, error.name, error, sep='\\n')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kind, name, message = run.stdout.splitlines()
    assert (kind, name) == ("ImportError", "prometheus_client")
    assert message.startswith("cannot import name 'REGISTRY' from 'prometheus_client'")
    assert message.endswith("; run: pip install 'journal-engine[prometheus]'")


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("of a part of ours", name="journal.missing"),
        ImportError("a part of ours without this name", name="journal.adapters"),
        ModuleNotFoundError("raised by hand"),
    ],
)
def test_other_errors_of_an_import_are_not_changed(error: ImportError) -> None:
    """A missing module or name of our own is no missing extra."""
    with pytest.raises(ImportError) as caught, needing_extra("langgraph"):
        raise error
    assert caught.value is error

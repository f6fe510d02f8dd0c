"""Tests of the imports of modules whose extra is not installed."""

from __future__ import annotations

import subprocess
import sys

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


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("of a part of ours", name="journal.missing"),
        ModuleNotFoundError("raised by hand"),
        ImportError("a client without this name", name="langgraph"),
    ],
)
def test_other_errors_of_an_import_are_not_changed(error: ImportError) -> None:
    """A missing module of our own, or a name that a package lacks, is no missing extra."""
    with pytest.raises(ImportError) as caught, needing_extra("langgraph"):
        raise error
    assert caught.value is error

"""Run the tests of another library with the journal's stores in place of its own.

    python tools/proof clients langgraph SOURCES
    python tools/proof clients langgraph_checkpoint SOURCES
    python tools/proof clients openai_agents SOURCES
    python tools/proof clients a2a SOURCES

SOURCES is an unpacked sdist of the library, or a checkout of its repository. Its tests are copied
to a temporary directory, and the fixtures or classes from which they get a store are replaced. Only
those files are run that use one. Arguments after `--` go to pytest.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
_FIXTURES = Path(__file__).with_name("client_fixtures")
_PLUGIN = "journal_fixtures"


@dataclass(frozen=True)
class Client:
    """The tests of a library, and what replaces its stores."""

    folders: tuple[str, ...]  # of the library in its sources: of the sdist, or of the repository
    uses: str  # a pattern: the tests that have it are run
    left_out: tuple[str, ...]  # files
    environment: dict[str, str]
    has_conftest: bool = False  # the library's conftest.py stays, and the fixtures are a plugin


CLIENTS = {
    "langgraph": Client(
        (".", "libs/langgraph"),
        r"\b(a?sync_checkpointer|a?sync_store|cache: BaseCache)\b",
        ("test_prune_postgres.py",),
        {"NO_DOCKER": "true", "LANGGRAPH_STRICT_MSGPACK": "true"},
    ),
    "langgraph_checkpoint": Client(
        (".", "libs/checkpoint"), r"InMemoryStore\(", ("test_jsonplus.py",), {}
    ),
    "openai_agents": Client(
        (".",),
        r"\bSQLiteSession\(",
        ("test_advanced_sqlite_session.py", "test_async_sqlite_session.py"),
        {},
        has_conftest=True,
    ),
    "a2a": Client(
        (".",),
        r"import InMemoryTaskStore\b(?s:.*)test_in_memory_task_store",
        (),
        {},
        has_conftest=True,
    ),
}


def sources_of(client: Client, sources: Path) -> Path:
    """Return the folder of the library in its sources. Raises SystemExit if it has no tests."""
    for folder in client.folders:
        if (sources / folder / "tests").is_dir():
            return sources / folder
    raise SystemExit(f"{sources} has no tests: give an unpacked sdist, or a checkout")


def prepare(name: str, sources: Path, scratch: Path) -> list[str]:
    """Copy the tests of a client to `scratch`, with other fixtures. Return the files to run."""
    client = CLIENTS[name]
    library = sources_of(client, sources)
    shutil.copytree(library / "tests", scratch / "tests")
    shutil.copy(library / "pyproject.toml", scratch)
    target = f"{_PLUGIN}.py" if client.has_conftest else "tests/conftest.py"
    shutil.copy(_FIXTURES / f"{name}.py", scratch / target)
    return sorted(
        str(path.relative_to(scratch))
        for path in (scratch / "tests").glob("**/test_*.py")
        if path.name not in client.left_out and re.search(client.uses, path.read_text())
    )


def main(arguments: list[str]) -> int:
    """Run the tests, and return pytest's exit code."""
    parser = argparse.ArgumentParser(prog="python tools/proof clients", description=__doc__)
    parser.add_argument("client", choices=sorted(CLIENTS))
    parser.add_argument("sources", type=Path)
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="clients-") as name:
        client = CLIENTS[options.client]
        files = prepare(options.client, options.sources.resolve(), Path(name))
        environment = {**os.environ, **client.environment}
        paths = (str(CHECKOUT), name, environment.get("PYTHONPATH"))
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "TMPDIR": name}
        plugin = ["-p", _PLUGIN] if client.has_conftest else []
        command = [sys.executable, "-m", "pytest", "-q", *plugin, *(options.pytest or files)]
        return subprocess.run(command, cwd=name, env=environment, check=False).returncode

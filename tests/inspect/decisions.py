"""What the commands decide about damaged directories, without the sentences that they say it in.

Run as a script, in a process that may have another copy of the engine on its path:

    python decisions.py CASES WORK OUT

CASES is a JSON object: of each case the pristine directory and the command lines for it, in which
"{}" is where its copy in WORK stands; the lines that read come first, and share a copy. OUT gets
what was decided, for each command line.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

# Words for people: they may change, and nothing may depend on them.
SENTENCES = ("message", "problem")
# What a person is told to do next, in the commands' own words.
_ACTIONS = re.compile(
    r"journal-inspect(?: [^\s;:]+)*|mv -n [^;\n]*|--cut-at \d+|restore a backup|copy the directory"
    r"|LSN \d+ at least|\d+ at most|cut near it: LSN \d+|journal is in [^;:]+|give the path"
    r"|rename brings back|is a copy of|has the header of|stop it first"
)


def decided(code: int, out: str, err: str) -> dict[str, Any]:
    """Return the exit code, the JSON without its sentences, and the advised actions."""
    found: dict[str, Any] = {"code": code, "actions": _ACTIONS.findall(err)}
    try:
        found["json"] = without_sentences(json.loads(out))
    except ValueError:
        found["actions"] += _ACTIONS.findall(out)
    return found


def without_sentences(value: Any) -> Any:
    """Return `value` with whether there is a sentence in place of the sentence."""
    if isinstance(value, dict):
        return {
            key: bool(item) if key in SENTENCES else without_sentences(item)
            for key, item in value.items()
        }
    return [without_sentences(item) for item in value] if isinstance(value, list) else value


def sentences(value: Any) -> list[str]:
    """Return the engine's sentences in what a command printed as JSON."""
    if isinstance(value, dict):
        own = [value[key] for key in SENTENCES if value.get(key)]
        return [*own, *(it for item in value.values() for it in sentences(item))]
    return [it for item in value for it in sentences(item)] if isinstance(value, list) else []


def files(path: Path) -> list[list[Any]]:
    """Return the names and sizes of what stands in and beside `path`."""
    found = [it for it in sorted(path.parent.rglob("*")) if it.is_file()]
    # A report holds sentences.
    sizes = {it: None if it.suffix == ".html" else it.stat().st_size for it in found}
    return [[str(it.relative_to(path.parent)), size] for it, size in sizes.items()]


def run(case: dict[str, Any], work: Path) -> tuple[list[Any], list[str]]:
    """Return what each command line decides, and all sentences in JSON."""
    from click.testing import CliRunner
    from journal_inspect.commands.cli import cli

    from manager._cli.cli import run_cli

    found, said = [], []
    for number, line in enumerate(case["lines"]):
        path = Path(case["path"]) if case["live"] else work / "j"
        if not case["live"] and (number == 0 or number >= case["reads"]):
            shutil.rmtree(work, ignore_errors=True)
            if Path(case["path"]).exists():
                shutil.copytree(case["path"], path)
        verb, *args = [part.format(path) for part in line]
        if verb == "subagents":
            found.append({"code": _in_process(run_cli, args)})
            continue
        result = CliRunner().invoke(cli, [verb, *args], catch_exceptions=False)
        seen = decided(result.exit_code, result.stdout, result.stderr)
        if not case["live"] and work.exists():
            seen["files"] = files(path)
        found.append(seen)
        if "json" in seen:
            said += sentences(json.loads(result.stdout))
    return found, said


def _in_process(run_cli: Any, args: list[str]) -> int:
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        return int(run_cli(args))


def main(cases: Path, work: Path, out: Path) -> None:
    """Run all cases."""
    os.fsync = os.fdatasync = lambda fd: None  # no power cut comes
    import journal

    found = {name: run(case, work) for name, case in json.loads(cases.read_text()).items()}
    out.write_text(json.dumps({"engine": journal.__file__, "found": found}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

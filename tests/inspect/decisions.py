"""The decisions of the commands about damaged directories, without their sentences.

Run this as a script, in a process that may have another copy of the engine on its path:

    python decisions.py CASES WORK OUT

CASES is a JSON object that maps each case to its pristine directory and its command lines, in
which "{}" is the path of its copy in WORK. Command lines that only read come first and share a
copy. OUT receives the decision for each command line.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

# These keys hold words for people. They may change, and nothing may depend on them.
SENTENCES = ("message", "problem")
# The actions that a command advises, in its own words.
_ACTIONS = re.compile(
    r"journal-inspect(?: [^\s;:]+)*|mv -n [^;\n]*|--cut-at \d+|restore a backup|copy the directory"
    r"|LSN \d+ at least|\d+ at most|cut near it: LSN \d+|journal is in [^;:]+|give the path"
    r"|rename brings back|is a copy of|has the header of|stop it first"
)


def decision_of(code: int, out: str, err: str) -> dict[str, Any]:
    """Return the exit code, the JSON without its sentences, and the advised actions."""
    decision: dict[str, Any] = {"code": code, "actions": _ACTIONS.findall(err)}
    try:
        decision["json"] = without_sentences(json.loads(out))
    except ValueError:
        decision["actions"] += _ACTIONS.findall(out)
    return decision


def without_sentences(value: Any) -> Any:
    """Return `value` with True in place of each sentence, or False if it is empty."""
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
        return [*own, *(sentence for item in value.values() for sentence in sentences(item))]
    return (
        [sentence for item in value for sentence in sentences(item)]
        if isinstance(value, list)
        else []
    )


def files(path: Path) -> list[list[Any]]:
    """Return the names and sizes of the files in and beside `path`."""
    paths = [file for file in sorted(path.parent.rglob("*")) if file.is_file()]
    # A report holds sentences, so its size does not count.
    sizes = {file: None if file.suffix == ".html" else file.stat().st_size for file in paths}
    return [[str(file.relative_to(path.parent)), size] for file, size in sizes.items()]


def run(case: dict[str, Any], work: Path) -> tuple[list[Any], list[str]]:
    """Return the decision for each command line, and all sentences in JSON."""
    from click.testing import CliRunner
    from journal_inspect.commands.cli import cli

    from manager._cli.cli import run_cli

    decisions, printed = [], []
    for number, line in enumerate(case["lines"]):
        path = Path(case["path"]) if case["live"] else work / "j"
        if not case["live"] and (number == 0 or number >= case["reads"]):
            shutil.rmtree(work, ignore_errors=True)
            if Path(case["path"]).exists():
                shutil.copytree(case["path"], path)
        verb, *args = [part.format(path) for part in line]
        if verb == "subagents":
            decisions.append({"code": _in_process(run_cli, args)})
            continue
        result = CliRunner().invoke(cli, [verb, *args], catch_exceptions=False)
        decision = decision_of(result.exit_code, result.stdout, result.stderr)
        if not case["live"] and work.exists():
            decision["files"] = files(path)
        decisions.append(decision)
        if "json" in decision:
            printed += sentences(json.loads(result.stdout))
    return decisions, printed


def _in_process(run_cli: Any, args: list[str]) -> int:
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        return int(run_cli(args))


def main(cases: Path, work: Path, out: Path) -> None:
    os.fsync = os.fdatasync = lambda fd: None  # there is no power cut here
    import journal

    decisions = {name: run(case, work) for name, case in json.loads(cases.read_text()).items()}
    out.write_text(json.dumps({"engine": journal.__file__, "decisions": decisions}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

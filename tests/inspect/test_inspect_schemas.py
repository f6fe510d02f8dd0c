"""journal-inspect -o json and jsonl: the output is valid by the shipped schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from journal_inspect.commands.schema import read_schema
from journal_inspect.commands.verbs_other import SCHEMAS

from journal import JournalReader, Options
from manager import AgentResult, SubAgentManager
from tests.inspect.inspect_support import (
    Answer,
    ask,
    compact,
    fleet,
    flip,
    golden,
    make,
    open_journal,
    put,
    segments,
    tables,
    tear,
)
from tests.installed import import_package

jsonschema = import_package("jsonschema")
SCHEMA_FILES = Path(__file__).resolve().parents[2] / "tools" / "journal_inspect" / "schemas"


def schema_of(verb: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(read_schema(verb))
    return schema


def check(verb: str, *args: object) -> None:
    """Check the output in both formats: the whole value, and each line."""
    schema = schema_of(verb)
    answer = ask(verb, *args, "-o", "json")
    jsonschema.Draft202012Validator(schema).validate(answer.json)
    line = {**schema["$defs"]["line"], "$defs": schema["$defs"]}
    validator = jsonschema.Draft202012Validator(line)
    for value in ask(verb, *args, "-o", "jsonl").jsonl:
        validator.validate(value)


def fleet_alive_and_closed(workspace: Path) -> Iterator[Path]:
    """Yield a manager's journal while it is open, and after it was closed."""
    with fleet(workspace) as manager:
        yield Path(manager.path)
    yield Path(manager.path)


def test_each_command_has_a_valid_shipped_schema() -> None:
    """Each command has one schema, which is valid, described, and allows no other keys."""
    assert {file.stem for file in SCHEMA_FILES.iterdir()} == set(SCHEMAS)
    for verb in SCHEMAS:
        schema = schema_of(verb)
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["title"] == f"journal-inspect {verb.replace('-', ' ')}"
        assert schema["description"].endswith(".")
        assert ask("schema", verb).out == read_schema(verb)
        assert all(value["additionalProperties"] is not True for value in objects(schema))
        assert json.dumps(schema, indent=2) + "\n" == read_schema(verb)


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from objects(value)


def test_output_of_a_fleet_matches_the_schemas(tmp_path: Path) -> None:
    """Output of every command is valid, for a live and a closed fleet, whole and redacted."""
    for path in fleet_alive_and_closed(tmp_path):
        for redact in ([], ["--redact", "prompt", "--redact", "status", "--redact", "metadata"]):
            check("info", path)
            check("verify", path)
            check("log", path, *redact)
            check("log", path, "--frames", "--payload", "full", *redact)
            check("stats", path, *redact)
            check("checkpoint", path, *redact)
            check("agents", path, *redact)
            check("agents", path, "--at", 5, *redact)
            check("show", path, "lead", *redact)
            check("history", path, "lead", *redact)
            check("diff", path, 0, 11, *redact)
            check("diff", path, 11, 4, *redact)


def test_output_of_tables_matches_the_schemas(tmp_path: Path) -> None:
    """Output of every command is valid for a journal of tables, whole and redacted."""
    path = tables(tmp_path / "j")
    redacted = ("name", "value", "key", "table", "packed")
    for redact in ([], *(["--redact", name] for name in redacted)):
        check("get", path, "users", "lead", *redact)
        check("get", path, "users", '["de", 7]', *redact)
        check("export", path, *redact)
        check("export", path, "users", "--at", 3, *redact)
        check("log", path, *redact)
        check("log", path, "--payload", "short", *redact)
        check("log", path, "--frames", "--payload", "full", *redact)
        check("stats", path, *redact)
        check("checkpoint", path, *redact)
    check("tables", path)
    check("tables", path, "--at", 3)


def test_output_of_any_journal_matches_the_schemas(tmp_path: Path) -> None:
    """Output is valid for all msgpack types, a torn tail, foreign checkpoints, and no records."""
    path = golden(tmp_path / "golden")
    for place in (path, make(tmp_path / "empty", [])):
        check("info", place)
        check("verify", place)
        check("log", place)
        check("log", place, "--frames")
    check("stats", path)
    check("checkpoint", path)
    check("log", path, "--payload", "none")
    check("log", path, "--decoder", "json:dumps")
    with open_journal(tmp_path / "j") as journal:
        put(journal, 1)
        compact(journal, None, 1, "x", [1])
    check("checkpoint", tmp_path / "j")


def test_output_of_a_damaged_journal_matches_the_schemas(tmp_path: Path) -> None:
    """Output is valid for findings of each kind, frames of each state, and repairs."""
    with SubAgentManager.open(tmp_path, options=Options(segment_bytes=4096)) as manager:
        for number in range(40):
            agent = manager.spawn("x" * 100, name=f"n{number}")
            manager.wait_durable(manager.update_from_result(agent.agent_id, AgentResult("ok")).lsn)
        path = Path(manager.path)
    (path / "stray").touch()
    tear(path)
    with JournalReader.open(path) as reader:
        entry = next(entry for entry in reader.entries() if entry.lsn == 30)
    assert entry.path
    assert entry.offset
    flip(Path(entry.path), entry.offset + 50)
    for verb in ("info", "verify", "log", "stats", "repair"):
        check(verb, path)
    check("log", path, "--frames")
    validate("repair", ask("repair", path, "--apply", "--salvage", "-o", "json"))
    flip(segments(path)[0], 64)
    check("verify", path)
    check("log", path, "--frames")
    check("repair", make(tmp_path / "j"), "--cut-at", 2)


def validate(verb: str, answer: Answer) -> None:
    assert answer.code == 0
    jsonschema.Draft202012Validator(schema_of(verb)).validate(answer.json)


def test_output_of_a_backup_matches_the_schema(tmp_path: Path) -> None:
    """Output of a backup is valid in both formats, which are the same."""
    path = make(tmp_path / "j")
    for form in ("json", "jsonl"):
        validate("backup", ask("backup", path, tmp_path / form, "-o", form))


def test_a_schema_refuses_wrong_output(tmp_path: Path) -> None:
    """An unknown key, a missing key and a value of another type are refused."""
    entry = ask("log", make(tmp_path / "j"), "-o", "json").json[0]
    validator = jsonschema.Draft202012Validator(schema_of("log"))
    assert validator.is_valid([entry])
    for bad in ({**entry, "more": 1}, {k: v for k, v in entry.items() if k != "lsn"}):
        assert not validator.is_valid([bad])
    assert not validator.is_valid([{**entry, "lsn": "1"}])
    assert not validator.is_valid([{**entry, "schema_version": 2}])

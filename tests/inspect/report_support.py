"""Helpers for the tests of `report`: journals of agents with known times, and parsed pages."""

from __future__ import annotations

import io
import json
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from journal_inspect.commands.report import write_report

from journal import Journal, Options
from tests.inspect.inspect_support import TIMEOUT_S

HOUR_AGO_MS = (int(time.time()) - 3600) * 1000
BOOT = ["boot", "subagents/1", "first", HOUR_AGO_MS, 1]
HOSTILE = (
    "</script><script>window.pwned = 1</script>",
    '<img src="http://127.0.0.1:9/x" onerror="window.pwned = 1">',
    "\"'`></svg><svg onload=window.pwned=1>",
    "nul\0 escape\x1b[31m c1\x9b2J",
    "\u202egpj.exe\u2066\u2028",
    "{{ 7 * 7 }}{% raw %}${7 * 7}",
    "<!--<script>",
    "]]>&lt;script&gt;&#60;script&#62;",
    "\\u003c/script\\u003e javascript:window.pwned=1",
)


def agent_id(number: int) -> str:
    return f"agent_{number:012x}"


def at(seconds: float) -> int:
    """Return the Unix time in ms, `seconds` after the beginning of the fleet."""
    return HOUR_AGO_MS + round(seconds * 1000)


def spawn(number: int, seconds: float, status: str = "running", **more: Any) -> list[Any]:
    parent = more.get("parent")
    return [
        "spawn",
        agent_id(number),
        at(seconds),
        "first",
        None if parent is None else agent_id(parent),
        0 if parent is None else 1,
        status,
        more.get("name"),
        "general",
        more.get("role"),
        None,
        more.get("prompt", "look"),
        None,
        None,
        {},
    ]


def result(number: int, seconds: float, status: str = "completed", **more: Any) -> list[Any]:
    outcome = [more.get("result"), more.get("reason"), 3]
    return ["result", agent_id(number), at(seconds), status, *outcome, None, None, 5, 6]


def act(kind: str, number: int, seconds: float, *more: Any) -> list[Any]:
    return [kind, agent_id(number), at(seconds), *more]


# At least one agent of every outcome, in two families.
STORY = (
    BOOT,
    spawn(1, 0, name="lead"),
    spawn(2, 100, "queued", parent=1),
    act("start", 2, 400, "first"),
    result(2, 1000, result="42"),
    spawn(3, 200, parent=1, name="broken"),
    result(3, 700, "failed", reason="Traceback:\n  it broke"),
    spawn(4, 300, "queued"),
    spawn(5, 400, parent=4),
    act("interrupt", 5, 800, "which one?", None, None),
    act("resume", 5, 1600, "first"),
    result(5, 2000, "budget_exhausted", reason="spent"),
    spawn(6, 500),
    act("cancel", 6, 900, None),
    spawn(7, 600),
    act("interrupt", 7, 650, "needs a person", None, None),
    spawn(8, 700),
    result(8, 700),  # in the same millisecond
)


def write(path: Path, *records: Any) -> Path:
    """Make and close a journal with these records, one commit each."""
    options = Options(durability="os", checkpoint_min_bytes=1 << 40)
    with Journal.open(path, options=options) as journal:
        for record in records:
            journal.wait_durable(journal.append(record), timeout_s=TIMEOUT_S)
    return path


def write_many(path: Path, *records: Any) -> Path:
    """Make a journal with these records in commits of a hundred."""
    options = Options(durability="os", checkpoint_min_bytes=1 << 40)
    with Journal.open(path, options=options) as journal:
        for begin in range(0, len(records), 100):
            lsn = journal.append_batch(list(records[begin : begin + 100]))
            journal.wait_durable(lsn, timeout_s=TIMEOUT_S)
    return path


def big_fleet(path: Path, count: int) -> Path:
    """Make a fleet of `count` agents with prompts of ordinary length, half of them children."""
    records: list[Any] = [BOOT]
    for number in range(1, count + 1):
        parent = number - 1 if number % 2 == 0 else None
        prompt = f"Look at file {number}, find what is wrong with it, and fix it."
        begin = number * 3000 / count
        records.append(spawn(number, begin, parent=parent, prompt=prompt))
        if number % 10:
            records.append(result(number, begin + 60, "failed" if number % 7 == 0 else "completed"))
    return write_many(path, *records)


class Page(HTMLParser):
    """A report as an HTML parser sees it."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__()
        self.text, self.code = text, code
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, str] = {}  # the contents of scripts and styles
        self.words = ""
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self._open = (
            f"{tag} {attributes.get('id', '')}".strip() if tag in ("script", "style") else ""
        )

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            assert self._open not in self.inside, "one script, one style, one block of data"
            self.inside[self._open] = data
        else:
            self.words += data

    @property
    def data(self) -> Any:
        return json.loads(self.inside["script data"])

    @property
    def agents(self) -> list[dict[str, Any]]:
        """All agents, each with its "depth", and "spans" in seconds since the fleet's beginning."""
        data = self.data
        agents = []
        for *values, depth, spans in data["agents"]:
            agent = dict(zip(data["fields"], values, strict=True))
            agent["depth"] = depth
            agent["spans"] = [
                (kind, *((ms + data["begin"] - HOUR_AGO_MS) / 1000 for ms in times))
                for kind, *times in spans
            ]
            agents.append(agent)
        return agents

    def agent(self, number: int) -> dict[str, Any]:
        return next(agent for agent in self.agents if agent["agent_id"] == agent_id(number))


def report(path: Path | str, **options: Any) -> Page:
    out = io.StringIO()
    code = write_report(str(path), out, **options)
    return Page(out.getvalue(), code)


def write_report_beside(journal: Path) -> Path:
    """Write the report of a journal beside it. Return its path."""
    out = journal.with_name("report.html")
    write_report(str(journal), str(out))
    return out

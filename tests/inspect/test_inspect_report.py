"""journal-inspect report: its contents, and its safety against hostile payloads."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from journal_inspect.commands.report import write_report
from journal_inspect.exits import RefusedError
from journal_inspect.report import data as report_data
from journal_inspect.report import fleet as report_fleet

from journal import Journal, JournalReader
from manager import SubAgentManager
from tests.inspect.inspect_support import (
    COMMAND,
    TIMEOUT_S,
    ask,
    contents,
    damage_a_fleet,
    environment,
    flip,
    golden,
    make,
    open_journal,
    put,
    segments,
    tear,
)
from tests.inspect.report_support import (
    BOOT,
    HOSTILE,
    STORY,
    agent_id,
    big_fleet,
    report,
    result,
    spawn,
    write,
)
from tests.installed import import_package

import_package("jinja2")


def test_a_report_of_another_programs_journal_has_no_fleet(tmp_path: Path) -> None:
    """The report of another program's journal shows record kinds over time, and no fleet."""
    page = report(golden(tmp_path / "golden"))
    assert page.code == 0
    assert page.data["agents"] == []
    assert "Fleet" not in page.words
    assert "Kinds of records" in page.words
    assert "epoch 2" in page.words
    assert "golden/1" in page.words
    assert "torn_tail" in page.words
    assert "It loads the checkpoint at LSN 55 and replays 5 records." in page.words
    assert "passes over a torn tail" not in page.words, "an earlier open has handled it"


def test_a_report_shows_a_torn_tail(tmp_path: Path) -> None:
    """A torn tail is shown, with what the next open does about it."""
    path = make(tmp_path / "j")
    tear(path)
    page = report(path)
    assert "Torn tail" in page.words
    assert "It passes over a torn tail of 50 B." in page.words


def test_a_report_of_an_empty_journal_succeeds(tmp_path: Path) -> None:
    """The report of an empty journal is no error."""
    page = report(make(tmp_path / "j", []))
    assert page.code == 0
    assert "None yet." in page.words


def test_a_report_shows_damage_and_the_agents_before_it(tmp_path: Path) -> None:
    """P4: Damage gives exit code 3, with place and advice; the agents before it are shown."""
    path = write(tmp_path / "j", *STORY)
    (segment,) = segments(path)
    flip(segment, segment.read_bytes().index(agent_id(6).encode()))
    page = report(path)
    assert page.code == 3
    assert "Damaged" in page.words
    assert f"{segment}: offset " in page.words
    assert "It refuses the journal and changes nothing" in page.words
    assert f"journal-inspect repair {path}" in page.words
    assert [agent["agent_id"][-1] for agent in page.agents] == ["1", "2", "3", "4", "5"]


def test_a_fleet_before_the_damage_is_as_of_an_lsn(tmp_path: Path, story: Path) -> None:
    """P4: A fleet that ends at damage is labelled with its LSN."""
    damaged = damage_a_fleet(tmp_path)
    notice = f"As of LSN {damaged.lsn - 1}. Records after the damage are not included."
    assert notice in report(damaged.path).words
    assert "As of LSN" not in report(story).words


def test_a_report_continues_from_a_checkpoint_after_damage(tmp_path: Path) -> None:
    """A report continues from the newer checkpoint where the log does."""
    with SubAgentManager.open(tmp_path) as manager:
        path = Path(manager.path)
        manager.spawn("one")
        manager.wait_durable()
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("two")
        manager.compact()
        manager.spawn("three")
        manager.wait_durable()
    assert len(segments(path)) == 2
    flip(segments(path)[0], segments(path)[0].read_bytes().index(b"one"))
    page = report(path)
    assert {agent["prompt"] for agent in page.agents} == {"one", "two", "three"}
    assert page.code == 3


def test_a_report_of_a_live_journal_shows_running_agents(tmp_path: Path) -> None:
    """With a live writer, running agents are shown as running, and nothing is recovered."""
    with SubAgentManager.open(tmp_path) as manager:
        agent = manager.spawn("work")
        manager.compact()
        page = report(manager.path)
    assert [each["status"] for each in page.agents] == ["running"]
    assert page.agents[0]["agent_id"] == agent.agent_id
    assert f"Process {os.getpid()} has the journal open" in page.words
    assert "It interrupts 1 agent that is running now." in page.words


def test_a_report_lists_the_files_after_it_has_verified_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The segments and checkpoints of a page with a live writer are those of the same moment."""
    verify = report_data._verify
    with SubAgentManager.open(tmp_path) as manager, JournalReader.open(manager.path) as reader:

        def verify_and_compact(*arguments: Any) -> Any:
            findings = verify(*arguments)
            manager.spawn("work")
            manager.compact()
            return findings

        monkeypatch.setattr(report_data, "_verify", verify_and_compact)
        observed = report_data.observe(reader)
        assert [each.lsn for each in observed.checkpoints][:1] == [manager.stats().last_lsn]
        assert observed.segments == reader.segments()


def test_a_report_changes_no_file(tmp_path: Path, story: Path) -> None:
    """A report changes neither contents nor times of a journal's files, whole or damaged."""
    damaged = make(tmp_path / "damaged")
    flip(segments(damaged)[0], 70)
    for path in (story, golden(tmp_path / "golden"), damaged):
        before = contents(path)
        report(path)
        assert contents(path) == before


def test_a_report_takes_no_lock(tmp_path: Path) -> None:
    """A report is made while a writer has the journal, and does not disturb it."""
    with open_journal(tmp_path / "j") as journal:
        put(journal, ["a"])
        report(tmp_path / "j")
        put(journal, ["b"])
    with Journal.open(tmp_path / "j") as journal:
        assert journal.last_lsn == 2


# --- the file ---


def test_the_file_is_private(tmp_path: Path, story: Path) -> None:
    """The file can be read by its owner only, like the journal."""
    out = tmp_path / "out.html"
    assert write_report(str(story), str(out)) == 0
    assert out.stat().st_mode & 0o777 == 0o600
    assert out.read_bytes().startswith(b"<!doctype html>")


def test_a_dash_means_stdout(story: Path, tmp_path: Path) -> None:
    """`-o -` prints the page as it would be in a file, in UTF-8 in any locale, and nothing else."""
    with Journal.open(tmp_path / "größe") as journal:
        journal.append("日本")
    for place in (story, tmp_path / "größe"):
        out = tmp_path / "out.html"
        arguments = ["report", str(place), "--utc", "-o"]
        ask(*arguments, out)
        done = subprocess.run(
            [*COMMAND, *arguments, "-"],
            cwd=tmp_path,
            env=environment(LC_ALL="C", PYTHONIOENCODING="ascii"),
            capture_output=True,
            check=True,
            timeout=TIMEOUT_S,
        )
        pages = [re.sub(rb"\d+", b"", page) for page in (done.stdout, out.read_bytes())]
        assert pages[0] == pages[1]  # but for the time at which each was made
        assert done.stderr == b""
        assert not (tmp_path / "-").exists()


@pytest.mark.parametrize("name", ["r.html", "LOCK", "../j/new", "../link"])
def test_no_report_is_written_into_the_journal(tmp_path: Path, story: Path, name: str) -> None:
    """P4: A report that would be written into the journal is refused, whatever path leads there."""
    (tmp_path / "link").symlink_to(story / "LOCK")
    before = contents(story)
    with pytest.raises(RefusedError, match="lies inside the journal"):
        write_report(str(story), str(story / name))
    assert contents(story) == before


def test_a_missing_library_is_named(story: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a missing package says how to install it."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"needs jinja2.*journal-engine\[cli\]"):
        report(story)


# --- payloads ---


def hostile(path: Path) -> Path:
    records: list[Any] = [BOOT]
    for number, text in enumerate(HOSTILE, 1):
        records += [
            spawn(number, number, name=text, role=text, prompt=text * 50),
            result(number, number + 5, "failed", reason=f"{text}\n{text}" * 40, result=text),
        ]
    return write(path, *records)


def test_payloads_are_text(tmp_path: Path) -> None:
    """P9: Hostile names, records, checkpoints and paths do not change the elements of the page.

    Nothing of them appears outside of text.
    """
    names = {"harmless": ["harmless"] * len(HOSTILE), "\"><img src=x onerror='1'>": HOSTILE}
    shapes = []
    for name, texts in names.items():
        records: list[Any] = [BOOT]
        for number, text in enumerate(texts, 1):
            records += [spawn(number, number, name=text, role=text, prompt=text * 50)]
            records += [result(number, number + 5, "failed", reason=text * 40, result=text)]
        page = report(write(tmp_path / name, *records))
        shapes.append(Counter((tag, tuple(sorted(attributes))) for tag, attributes in page.tags))
        assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
        assert {a["name"] for a in page.agents} <= {report_page_safe(text) for text in texts}
    harmless, evil = shapes
    ticks = {("line", ("x1", "x2", "y2")), ("text", ("dx", "x", "y"))}
    for shape in (harmless, evil):
        for variable in [key for key in shape if key in ticks or key[0] in ("title", "rect")]:
            del shape[variable]
    assert harmless == evil
    other = report(write(tmp_path / "<b>plain<b>", *([text, 1] for text in HOSTILE)))
    assert not {"b", "img"} & {tag for tag, attributes in other.tags if not attributes}


def report_page_safe(text: str) -> str:
    from _journal_console.text import escaped

    return escaped(text)


def test_payloads_reach_the_page_escaped(tmp_path: Path) -> None:
    """P9: The page contains no control character, and none that changes the direction of text."""
    page = report(hostile(tmp_path / "j"))
    assert not [c for c in page.text if not c.isprintable() and c != "\n"]
    assert "\\u202egpj.exe" in page.words
    assert "\\u0000" in page.words


def test_long_texts_are_shortened(tmp_path: Path) -> None:
    """A very long prompt or reason is shortened to its beginning and its end."""
    text = "begin" + '<&"' * 350_000 + "end"
    page = report(
        write(tmp_path / "j", BOOT, spawn(1, 0, prompt=text), result(1, 1, "failed", reason=text))
    )
    agent = page.agent(1)
    for name in ("prompt", "reason"):
        assert agent[name].startswith("begin")
        assert agent[name].endswith("end")
        assert "characters left out" in agent[name]
    assert len(page.text) < 100_000


def test_the_policy_allows_only_the_shipped_script_and_style(story: Path) -> None:
    """P9: The page's policy names its script and style by hash and forbids all else.

    Nothing in the page refers to another place.
    """
    page = report(story)
    (policy,) = (
        attributes["content"]
        for _, attributes in page.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.split(" ", 1) for rule in str(policy).split("; "))
    for name, kind in (("script", "script-src"), ("style", "style-src")):
        digest = hashlib.sha256(page.inside[name].encode()).digest()
        assert rules[kind] == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["require-trusted-types-for"] == "'script'"
    links = [
        v for _, values in page.tags for a, v in values.items() if a in ("href", "src", "style")
    ]
    assert links
    assert all(str(link).startswith("#") for link in links)
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert sink not in page.inside["script"]


def test_fields_are_redacted(story: Path) -> None:
    """Redacted text is nowhere in the page."""
    page = report(story, redact=["reason", "name", "prompt"])
    assert {agent["reason"] for agent in page.agents} == {"[redacted]"}
    for secret in ("it broke", "which one?", "lead", "broken", "look"):
        assert secret not in json.dumps(page.data)
        assert secret not in page.words


# --- size ---


@pytest.mark.parametrize("count", [1000, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_large_fleet_is_a_small_file(tmp_path: Path, count: int) -> None:
    """A page takes well under a kilobyte for each of thousands of agents."""
    page = report(big_fleet(tmp_path / "j", count))
    assert len(page.agents) == count
    assert len(page.text) < 100_000 + 700 * count


def test_the_most_recently_changed_agents_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above a limit, the most recently changed agents are drawn, and the others are counted."""
    monkeypatch.setattr(report_fleet, "DRAWN_MAX", 3)
    page = report(write(tmp_path / "j", *STORY))
    assert {agent["agent_id"][-1] for agent in page.agents} == {"2", "5", "6"}
    assert "Not drawn: 5 agents" in page.words

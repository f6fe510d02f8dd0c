"""journal-inspect report in a real browser: what is drawn, and that everybody can see it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tests.inspect.browser_support import SCHEMES, Browser, contrast, rgb
from tests.inspect.inspect_support import damage_a_fleet, golden
from tests.inspect.report_support import (
    Page,
    write_report_beside,
)
from tests.installed import import_package
from tests.tiers import slow_unless

import_package("jinja2")

STATUSES = (
    *("completed", "failed", "cancelled", "interrupted", "budget_exhausted", "queued"),
    "running",
)
TEXT_CONTRAST = 4.5  # WCAG 2.2, 1.4.3
DRAWN_CONTRAST = 3.0  # WCAG 2.2, 1.4.11
HOUR_MS = 3_600_000


def test_every_agent_has_its_bars(browser: Browser, page: Path) -> None:
    """Each agent is a row, in the page's order, and each of its spans a visible bar.

    A bar has the place and the length of its time, and is visible even if it took no time.
    """
    browser.open(page)
    agents = Page(page.read_text()).agents
    rows = browser.all("#agents > li")
    assert len(rows) == len(agents) == 8
    (axis,) = browser.boxes("#axis svg")
    data = Page(page.read_text()).data
    for number, agent in enumerate(agents):
        boxes = browser.boxes(f"#a{number} rect")
        assert len(boxes) == len(agent["spans"])
        is_named = agent["name"] != agent["agent_id"]
        label = agent["name"] if is_named else agent["prompt"]
        assert rows[number].text.split() == [agent["status"], label]
        spans = data["agents"][number][-1]
        for box, (_, begin, end) in zip(boxes, spans, strict=True):
            scale = (axis["right"] - axis["left"]) / data["span"]
            assert box["left"] == pytest.approx(axis["left"] + begin * scale, abs=1.5)
            assert box["right"] == pytest.approx(axis["left"] + end * scale, abs=4)
            assert box["right"] - box["left"] >= 1


def test_running_is_drawn_higher_than_waiting(browser: Browser, page: Path) -> None:
    """Running and waiting bars differ in height, not only in colour."""
    browser.open(page)
    runs, waits = browser.boxes("#agents rect.r"), browser.boxes("#agents rect.w")
    low = min(box["bottom"] - box["top"] for box in runs)
    assert runs
    assert waits
    assert all(box["bottom"] - box["top"] < low / 2 for box in waits)


def test_outcomes_differ_without_colour(browser: Browser, page: Path) -> None:
    """Each outcome has a word, a sign, and a pattern in its running bars."""
    browser.open(page)
    script = """return [...document.querySelectorAll("#agents > li")].map(row => {
        const ran = row.querySelector("rect.r");
        return [row.querySelector("b").textContent,
                getComputedStyle(row.querySelector("b"), "::before").content,
                ran ? getComputedStyle(ran).fill.replace(/rgb.*/, "plain") : null];
    })"""
    looks = {status: (sign, fill) for status, sign, fill in browser.ask(script)}
    assert looks.keys() == set(STATUSES) - {"running"}
    assert len({sign for sign, _ in looks.values()}) == len(looks)
    fills = [fill for _, fill in looks.values() if fill]
    assert len(set(fills)) == len(fills) == len(looks) - 1, "a queued one never ran"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_outcomes_are_painted(browser: Browser, page: Path, scheme: str) -> None:
    """Each outcome's colour appears on the screen, in both colour schemes."""
    browser.open(page, scheme)
    script = """return Object.fromEntries([...document.querySelectorAll("#agents > li > b")]
        .map(word => [word.textContent, getComputedStyle(word).color]))"""
    expected = {status: rgb(colour) for status, colour in browser.ask(script).items()}
    painted = browser.colours(browser.one("#scroller").screenshot_as_base64)
    assert len(expected) == 6
    for status, colour in expected.items():
        assert painted.get(colour, 0) > 50, status


@pytest.mark.parametrize("scheme", SCHEMES)
def test_colours_contrast_with_their_background(browser: Browser, page: Path, scheme: str) -> None:
    """WCAG 1.4.3 and 1.4.11: Text and bars have enough contrast, in both colour schemes."""
    browser.open(page, scheme)
    script = """
        const shown = it => it.getClientRects().length && it.textContent.trim();
        const behind = it => {
          for (; it; it = it.parentElement) {
            const colour = getComputedStyle(it).backgroundColor;
            if (!/, 0\\)$/.test(colour)) return colour;
          }
          throw new Error("nothing behind");
        };
        const texts = [...document.querySelectorAll("body *")].filter(it => shown(it) &&
          [...it.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
        return texts.map(it => [it.tagName, it.textContent.slice(0, 40),
          it.closest("svg") ? getComputedStyle(it).fill : getComputedStyle(it).color, behind(it)]);
    """
    texts = browser.ask(script)
    assert len(texts) > 60
    for tag, text, colour, behind in texts:
        assert contrast(rgb(colour), rgb(behind)) >= TEXT_CONTRAST, (tag, text, colour, behind)
    behind = rgb(browser.ask("return getComputedStyle(document.body).backgroundColor"))
    assert (contrast(behind, (0, 0, 0)) < 3) == (scheme == "dark"), "it follows the scheme"
    script = """return [...document.querySelectorAll("#agents rect, .chart rect, .share rect")]
        .map(bar => getComputedStyle(bar).stroke === "none" ? getComputedStyle(bar).fill
                                                            : getComputedStyle(bar).stroke)"""
    for colour in set(browser.ask(script)):
        assert contrast(rgb(colour), behind) >= DRAWN_CONTRAST, colour


def test_a_narrow_window_needs_no_sideways_scrolling(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    """Labels do not overlap on a small screen, and nothing needs sideways scrolling."""
    size = {"height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.command("Emulation.setDeviceMetricsOverride", width=420, **size)
    try:
        browser.open(page)
        boxes = [box for box in browser.boxes("#axis text") if box["right"] > box["left"]]
        assert boxes
        assert all(a["right"] < b["left"] for a, b in pairwise(boxes))
        assert browser.ask("return document.documentElement.scrollWidth") <= 420
        # The status is only its sign, not a few letters of its word.
        size_of = "return getComputedStyle(document.querySelector('#agents b')).fontSize"
        assert browser.ask(size_of) == "0px"
        # The message of an error is visible without scrolling sideways.
        (tmp_path / "other").mkdir()
        damaged = write_report_beside(damage_a_fleet(tmp_path / "other").path)
        for file, table in ((page, ".errors"), (damaged, ".words")):
            browser.open(file)
            script = f"const it = document.querySelector('{table}'); return it.scrollWidth - "
            assert browser.ask(f"{script} it.clientWidth") <= 0
    finally:
        browser.command("Emulation.clearDeviceMetricsOverride")


@pytest.mark.parametrize(
    ("span_ms", "step_ms"),
    slow_unless(
        lambda _, step_ms: step_ms == HOUR_MS,
        [
            (3_636_000, HOUR_MS),
            (100 * HOUR_MS, 168 * HOUR_MS),
            (17_760 * HOUR_MS, 17_520 * HOUR_MS),
        ],
    ),
    ids=["full hour", "week", "two years"],
)
def test_a_narrow_axis_is_labelled_at_any_time_of_day(
    browser: Browser, page: Path, span_ms: int, step_ms: int
) -> None:
    """A narrow axis has a label, and labels do not touch, wherever the only full step falls."""
    text = page.read_text()
    data = Page(text).data
    size = {"height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.command("Emulation.setDeviceMetricsOverride", width=420, **size)
    try:
        for share in (0.01, 0.3, 0.6, 0.93, 0.95, 0.97, 0.99):
            # This offset of the time zone puts the full step at this share of the axis.
            offset_ms = -data["begin"] % step_ms - round(span_ms * share)
            moved = text.replace(f'"offset":{data["offset"]},', f'"offset":{offset_ms},')
            page.write_text(moved.replace(f'"span":{data["span"]},', f'"span":{span_ms},'))
            browser.open(page)
            boxes = [box for box in browser.boxes("#axis text") if box["right"] > box["left"]]
            assert boxes, share
            assert all(a["right"] < b["left"] for a, b in pairwise(boxes)), share
    finally:
        browser.command("Emulation.clearDeviceMetricsOverride")


def test_a_time_is_one_line(browser: Browser, page: Path) -> None:
    """A time in an agent's details stays on one line in a window of any width."""
    script = """return [...document.querySelectorAll("#details dd")]
        .filter(it => /^[0-9]{4}-/.test(it.textContent)).map(it => it.clientHeight)"""
    size = {"height": 900, "deviceScaleFactor": 1, "mobile": False}
    try:
        for width in (420, 800, 1100, 1300, 1500):
            browser.command("Emulation.setDeviceMetricsOverride", width=width, **size)
            browser.open(page)
            heights = browser.ask(script)
            assert heights
            assert max(heights) < 30, width
    finally:
        browser.command("Emulation.clearDeviceMetricsOverride")


def test_commits_are_drawn(browser: Browser, tmp_path: Path) -> None:
    """Charts of commits, batch sizes and kinds stand on their axis and use the full height."""
    browser.open(write_report_beside(golden(tmp_path / "golden")))
    assert not browser.all("#agents")
    assert len(browser.boxes("figure .chart")) == 2
    charts = browser.all(".chart")
    assert len(charts) == 2 + 12
    for number, box in enumerate(browser.boxes(".chart")):
        browser.ask("document.querySelectorAll('.chart')[arguments[0]].id = 'now'", number)
        bars = browser.boxes("#now rect")
        browser.ask("document.getElementById('now').id = ''")
        assert bars
        assert {round(bar["bottom"]) for bar in bars} <= {
            round(box["bottom"]) - n for n in (0, 1, 2)
        }
        assert min(bar["top"] for bar in bars) == pytest.approx(box["top"], abs=2)
    assert browser.take_logs()[0] == []

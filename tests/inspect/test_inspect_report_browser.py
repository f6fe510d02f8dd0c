"""journal-inspect report in a real browser: interaction, and hostile payloads."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.inspect.browser_support import SCHEMES, TIMEOUT_S, Browser, rgb
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
    write_report_beside,
)
from tests.installed import import_package
from tests.support import until

import_package("jinja2")

from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402


def test_the_focused_agents_details_are_shown(browser: Browser, page: Path) -> None:
    """The keyboard alone is enough: Tab reaches the list once, and arrow keys move through it.

    Each agent's details are shown, the focus is visible, and screen readers get both.
    """
    browser.open(page)
    browser.one("#find").click()
    for _ in range(6):
        browser.press(Keys.TAB)
    focused = browser.driver.switch_to.active_element
    assert focused.get_attribute("id") == "a0"
    assert focused.get_attribute("role") == "treeitem"
    assert focused.get_attribute("aria-describedby") == "details"
    assert "lead" in browser.one("#details").text
    browser.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    focused = browser.driver.switch_to.active_element
    assert focused.get_attribute("id") == "a2"
    assert focused.get_attribute("aria-level") == "2"
    assert focused.value_of_css_property("outline-style") == "solid"
    details = browser.one("#details").text
    assert "Traceback:\n  it broke" in details
    assert "8 min 20 s" in details, "it ran for 500 s"
    browser.press(Keys.END)
    assert browser.driver.switch_to.active_element.get_attribute("id") == "a7"
    browser.press(Keys.ARROW_DOWN, Keys.HOME)
    assert browser.driver.switch_to.active_element.get_attribute("id") == "a0"
    browser.press(Keys.TAB)
    outside = browser.driver.switch_to.active_element
    assert outside.get_attribute("role") != "treeitem", "the list is one stop"


def test_the_details_follow_the_pointer(browser: Browser, page: Path) -> None:
    """Details of the agent under the pointer are shown, and otherwise those of the chosen one."""
    browser.open(page)
    ActionChains(browser.driver).move_to_element(browser.one("#a2")).perform()
    assert "it broke" in browser.one("#details").text
    ActionChains(browser.driver).move_to_element(browser.one("h1")).perform()
    assert "lead" in browser.one("#details").text


def test_scrolling_under_the_pointer_keeps_the_focused_details(
    browser: Browser, tmp_path: Path
) -> None:
    """Arrow keys show the focused agent's details, wherever the pointer rests."""
    browser.open(write_report_beside(big_fleet(tmp_path / "j", 200)))
    row = browser.one("#a5")
    ActionChains(browser.driver).move_to_element(row).click().perform()
    browser.press(*[Keys.ARROW_DOWN] * 60)
    # A browser reports the element under the pointer with one of the next frames.
    frames = "let left = 30; const frame = () => left-- ? requestAnimationFrame(frame) : done();"
    browser.ask_later(f"{frames} frame();")
    assert browser.driver.switch_to.active_element.get_attribute("id") == "a65"
    assert agent_id(66) in browser.one("#details").text


def test_zoom_changes_the_scale(browser: Browser, page: Path) -> None:
    """Keys, buttons and a drag zoom into bars and axis; a reset restores both."""
    browser.open(page)

    def length() -> float:
        box = browser.boxes("#a2 rect")[0]
        return box["right"] - box["left"]

    full_length, ticks, range_text = length(), browser.ticks(), browser.one("#range").text
    browser.one("#a2").click()
    browser.press("+")
    assert browser.ticks() != ticks
    assert browser.one("#range").text != range_text
    browser.press("0")
    assert length() == pytest.approx(full_length, abs=1)
    browser.press(Keys.ENTER)
    (axis,) = browser.boxes("#axis svg")
    assert length() == pytest.approx((axis["right"] - axis["left"]) / 1.2, rel=0.02)
    after = browser.ticks()
    browser.press(Keys.ARROW_RIGHT)
    assert browser.ticks() != after
    browser.one("#all").click()
    assert (browser.ticks(), browser.one("#range").text) == (ticks, range_text)
    browser.one("#in").click()
    browser.one("#out").click()
    assert browser.ticks() == ticks
    box = browser.boxes("#a2 rect")[0]
    (svg,) = browser.boxes("#a2 svg")
    drag = ActionChains(browser.driver)
    middle = (svg["left"] + svg["right"]) / 2
    row = browser.one("#a2 svg")
    drag.move_to_element_with_offset(row, round(box["left"] - middle), 0).click_and_hold()
    drag.move_by_offset(round(box["right"] - box["left"]), 3).release().perform()
    assert length() > 0.9 * (axis["right"] - axis["left"])
    assert len(browser.ticks(".under")) == len(browser.ticks()), "the charts follow"


def test_the_script_draws_the_static_ticks(browser: Browser, page: Path) -> None:
    """The axis is the same with and without the script until somebody zooms."""
    browser.open(page)
    drawn = browser.ticks()
    text = re.search(r'id="axis".*?</svg>', page.read_text(), re.DOTALL)
    assert text
    static = re.findall(r'<text x="([\d.]+)%"[^>]*>([^<]*)<', text[0])
    assert [label for _, label in static] == [label for _, label in drawn]
    assert [float(x) for x, _ in static] == pytest.approx([x for x, _ in drawn], abs=0.01)
    assert 2 <= len(drawn) <= 8


def test_a_search_finds_words_of_an_agent(browser: Browser, page: Path) -> None:
    """Words are searched in all details of an agent, and the keyboard moves through the results."""
    browser.open(page)
    browser.one("#find").send_keys("FAILED broke")
    assert [row.get_attribute("id") for row in browser.all("#agents > li:not([hidden])")] == ["a2"]
    assert "1 of 8 agents" in browser.one("#axis").text
    browser.one("#find").send_keys(Keys.TAB * 6)
    assert browser.driver.switch_to.active_element.get_attribute("id") == "a2"


def test_an_error_leads_to_its_agent(browser: Browser, page: Path) -> None:
    """Errors are listed newest first, and each link chooses its agent in the timeline."""
    browser.open(page)
    words = [row.text for row in browser.all(".errors tbody tr")]
    reasons = ("spent", "it broke", "needs a person", "It was running when its process ended.")
    assert len(words) == len(reasons)
    assert all(reason in text for reason, text in zip(reasons, words, strict=True))
    browser.one('.errors a[href="#a2"]').click()
    assert browser.driver.switch_to.active_element.get_attribute("id") == "a2"
    assert "it broke" in browser.one("#details").text


@pytest.mark.parametrize("count", [1000, pytest.param(5000, marks=pytest.mark.slow)])
def test_thousands_of_agents_are_redrawn_when_visible(
    browser: Browser, tmp_path: Path, count: int
) -> None:
    """A zoom redraws the visible agents at once, and others when they are scrolled into view."""
    page = write_report_beside(big_fleet(tmp_path / "j", count))
    browser.open(page)
    script = "return [...document.querySelectorAll('#agents rect')].map(it => it.getAttribute('x'))"
    before = browser.ask(script)
    assert len(browser.all("#agents > li")) == count
    browser.one("#in").click()
    changed = [a != b for a, b in zip(before, browser.ask(script), strict=True)]
    assert 10 < sum(changed) < 100
    browser.ask("document.getElementById('scroller').scrollTop = 1e9")
    until(lambda: browser.ask(script)[-1] != before[-1], "a redraw of the visible agents")
    browser.one("#all").click()
    browser.ask("document.getElementById('scroller').scrollTop = 0")
    browser.one("#a0").click()
    browser.press(Keys.END)
    last = f"#a{count - 1}"
    assert browser.driver.switch_to.active_element.get_attribute("id") == last[1:]
    assert agent_id(count) in browser.one("#details").text
    browser.press(Keys.ENTER)
    (box,), (axis,) = browser.boxes(f"{last} rect"), browser.boxes("#axis svg")
    assert box["right"] - box["left"] > 0.75 * (axis["right"] - axis["left"])
    assert browser.take_logs()[0] == []


# --- without script, and on paper ---


def test_without_its_script_the_page_still_shows(browser: Browser, page: Path) -> None:
    """Without scripts, agents, bars and axis are shown, and the controls are not."""
    browser.open(page, script=False)
    try:
        assert len(browser.all("#agents > li")) == 8
        boxes = browser.boxes("#agents rect")
        assert len(boxes) > 8
        assert all(box["right"] - box["left"] >= 1 for box in boxes), "one of no time too"
        assert not browser.one(".tools").is_displayed()
        assert browser.all("#axis text")[0].is_displayed()
    finally:
        browser.open(page)


def test_the_page_prints_every_agent(browser: Browser, tmp_path: Path) -> None:
    """Every agent is printed in black on white, without controls."""
    browser.open(write_report_beside(big_fleet(tmp_path / "j", 200)), "dark", media="print")
    boxes = browser.boxes("#agents > li")
    tops = [box["top"] for box in boxes]
    assert tops == sorted(set(tops))
    (scroller,) = browser.boxes("#scroller")
    assert scroller["bottom"] >= boxes[-1]["bottom"] - 1
    assert not browser.one(".tools").is_displayed()
    assert not browser.one("#details").is_displayed()
    colour = browser.ask("return getComputedStyle(document.body).backgroundColor")
    assert rgb(colour) == (255, 255, 255)
    pdf = browser.command("Page.printToPDF", printBackground=True)["data"]
    assert base64.b64decode(pdf).startswith(b"%PDF")


# --- payloads ---


def without_policy(text: str) -> str:
    return re.sub(r"<meta http-equiv[^>]*>", "", text)


@pytest.mark.parametrize("policy", ["with its policy", "without it"])
def test_payloads_neither_run_nor_fetch(browser: Browser, tmp_path: Path, policy: str) -> None:
    """P9: Hostile names, prompts, results, reasons and paths are shown as text.

    None of their scripts runs, nothing is fetched, and the console is empty. That holds even
    without the policy, so the policy is not the only guard.
    """
    records: list[Any] = [BOOT]
    for number, text in enumerate(HOSTILE, 1):
        records.append(spawn(number, number, name=text, role=text, prompt=text * 3))
        ended = result(number, number + 5, "failed", reason=f"{text}\n{text}", result=text)
        records.append(ended)
    page = write_report_beside(write(tmp_path / "<img src=x onerror='window.pwned=1'>", *records))
    if policy == "without it":
        page.write_text(without_policy(page.read_text()))
    browser.open(page)
    browser.one("#a0").click()
    for number, text in enumerate(HOSTILE):
        assert browser.driver.switch_to.active_element.get_attribute("id") == f"a{number}"
        if text.isprintable():
            assert text in browser.one("#details").get_attribute("textContent")  # type: ignore[operator]
        browser.press(Keys.ARROW_DOWN)
    assert browser.ask("return typeof window.pwned") == "undefined"
    assert not browser.all("img, iframe, object, embed, link, base, form, svg[onload], [onerror]")
    assert len(browser.all("script")) == 2
    messages, fetched = browser.take_logs()
    assert messages == []
    assert fetched == [page.as_uri()], "the page itself, so requests are seen"


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """Run a server. Yield its address, and the paths that are requested from it."""
    requested: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requested
        finally:
            server.shutdown()
            thread.join(TIMEOUT_S)


@pytest.mark.parametrize("is_there", [True, False])
def test_the_policy_stops_injected_markup(browser: Browser, page: Path, is_there: bool) -> None:
    """P9: The browser enforces the policy against markup that got into the page.

    Its script does not run and its picture is not fetched; without the policy, both happen.
    """
    with listening() as (url, requested):
        evil = f"<script>window.pwned = 1</script><img src='{url}/picture'>"
        text = page.read_text().replace("<header>", f"{evil}<header>")
        page.write_text(text if is_there else without_policy(text))
        browser.open(page)  # loaded, pictures too
        pwned = browser.ask("return window.pwned === 1")
        messages = " ".join(browser.take_logs()[0])
    assert (pwned, requested) == ((False, []) if is_there else (True, ["/picture"]))
    assert ("Content Security Policy" in messages) == is_there


def test_the_page_logs_and_fetches_nothing(browser: Browser, page: Path) -> None:
    """The page causes no console message, and fetches nothing, in both colour schemes."""
    for scheme in SCHEMES:
        browser.open(page, scheme)
        messages, fetched = browser.take_logs()
        assert messages == []
        assert fetched == [page.as_uri()]


def test_a_redacted_page_keeps_its_secrets(browser: Browser, tmp_path: Path) -> None:
    """Redacted text is nowhere in the document."""
    journal = write(tmp_path / "j", *STORY)
    page = tmp_path / "report.html"
    page.write_text(report(journal, redact=["reason"]).text)
    browser.open(page)
    html = browser.ask("return document.documentElement.outerHTML")
    assert "[redacted]" in html
    assert "it broke" not in html

"""journal-inspect's report in a real browser: what hands and payloads can do there."""

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

from tests.inspect.browser_support import SCHEMES, TIMEOUT_S, Browser, browsing, rgb
from tests.inspect.report_support import (
    BOOT,
    HOSTILE,
    STORY,
    agent_id,
    big_fleet,
    made,
    report,
    result,
    spawn,
    write,
)
from tests.installed import import_package
from tests.support import until

import_package("jinja2")

from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The report of a fleet with an agent of every outcome."""
    return made(write(tmp_path / "j", *STORY))


def test_details_come_with_the_focus(browser: Browser, page: Path) -> None:
    """By keyboard alone: tabbing reaches the list once, arrows go through it, and each agent's
    details are shown, the focus is seen, and a reader of screens is told."""
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
    told = browser.one("#details").text
    assert "Traceback:\n  it broke" in told
    assert "8 min 20 s" in told, "it ran for 500 s"
    browser.press(Keys.END)
    assert browser.driver.switch_to.active_element.get_attribute("id") == "a7"
    browser.press(Keys.ARROW_DOWN, Keys.HOME)
    assert browser.driver.switch_to.active_element.get_attribute("id") == "a0"
    browser.press(Keys.TAB)
    outside = browser.driver.switch_to.active_element
    assert outside.get_attribute("role") != "treeitem", "the list is one stop"


def test_details_come_with_the_pointer(browser: Browser, page: Path) -> None:
    """Pointing at an agent shows its details; leaving shows those of the chosen one again."""
    browser.open(page)
    ActionChains(browser.driver).move_to_element(browser.one("#a2")).perform()
    assert "it broke" in browser.one("#details").text
    ActionChains(browser.driver).move_to_element(browser.one("h1")).perform()
    assert "lead" in browser.one("#details").text


def test_scrolling_under_the_pointer_keeps_the_focused_details(
    browser: Browser, tmp_path: Path
) -> None:
    """Going through the list by keys, the details are those of the agent with the focus, wherever
    the pointer rests."""
    browser.open(made(big_fleet(tmp_path / "j", 200)))
    row = browser.one("#a5")
    ActionChains(browser.driver).move_to_element(row).click().perform()
    browser.press(*[Keys.ARROW_DOWN] * 60)
    # A browser tells of what came under the pointer with one of the next frames.
    frames = "let left = 30; const frame = () => left-- ? requestAnimationFrame(frame) : done();"
    browser.ask_later(f"{frames} frame();")
    assert browser.driver.switch_to.active_element.get_attribute("id") == "a65"
    assert agent_id(66) in browser.one("#details").text


def test_zoom_changes_the_scale(browser: Browser, page: Path) -> None:
    """By keys, buttons and a drag: bars get longer, the axis says another time; all comes back."""
    browser.open(page)

    def length() -> float:
        box = browser.boxes("#a2 rect")[0]
        return box["right"] - box["left"]

    whole, ticks, said = length(), browser.ticks(), browser.one("#range").text
    browser.one("#a2").click()
    browser.press("+")
    assert browser.ticks() != ticks
    assert browser.one("#range").text != said
    browser.press("0")
    assert length() == pytest.approx(whole, abs=1)
    browser.press(Keys.ENTER)
    (axis,) = browser.boxes("#axis svg")
    assert length() == pytest.approx((axis["right"] - axis["left"]) / 1.2, rel=0.02)
    after = browser.ticks()
    browser.press(Keys.ARROW_RIGHT)
    assert browser.ticks() != after
    browser.one("#all").click()
    assert (browser.ticks(), browser.one("#range").text) == (ticks, said)
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


def test_the_script_makes_the_ticks_that_the_page_has(browser: Browser, page: Path) -> None:
    """Until somebody zooms the axis is the same with the script and without."""
    browser.open(page)
    drawn = browser.ticks()
    text = re.search(r'id="axis".*?</svg>', page.read_text(), re.DOTALL)
    assert text
    static = re.findall(r'<text x="([\d.]+)%"[^>]*>([^<]*)<', text[0])
    assert [label for _, label in static] == [label for _, label in drawn]
    assert [float(x) for x, _ in static] == pytest.approx([x for x, _ in drawn], abs=0.01)
    assert 2 <= len(drawn) <= 8


def test_searching_keeps_the_query(browser: Browser, page: Path) -> None:
    """Words are sought in all that is told of an agent; what is left can be walked through."""
    browser.open(page)
    browser.one("#find").send_keys("FAILED broke")
    assert [row.get_attribute("id") for row in browser.all("#agents > li:not([hidden])")] == ["a2"]
    assert "1 of 8 agents" in browser.one("#axis").text
    browser.one("#find").send_keys(Keys.TAB * 6)
    assert browser.driver.switch_to.active_element.get_attribute("id") == "a2"


def test_an_error_leads_to_its_agent(browser: Browser, page: Path) -> None:
    """The newest error comes first; its link chooses the agent in the timeline."""
    browser.open(page)
    words = [row.text for row in browser.all(".errors tbody tr")]
    reasons = ("spent", "it broke", "needs a person", "It was running when its process ended.")
    assert len(words) == len(reasons)
    assert all(reason in text for reason, text in zip(reasons, words, strict=True))
    browser.one('.errors a[href="#a2"]').click()
    assert browser.driver.switch_to.active_element.get_attribute("id") == "a2"
    assert "it broke" in browser.one("#details").text


@pytest.mark.parametrize("count", [1000, 5000])
def test_thousands_of_agents(browser: Browser, tmp_path: Path, count: int) -> None:
    """All are there; a zoom draws again only those in sight, and the others once they come."""
    page = made(big_fleet(tmp_path / "j", count))
    browser.open(page)
    script = "return [...document.querySelectorAll('#agents rect')].map(it => it.getAttribute('x'))"
    before = browser.ask(script)
    assert len(browser.all("#agents > li")) == count
    browser.one("#in").click()
    changed = [a != b for a, b in zip(before, browser.ask(script), strict=True)]
    assert 10 < sum(changed) < 100
    browser.ask("document.getElementById('scroller').scrollTop = 1e9")
    until(lambda: browser.ask(script)[-1] != before[-1], "what comes in sight is drawn again")
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
    assert browser.heard()[0] == []


# --- other ways to see it ---


def test_without_its_script_the_page_still_shows(browser: Browser, page: Path) -> None:
    """Where no script may run, agents, bars and the axis are there; what needs it is not."""
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
    """On paper every agent is laid out in black on white, and nothing that needs hands."""
    browser.open(made(big_fleet(tmp_path / "j", 200)), "dark", media="print")
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


# --- what payloads can do ---


def without_policy(text: str) -> str:
    return re.sub(r"<meta http-equiv[^>]*>", "", text)


@pytest.mark.parametrize("policy", ["with its policy", "without it"])
def test_payloads_run_nothing_and_fetch_nothing(
    browser: Browser, tmp_path: Path, policy: str
) -> None:
    """P9: names, prompts, results, reasons and paths that try are shown as they are; no script of
    theirs runs, nothing is fetched, nobody complains; not even where the policy is taken away,
    so it is not the only guard."""
    records: list[Any] = [BOOT]
    for number, text in enumerate(HOSTILE, 1):
        records.append(spawn(number, number, name=text, role=text, prompt=text * 3))
        ended = result(number, number + 5, "failed", reason=f"{text}\n{text}", result=text)
        records.append(ended)
    page = made(write(tmp_path / "<img src=x onerror='window.pwned=1'>", *records))
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
    said, fetched = browser.heard()
    assert said == []
    assert fetched == [page.as_uri()], "the page itself, so requests are seen"


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """A server's address, and what it is asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join(TIMEOUT_S)


@pytest.mark.parametrize("is_there", [True, False])
def test_the_policy_stops_what_should_not_be_there(
    browser: Browser, page: Path, is_there: bool
) -> None:
    """P9: were markup to get into the page, its script would not run and nobody be asked for its
    picture, for the browser enforces the page's policy; without it, both happen."""
    with listening() as (url, asked):
        evil = f"<script>window.pwned = 1</script><img src='{url}/picture'>"
        text = page.read_text().replace("<header>", f"{evil}<header>")
        page.write_text(text if is_there else without_policy(text))
        browser.open(page)  # loaded, pictures too
        pwned = browser.ask("return window.pwned === 1")
        told = " ".join(browser.heard()[0])
    assert (pwned, asked) == ((False, []) if is_there else (True, ["/picture"]))
    assert ("Content Security Policy" in told) == is_there


def test_the_page_is_quiet(browser: Browser, page: Path) -> None:
    """No error, no warning on the console, and nothing fetched but the page, in both schemes."""
    for scheme in SCHEMES:
        browser.open(page, scheme)
        said, fetched = browser.heard()
        assert said == []
        assert fetched == [page.as_uri()]


def test_a_redacted_page_keeps_its_secrets(browser: Browser, tmp_path: Path) -> None:
    """What is redacted stands nowhere in the document, looked at or not."""
    journal = write(tmp_path / "j", *STORY)
    page = tmp_path / "report.html"
    page.write_text(report(journal, redact=["reason"]).text)
    browser.open(page)
    whole = browser.ask("return document.documentElement.outerHTML")
    assert "[redacted]" in whole
    assert "it broke" not in whole

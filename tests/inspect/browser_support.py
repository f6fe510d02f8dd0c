"""Helpers for tests that open a page in a real browser: the browser, and ways to query it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.installed import find_command, import_package

import_package("selenium")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

if TYPE_CHECKING:
    from selenium.webdriver.remote.webelement import WebElement

TIMEOUT_S = 60
SCHEMES = ("light", "dark")


class Browser:
    """A browser that opens reports."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(
        self, page: Path, scheme: str = "light", *, media: str = "", script: bool = True
    ) -> None:
        self.take_logs()
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", media=media, features=features)
        self.command("Emulation.setScriptExecutionDisabled", value=not script)
        self.driver.get(page.as_uri())

    def command(self, name: str, **values: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, values)

    def take_logs(self) -> tuple[list[str], list[str]]:
        """Return the console's messages and the fetched addresses since the last call."""
        messages = [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]  # selenium's
        events = [
            json.loads(entry["message"])["message"]
            for entry in self.driver.get_log("performance")  # type: ignore[no-untyped-call]  # selenium's
        ]
        requests = [
            event["params"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        return messages, [event["request"]["url"] for event in requests]

    def ask(self, script: str, *args: object) -> Any:
        return self.driver.execute_script(script, *args)

    def ask_later(self, script: str, *args: object) -> Any:
        """Run a script and return what it passes to `done`; its arguments are `args`."""
        script = f"const done = arguments[arguments.length - 1]; {script}"
        return self.driver.execute_async_script(script, *args)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def press(self, *keys: str) -> None:
        """Send keys to the element that has the focus."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def boxes(self, selector: str) -> list[dict[str, float]]:
        """Return left, right, top and bottom of each element, in pixels of the window."""
        script = (
            "return [...document.querySelectorAll(arguments[0])].map(it => {"
            "const {left, right, top, bottom} = it.getBoundingClientRect();"
            "return {left, right, top, bottom};})"
        )
        boxes: list[dict[str, float]] = self.ask(script, selector)
        return boxes

    def ticks(self, where: str = "#axis") -> list[tuple[float, str]]:
        script = (
            "return [...document.querySelectorAll(arguments[0])].map(it => "
            "[parseFloat(it.getAttribute('x')), it.textContent])"
        )
        return [(x, label) for x, label in self.ask(script, f"{where} text")]

    def colours(self, png: str) -> dict[tuple[int, int, int], int]:
        """Return how often each colour occurs in a picture, read by a page of the browser."""
        script = """
            const png = arguments[0], image = new Image();
            image.onload = () => {
              const canvas = new OffscreenCanvas(image.width, image.height);
              const context = canvas.getContext("2d"), counts = {};
              context.drawImage(image, 0, 0);
              const data = context.getImageData(0, 0, image.width, image.height).data;
              for (let i = 0; i < data.length; i += 4) {
                const colour = [data[i], data[i + 1], data[i + 2]].join(" ");
                counts[colour] = (counts[colour] || 0) + 1;
              }
              done(counts);
            };
            image.src = "data:image/png;base64," + png;
        """
        self.driver.get("about:blank")
        counts = self.ask_later(script, png)
        return {rgb(colour): count for colour, count in counts.items()}


@contextmanager
def browsing() -> Iterator[Browser]:
    """Start a browser without a window. Skip the test if none is installed."""
    options = webdriver.ChromeOptions()
    options.binary_location = find_command("chromium", "chromium-browser", "google-chrome")
    service = Service(find_command("chromedriver"))
    for argument in ("--headless=new", "--window-size=1400,1000", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    if os.getuid() == 0:
        options.add_argument("--no-sandbox")  # root can't start it otherwise
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.set_page_load_timeout(TIMEOUT_S)
        driver.set_script_timeout(TIMEOUT_S)
        yield Browser(driver)
    finally:
        driver.quit()


def rgb(text: str) -> tuple[int, int, int]:
    red, green, blue = map(int, re.findall(r"\d+", text)[:3])
    return red, green, blue


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """Return the contrast ratio of two colours by WCAG, from 1 to 21."""

    def luminance(colour: tuple[int, int, int]) -> float:
        parts = [value / 255 for value in colour]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)

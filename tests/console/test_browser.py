"""The console in a real headless Chromium, served by a real process, with everything else real as well."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.console.conftest import World, jpeg
from uploadguard.guard import Guard
from uploadguard.ledger.people import Role
from uploadguard.models import Context, Verdict

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
WAIT_S = 20.0

pytestmark = pytest.mark.skipif(
    not (CHROMIUM.exists() and DRIVER.exists()) and not os.environ.get("UPLOADGUARD_REQUIRE_BROWSER"),
    reason="there is no Chromium here",
)


@contextmanager
def serving(world: World, *options: str) -> Iterator[str]:
    """The address of ``uploadguard console`` for a deployment, in a process of its own."""
    log = world.path / "console.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "uploadguard", "--config", str(world.config), "console", "--port", "0", *options],
            stdout=subprocess.PIPE, stderr=out, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found is not None, line + log.read_text()
            yield found[0].rstrip("/")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(WAIT_S)
            process.stdout.close()


class Chromium:
    """A headless browser, as one person sees it."""

    def __init__(self, profile: Path, address: str, *, size: tuple[int, int] = (1280, 900), dark: bool = False) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (
            "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
            "disable-background-networking", "disable-component-update", "disable-dev-shm-usage",
            f"user-data-dir={profile}", f"window-size={size[0]},{size[1]}",
        ):  # fmt: skip
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        self.address = address
        self.emulate("dark" if dark else "light", size)

    def emulate(self, scheme: str, size: tuple[int, int]) -> None:
        run = self.driver.execute_cdp_cmd
        run("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        mobile = size[0] < 600
        run(
            "Emulation.setDeviceMetricsOverride",
            {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": mobile},
        )

    def close(self) -> None:
        self.driver.quit()

    def go(self, path: str) -> None:
        self.driver.get(self.address + path)

    def find(self, css: str) -> Any:
        return self.driver.find_element("css selector", css)

    def all(self, css: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", css)
        return found

    def text(self) -> str:
        text: str = self.find("body").text
        return text

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something that the page does by itself."""
        from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

        end = time.monotonic() + WAIT_S
        while True:
            try:
                if condition():
                    return
            except (NoSuchElementException, StaleElementReferenceException):
                pass
            if time.monotonic() > end:
                pytest.fail(f"never came: {what}; the page says:\n{self.text()}")
            time.sleep(0.05)

    def press(self, keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def sign_in(self, name: str, password: str) -> None:
        self.go("/")
        self.find("#name").send_keys(name)
        self.find("#password").send_keys(password)
        self.find("main button").click()
        self.until(lambda: self.find(".who").text.startswith(name), "the page of somebody signed in")

    def requests(self) -> list[str]:
        """The paths of all requests since the last call."""
        urls = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                urls.append(message["params"]["request"]["url"])
        return [url.removeprefix(self.address) for url in urls]

    def complaints(self) -> list[str]:
        """What the browser's console says: refused styles, scripts, missing files."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture
def open_chromium(tmp_path: Path) -> Iterator[Callable[..., Chromium]]:
    opened: list[Chromium] = []

    def make(address: str, **options: Any) -> Chromium:
        opened.append(Chromium(tmp_path / f"chromium{len(opened)}", address, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_from_signing_in_to_the_blocked_re_upload(world: World, open_chromium: Callable[..., Chromium]) -> None:
    world.list_photo("coffee.png", "entry-8")
    world.upload("coffee.png", uploader="another", object_id="obj-2", tenant="wallpapers")
    password = world.account("ada")
    with serving(world) as address:
        page = open_chromium(address)
        page.sign_in("ada", password)
        assert len(page.all("tr[data-row]")) == 2

        # Filter.
        page.press("/")
        page.until(lambda: page.driver.switch_to.active_element.get_attribute("name") == "text", "the search field")
        page.find("#f-text").send_keys("somebody\n")
        page.until(lambda: len(page.all("tr[data-row]")) == 1, "the one case of that uploader")
        assert "somebody" in page.find("tr[data-row]").text

        # Open by keyboard.
        page.press("j")
        page.until(lambda: page.all("tr.current"), "a row that is marked")
        page.press("o")
        page.until(lambda: "/cases/1" in page.driver.current_url, "the case")
        page.press("c")
        page.until(lambda: "The case is yours" in page.text(), "the claim")
        facts = page.text()
        assert "made-up" in facts
        assert "entry-7" in facts
        assert "bits" in facts

        # Reveal: nothing was fetched before it was asked for.
        assert not [path for path in page.requests() if "preview" in path]
        assert page.all(".file img") == []
        page.press("r")
        page.until(lambda: page.driver.switch_to.active_element.get_attribute("name") == "reason", "the reasons")
        page.press("To dec")
        page.find(".file form button").click()
        page.until(
            lambda: (
                page.driver.execute_script("let i = document.querySelector('.file img'); return i && i.naturalWidth")
                > 100
            ),
            "the preview",
        )
        grey = page.driver.execute_script(
            "let i = document.querySelector('.file img'), c = document.createElement('canvas');"
            "c.width = i.naturalWidth; c.height = i.naturalHeight; let x = c.getContext('2d'); x.drawImage(i, 0, 0);"
            "let d = x.getImageData(0, 0, c.width, c.height).data;"
            "for (let n = 0; n < d.length; n += 4) if (d[n] != d[n + 1] || d[n] != d[n + 2]) return false; return true"
        )
        assert grey
        assert len([path for path in page.requests() if path.startswith("/previews/")]) == 1
        assert "evidence.reveal" in world.audited()
        page.driver.refresh()
        assert [path for path in page.requests() if path.startswith("/previews/")] == []
        assert world.audited().count("evidence.reveal") == 1, "a grant is good for one look"

        # Confirm, by keyboard.
        page.press("y")
        page.until(lambda: page.driver.switch_to.active_element.text.startswith("Confirm"), "the form's button")
        page.press("\ue007")
        page.until(lambda: "Confirmed. Reports" in page.text(), "the decision")
        assert "waiting" in page.find("#reports").text
        world.work()
        page.driver.refresh()
        page.until(lambda: "filed" in page.find("#reports").text, "the filed report")
        assert page.complaints() == []
    filed = [json.loads(line) for line in (world.path / "reports.jsonl").read_text().splitlines()]
    assert {one["type"] for one in filed} == {"uploadguard.report", "uploadguard.delete"}

    # The re-upload is blocked, elsewhere too: by the file's own digest.
    with Guard.open(world.config) as guard:
        again = guard.check(jpeg("astronaut.png"), context=Context(uploader="a third"))
    assert again.verdict is Verdict.BLOCK
    assert "uploadguard-confirmed" in {match.list_name for match in again.matches}


def test_two_persons_in_two_browsers(make_world: Callable[..., World], open_chromium: Callable[..., Chromium]) -> None:
    world = make_world(two_person="confirm")
    world.list_photo("astronaut.png", "entry-7")
    world.upload("astronaut.png", uploader="somebody")
    first, second = world.account("ada", Role.REVIEW), world.account("bob", Role.REVIEW)
    with serving(world) as address:
        ada, bob = open_chromium(address), open_chromium(address)
        ada.sign_in("ada", first)
        bob.sign_in("bob", second)
        ada.go("/cases/1")
        ada.press("y")
        ada.find("details[open] button[data-first]").click()
        ada.until(lambda: "second person must say the same" in ada.text(), "the proposal")
        assert not ada.all("[data-key=y]"), "the first person has nothing more to decide"
        assert "None yet" in ada.find("#reports").text

        bob.go("/cases/1")
        assert "ada decided to confirm this case" in bob.text()
        bob.press("y")
        bob.find("details[open] button[data-first]").click()
        bob.until(lambda: "Confirmed by bob" in bob.text(), "the decision")
        ada.driver.refresh()
        ada.until(lambda: "Confirmed by bob" in ada.text(), "the decision, for the other")


def test_every_page_fits_a_phone_and_is_quiet(world: World, open_chromium: Callable[..., Chromium]) -> None:
    decision = world.upload("astronaut.png", quality=80, uploader="u" * 120, object_id="https://x.test/" + "o" * 200)
    password = world.account("ada")
    with serving(world) as address:
        page = open_chromium(address, size=(360, 800))
        page.go("/sign-in")
        width = "return document.documentElement.scrollWidth"
        assert page.driver.execute_script(width) <= 360
        page.sign_in("ada", password)
        for path in (
            "/queue", "/cases/1", "/cases/2", "/reports", "/decisions", f"/decisions/{decision.reference}", "/lists",
            "/activity", "/activity?span=30d", "/audit", "/cases/99",
        ):  # fmt: skip
            page.go(path)
            assert page.driver.execute_script(width) <= 360, path
            assert page.all("img") == [], path
            assert "None" not in page.text().replace("None yet", "").replace("None.", ""), path
        assert [one for one in page.complaints() if "404" not in one] == []


def test_without_script_everything_can_be_done(world: World, open_chromium: Callable[..., Chromium]) -> None:
    password = world.account("ada")
    with serving(world) as address:
        page = open_chromium(address)
        page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        page.sign_in("ada", password)
        page.find("tr[data-row] a").click()
        page.until(lambda: "/cases/1" in page.driver.current_url, "the case")
        page.find("[data-key=c]").click()
        page.until(lambda: "The case is yours" in page.text(), "the claim")
        page.find("[data-key=n]").click()
        page.find("details[open] button[data-first]").click()
        page.until(lambda: "Dismissed. The upload is released" in page.text(), "the decision")
        page.find("button[value=dark]").click()
        page.until(lambda: page.find("html").get_attribute("data-theme") == "dark", "the dark colours")
        page.find(".who button").click()
        page.until(lambda: "You are signed out" in page.text(), "the page for signing in")
        page.go("/queue")
        assert "Password" in page.text()


def test_the_access_log_has_no_query_and_no_grant(world: World) -> None:
    with serving(world) as address:
        httpx.get(f"{address}/sign-in?next=/queue&text=somebody-secret")
        httpx.get(f"{address}/previews/a-token-to-keep")
    log = (world.path / "console.log").read_text()
    assert '"GET /sign-in HTTP/1.1" 200' in log
    assert "somebody-secret" not in log
    assert "a-token-to-keep" not in log


def test_under_the_path_of_a_proxy(world: World, open_chromium: Callable[..., Chromium]) -> None:
    password = world.account("ada")
    with serving(world, "--root-path", "/moderation") as address:
        assert address.endswith("/moderation")
        page = open_chromium(address)
        page.sign_in("ada", password)
        assert page.driver.current_url == f"{address}/queue"
        page.find("tr[data-row] a").click()
        page.until(lambda: page.driver.current_url == f"{address}/cases/1", "the case")
        page.find("[data-key=c]").click()
        page.until(lambda: "The case is yours" in page.text(), "the claim")
        page.find("button[value=dark]").click()
        page.until(lambda: page.find("html").get_attribute("data-theme") == "dark", "the dark colours")
        assert page.driver.current_url.startswith(f"{address}/cases/1")
        assert page.complaints() == []

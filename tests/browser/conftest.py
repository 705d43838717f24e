"""A real Chromium against the live server."""

from __future__ import annotations

import os
import shutil
import time
from base64 import b32decode
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from django.conf import settings
from django_otp.oath import totp
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from apps.identity import services as identity
from apps.identity.models import User
from tests import build

PASSWORD = "correct horse battery"
TOTP_SECONDS, SENDING_SECONDS = 30, 5

# Before something is taken not to come. A busy machine answers and draws when it can.
PATIENCE_MS = 120_000

type Look = tuple[int, Literal["light", "dark"]]
LOOKS: tuple[Look, ...] = ((360, "dark"), (1280, "light"))
# The elements that make a page scroll sideways, the outermost first.
STICKS_OUT = """
  document.documentElement.scrollWidth > innerWidth
    ? [...document.querySelectorAll("main, main *")]
        .filter(element => element.getBoundingClientRect().right > innerWidth)
        .map(element => element.outerHTML.slice(0, 80)).slice(0, 5).concat("scrolls sideways")
    : []
"""
# What the console says of a page that answers 404 or 403 on purpose, and of a request that the next page cut short.
EXPECTED = ("Failed to load resource", "htmx:afterRequest", "htmx:sendAbort")
# The findings alone: what axe says of the rules that hold is many times as much to carry over.
AXE_RUN = "axe.run({exclude: %s}, {resultTypes: ['violations']}).then(found => found.violations)"
EVERY_LOOK: tuple[Look, ...] = (*LOOKS, (360, "light"), (1280, "dark"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/browser" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        message = "Chromium is not installed; on Debian: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    # Playwright's loop runs in this thread, which Django would take for asynchronous code.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    # Chromium's own sandbox refuses root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield running
        running.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def open_page(browser: Browser, live_server: Any) -> Iterator[Callable[..., Page]]:
    """Return a function that opens a page in a context of its own; any complaint of the console fails the test.

    user: who is logged in there. Other options are the context's.
    """
    complaints: list[str] = []
    contexts = []

    def complain(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith(EXPECTED):
            complaints.append(message.text)

    def open_one(user: User | None = None, **options: Any) -> Page:
        context = browser.new_context(base_url=live_server.url, **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        if user is not None:
            name = settings.SESSION_COOKIE_NAME
            session = build.browser(user).cookies[name].value
            context.add_cookies([{"name": name, "value": session, "url": live_server.url}])
        page = context.new_page()
        page.on("console", complain)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def staff(live_server: Any) -> tuple[Any, str]:
    """Make a superuser and return it with its TOTP secret."""
    return identity.create_staff(email="ada@example.com", password=PASSWORD, now=datetime.now(UTC))


def code_of(secret: str) -> str:
    """Return the code of this moment, which lasts long enough to be sent."""
    left = TOTP_SECONDS - time.time() % TOTP_SECONDS
    if left < SENDING_SECONDS:
        time.sleep(left)
    return f"{totp(b32decode(secret)):06d}"


def enter_password(page: Page, email: str = "ada@example.com") -> None:
    """Fill in the login page that is open."""
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Log in", exact=True).click()


def enter_code(page: Page, secret: str, button: str = "Log in") -> None:
    """Fill in the code that a page asks for."""
    page.get_by_label("Code").fill(code_of(secret))
    page.get_by_role("button", name=button, exact=True).click()


def heading(page: Page, text: str) -> None:
    """Assert which page is open."""
    expect(page.get_by_role("heading", level=1)).to_have_text(text)


def check(page: Page, looks: Iterable[Look] = LOOKS) -> None:
    """Assert that the open page has no accessibility finding and no sideways scrolling in some of its looks.

    The two looks of LOOKS have both widths and both schemes. What surrounds a page of the portal is the same on every
    one: with EVERY_LOOK it is looked at too, else only what the page adds to it.
    """
    looks = tuple(looks)
    surroundings = "[]" if looks == EVERY_LOOK else "[['.side'], ['.topbar']]"
    findings = []
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    for width, scheme in looks:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        for rule in page.evaluate(AXE_RUN % surroundings):
            nodes = "; ".join(node["html"][:120] for node in rule["nodes"][:3])
            findings.append(f"{page.url} {width} {scheme}: {rule['id']}: {nodes}")
        if wide := page.evaluate(STICKS_OUT):
            findings.append(f"{page.url} {width}: too wide: {wide}")
    assert findings == []

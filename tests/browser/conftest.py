"""A real Chromium against the live server."""

from __future__ import annotations

import os
import shutil
from base64 import b32decode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django_otp.oath import totp
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from apps.identity import services as identity

PASSWORD = "correct horse battery"
WIDTHS = (360, 1280)
SCHEMES = ("light", "dark")


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
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield running
        running.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def open_page(browser: Browser, live_server: Any) -> Iterator[Callable[..., Page]]:
    """Return a function that opens a page in a context of its own; any complaint of the console fails the test."""
    complaints: list[str] = []
    contexts = []

    def complain(message: ConsoleMessage) -> None:
        # A page that answers 404 or 403 on purpose is logged as a failed load.
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    def open_one(**options: Any) -> Page:
        context = browser.new_context(base_url=live_server.url, **options)
        contexts.append(context)
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
    """Return the code of this moment."""
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


def check(page: Page) -> None:
    """Assert that the open page has no accessibility finding and no sideways scrolling in any of its looks."""
    findings = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            for found in Axe().run(page).response["violations"]:
                nodes = "; ".join(node["html"][:120] for node in found["nodes"][:3])
                findings.append(f"{page.url} {width} {scheme}: {found['id']}: {nodes}")
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if overflow > 0:
            findings.append(f"{page.url} is {overflow} px too wide for {width}")
    assert findings == []

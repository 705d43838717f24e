"""Every page of the first slice: accessible in light and dark, narrow and wide, and silent in the console."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from playwright.sync_api import expect

from apps.core.actor import system_actor
from apps.identity import services as identity
from apps.notifications.mailbox import Mailbox
from apps.notifications.rendering import message
from tests import build
from tests.browser.conftest import PASSWORD, check, enter_code, enter_password


@pytest.fixture
def development(settings, tmp_path, live_server):
    settings.DEBUG = True
    settings.VAR = tmp_path
    logins = {
        "staff": {"email": "ada@example.com", "password": PASSWORD, "totp_secret": "JBSWY3DPEHPK3PXP"},
        "owner": {"email": "owner@example.com", "password": PASSWORD},
        "organization": {"id": "0197", "slug": "demo"},
        "api_key": "ch_live_api",
        "integration_key": "ch_live_integration",
    }
    (tmp_path / "bootstrap.json").write_text(json.dumps(logins))
    for name in ("Aurora Labs", "Borealis Robotics"):
        build.organization(name=name, is_demonstration=True)


def test_start_page(open_page, development):
    page = open_page()
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Countinghouse is running")
    expect(page.locator("#staff-code")).to_have_text(re.compile(r"\d{3} \d{3}"))
    check(page)


def test_start_page_moves_by_itself(open_page, development):
    page = open_page()
    page.goto("/")
    expect(page.get_by_text("Ceres Genomics")).to_have_count(0)

    build.organization(name="Ceres Genomics", is_demonstration=True)

    expect(page.get_by_text("Ceres Genomics")).to_have_count(1)


def test_doors(open_page, live_server):
    page = open_page()
    for path in ("/", "/accounts/login/", "/accounts/password/reset/", "/accounts/signup/", "/nothing-here"):
        page.goto(path)
        check(page)
    page.goto("/accounts/login/")
    enter_password(page, "nobody@example.com")
    expect(page.get_by_role("alert")).to_be_visible()
    check(page)


def test_from_the_password_to_the_staff_admin(open_page, staff):
    page = open_page()
    page.goto("/admin/")
    enter_password(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Enter your code")
    check(page)
    enter_code(page, staff[1])
    expect(page.get_by_role("heading", level=1)).to_have_text("Back office")
    check(page)
    for path in ("/admin/identity/user/", f"/admin/identity/user/{staff[0].pk}/change/", "/accounts/2fa/"):
        page.goto(path)
        check(page)


def test_enrolment(open_page, live_server):
    user = identity.create_user(email="ada@example.com", password=PASSWORD, now=datetime.now(UTC))
    identity.change_user(
        actor=system_actor("tests"), user_id=user.id, changes={"is_staff": True, "is_superuser": True}
    )
    page = open_page()
    page.goto("/admin/")
    enter_password(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Set up your authenticator")
    check(page)
    enter_code(page, page.locator("#totp-secret").inner_text(), "Set up")
    expect(page.get_by_role("heading", level=1)).to_have_text("Recovery codes")
    check(page)
    page.get_by_role("link", name="to the staff admin").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Back office")


def test_without_javascript(open_page, staff, development):
    page = open_page(java_script_enabled=False)
    page.goto("/")
    assert page.get_by_text("Aurora Labs").count() == 1
    assert not page.get_by_role("button", name="Copy").first.is_visible()
    page.get_by_role("link", name="Open the staff admin").click()
    enter_password(page)
    enter_code(page, staff[1])
    expect(page.get_by_role("heading", level=1)).to_have_text("Back office")


def test_the_colours_can_be_chosen_and_stay(open_page, live_server):
    page = open_page(color_scheme="light")
    page.goto("/")
    page.get_by_role("button", name="Colours: system").click()
    page.reload()

    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"


def test_the_mailbox_of_the_development_run(open_page, development):
    context = {
        "organization": '<a href="https://evil.example">Aurora</a>',
        "role": "Developer",
        "link": "https://portal.example.com/app/invites/abc",
    }
    mail = message("organizations/mail/invite", "bob@example.com", context)
    Mailbox(alias="default").send_messages([mail])
    page = open_page()

    page.goto("/dev/mail")
    check(page)
    page.get_by_role("link", name="Join").click()
    check(page)

    framed = page.frame_locator("iframe")
    expect(framed.get_by_role("link", name="See the invite")).to_be_visible()
    expect(framed.locator("a", has_text="Aurora")).to_have_count(0)

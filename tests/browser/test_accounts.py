"""A person's first minutes, in a real browser: sign-up, second factors, sessions; with JavaScript and without."""

from __future__ import annotations

import re

from django.core import mail
from playwright.sync_api import Page, expect

from apps.identity import services as identity
from apps.identity.models import User
from tests import build
from tests.browser.conftest import PASSWORD, check, enter_password, heading

ADA = "ada@example.com"


def link() -> str:
    """Return the path of the link in the last mail."""
    return re.search(r"https?://[^/\s]+(/accounts/\S+)", mail.outbox[-1].body)[1]


def sign_up(page: Page, run_jobs) -> None:
    page.goto("/accounts/login/")
    page.get_by_role("link", name="Sign up").click()
    heading(page, "Sign up")
    page.get_by_label("Your name").fill("Ada Lovelace")
    page.get_by_label("E-mail address").fill(ADA)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign up").click()
    heading(page, "Look into your mail")
    run_jobs()


def test_another_browser_asks_for_the_password(open_page, live_server, run_jobs):
    sign_up(open_page(), run_jobs)
    page = open_page()

    page.goto(link())
    check(page)
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Confirm and log in").click()
    expect(page.get_by_text("This is not the password")).to_be_visible()
    check(page)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Confirm and log in").click()

    heading(page, "Overview")
    used = open_page()
    used.goto(link())
    heading(used, "This link no longer works")
    check(used)


def virtual_authenticator(page: Page) -> None:
    """Give the browser a device that keeps passkeys and verifies its user."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    session.send("WebAuthn.addVirtualAuthenticator", {"options": options})


def test_a_passkey_is_added_and_logs_in_by_itself(open_page, live_server):
    build.user(ADA, password=PASSWORD)
    page = open_page()
    virtual_authenticator(page)
    page.goto("/app/account/security")
    enter_password(page)

    page.get_by_role("link", name="Add a passkey").click()
    heading(page, "Add a passkey")
    check(page)
    page.get_by_label("Name of the passkey").fill("Laptop")
    page.get_by_role("button", name="Add").click()
    heading(page, "Recovery codes")
    page.get_by_role("link", name="I have kept them").click()
    expect(page.get_by_role("link", name="Rename Laptop")).to_be_visible()
    check(page)

    page.context.clear_cookies()
    page.goto("/accounts/login/?next=/app/account/security")
    page.get_by_role("button", name="Log in with a passkey").click()
    expect(page).not_to_have_url(re.compile("/accounts/login/"))
    page.goto("/app/account/security")
    heading(page, "Security")

    page.context.clear_cookies()
    page.goto("/app/account/security")
    enter_password(page)
    heading(page, "Enter your code")
    check(page)
    page.get_by_role("button", name="Use a passkey instead").click()
    heading(page, "Security")

    page.get_by_role("link", name="Remove Laptop").click()
    heading(page, "Remove Laptop?")
    check(page)
    page.get_by_role("button", name="Remove").click()
    heading(page, "Security")
    expect(page.get_by_role("link", name="Rename Laptop")).to_have_count(0)


def test_a_passkey_that_does_not_come_is_told_on_the_page(open_page, live_server):
    page = open_page()
    virtual_authenticator(page)  # It has no passkey for this site.
    page.goto("/accounts/login/")

    page.get_by_role("button", name="Log in with a passkey").click()

    expect(page.get_by_text("The passkey was not used")).to_be_visible()
    check(page)


def test_profile_address_and_deletion(open_page, live_server, run_jobs):
    page = open_page(user=build.user(ADA, password=PASSWORD, name="Ada"))
    page.goto("/app/account/profile")

    page.get_by_label("Your name").fill("Ada Lovelace")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Your profile is changed.")).to_be_visible()
    page.get_by_role("link", name="Change", exact=True).click()
    heading(page, "Change your address")
    check(page)
    page.get_by_label("New e-mail address").fill("countess@example.com")
    page.get_by_role("button", name="Send the link").click()
    expect(page.get_by_text("To be confirmed")).to_be_visible()
    check(page)
    page.goto(link())
    heading(page, "Confirm your address")
    check(page)
    page.get_by_role("button", name="Confirm").click()
    assert User.objects.get().email == "countess@example.com"

    page.goto("/app/account/profile")
    page.get_by_role("link", name="Delete the account").click()
    heading(page, "Delete the account")
    check(page)
    page.get_by_label("Your e-mail address").fill("countess@example.com")
    page.get_by_role("button", name="Delete the account").click()
    expect(page.get_by_text("Your account is deleted.")).to_be_visible()
    assert not User.objects.get().is_active
    assert identity.credentials_work("countess@example.com", PASSWORD) is False

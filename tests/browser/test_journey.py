"""Two people's first hour in a real browser: from the sign-up of one to the other's call with a key of her own."""

from __future__ import annotations

import re

import pytest
from django.core import mail
from django.utils import timezone
from playwright.sync_api import Page, expect

from apps.core.permissions import Role
from apps.credentials.models import ApiKey
from apps.organizations.models import Membership, Organization
from tests.browser.conftest import PASSWORD, check, code_of, enter_password, heading

ADA, GRACE = "ada@example.com", "grace@example.com"


def link(address: str) -> str:
    """Return the path of the link in the last mail to an address."""
    sent = next(message for message in reversed(mail.outbox) if message.to == [address])
    return re.search(r"https?://[^/\s]+(/(?:accounts|app)/\S+)", sent.body)[1]


def fill_in_sign_up(page: Page, name: str, address: str) -> None:
    heading(page, "Sign up")
    page.get_by_label("Your name").fill(name)
    page.get_by_label("E-mail address").fill(address)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign up").click()
    heading(page, "Look into your mail")


def set_up_authenticator(page: Page) -> list[str]:
    """Enrol on the page that is open and return the recovery codes."""
    heading(page, "Set up your authenticator")
    page.get_by_label("Code").fill(code_of(page.locator("#totp-secret").inner_text()))
    page.get_by_role("button", name="Set up").click()
    heading(page, "Recovery codes")
    return page.locator("#recovery-codes").inner_text().split()


@pytest.mark.parametrize("scripts", [True, False], ids=["with JavaScript", "without JavaScript"])
def test_from_sign_up_to_a_call_with_a_key(open_page, live_server, run_jobs, scripts):
    looks = check if scripts else (lambda _page: None)  # The checker is a script itself.

    ada = open_page(java_script_enabled=scripts)
    ada.goto("/accounts/login/")
    ada.get_by_role("link", name="Sign up").click()
    looks(ada)
    fill_in_sign_up(ada, "Ada Lovelace", ADA)
    looks(ada)
    run_jobs()
    ada.goto(link(ADA))
    heading(ada, "Confirm your address")
    looks(ada)
    ada.get_by_role("button", name="Confirm and log in").click()
    heading(ada, "Overview")
    looks(ada)

    ada.goto("/app/account/security")
    heading(ada, "Security")
    looks(ada)
    ada.get_by_role("link", name="Set up").click()
    looks(ada)
    codes = set_up_authenticator(ada)
    assert len(codes) == 10
    looks(ada)
    ada.get_by_role("link", name="I have kept them").click()
    heading(ada, "Security")
    expect(ada.get_by_text("10 of 10 left")).to_be_visible()
    looks(ada)

    elsewhere = open_page(java_script_enabled=scripts)
    elsewhere.goto("/app/account/profile")
    enter_password(elsewhere, ADA)
    heading(elsewhere, "Enter your code")
    looks(elsewhere)
    elsewhere.get_by_label("Code").fill(codes[0])
    elsewhere.get_by_role("button", name="Log in", exact=True).click()
    heading(elsewhere, "Profile")
    ada.reload()
    ada.get_by_role("button", name="Log out everywhere else").click()
    expect(ada.get_by_text("You are logged out everywhere else.")).to_be_visible()
    elsewhere.reload()
    heading(elsewhere, "Log in")

    organization = Organization.objects.get()
    ada.goto(f"/app/{organization.slug}")
    sidebar = ada.locator(".side")
    sidebar.get_by_role("link", name="Members").click()
    ada.get_by_label("E-mail address").fill(GRACE)
    ada.get_by_label("Role").select_option("developer")
    ada.get_by_role("button", name="Send the invite").click()
    expect(ada.get_by_role("row", name=re.compile(GRACE))).to_contain_text("invited")
    looks(ada)
    sidebar.get_by_role("link", name="Settings").click()
    ada.get_by_role("button", name="Require a second factor").click()
    expect(ada.get_by_text("required soon")).to_be_visible()
    looks(ada)
    # A grace of days cannot be waited for.
    Organization.objects.update(mfa_grace_ends_at=timezone.now())
    run_jobs()

    grace = open_page(java_script_enabled=scripts)
    invite = link(GRACE)
    grace.goto(invite)
    heading(grace, f"{organization.name} invites you")
    looks(grace)
    grace.locator("main").get_by_role("link", name="Sign up").click()
    fill_in_sign_up(grace, "Grace Hopper", GRACE)
    run_jobs()
    grace.goto(link(GRACE))
    grace.get_by_role("button", name="Confirm and log in").click()
    heading(grace, f"Join {organization.name}?")
    looks(grace)
    grace.get_by_role("button", name="Accept").click()
    heading(grace, "A second factor is needed here")
    looks(grace)
    assert Membership.objects.get(user__email=GRACE, organization=organization).role == Role.DEVELOPER
    grace.get_by_role("link", name="Set up a second factor").click()
    heading(grace, "Set up a second factor")
    looks(grace)
    grace.get_by_role("link", name="Set up an authenticator").click()
    set_up_authenticator(grace)
    grace.get_by_role("link", name="I have kept them").click()
    heading(grace, "Overview")

    grace.goto(f"/app/{organization.slug}/keys")
    looks(grace)
    grace.get_by_role("link", name="Make the first key").click()
    grace.get_by_label("Name", exact=True).fill("my laptop")
    grace.get_by_label("Read usage and what runs").check()
    looks(grace)
    grace.get_by_role("button", name="Make the key").click()
    heading(grace, "The secret of my laptop")
    looks(grace)
    secret = grace.locator("#secret").inner_text()
    called = open_page().request.get(
        f"/api/v1/orgs/{organization.slug}/usage", headers={"Authorization": f"Bearer {secret}"}
    )
    assert (called.status, called.json()["data"]) == (200, [])
    assert ApiKey.objects.get(name="my laptop").created_by.email == GRACE
    grace.goto(f"/app/{organization.slug}/keys")
    expect(grace.get_by_role("heading", level=1)).to_be_visible()
    assert secret not in grace.content()

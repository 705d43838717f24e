"""The portal in a real browser: its journeys with and without JavaScript, each page accessible in all its looks."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from apps.billing.models import Pot
from apps.core.permissions import Role
from apps.credentials.models import ApiKey
from apps.identity import services as identity
from apps.invoices.models import InvoiceLine
from apps.organizations import services as organizations
from apps.organizations.models import Invite, Membership, Organization
from tests import build
from tests.browser.conftest import PASSWORD, check, enter_code, enter_password


def person(email, name):
    return identity.create_user(email=email, password=PASSWORD, name=name, now=timezone.now())


@pytest.fixture
def lab(live_server):
    """An organization with members, a key, usage of two months and an invoice."""
    now = timezone.now().replace(microsecond=0)
    start = (now - timedelta(days=75)).replace(day=2, hour=8, minute=0, second=0, microsecond=0)
    organization = build.organization("lab", name="Bright Lab", now=start - timedelta(days=1))
    owner = person("ada@example.com", "Ada Lovelace")
    build.member(organization, Role.OWNER, user=owner)
    build.member(organization, Role.DEVELOPER, user=person("dora@example.com", "Dora Deng"))
    build.project(organization, "training")
    build.api_key(organization, ["usage.read"], name="cluster", actor=build.user_actor(owner, organization))
    build.price_book({"sku": "h100", "unit_price": "2.49"}, {"sku": "a100", "unit_price": "1.49"})
    build.credit(organization, "500", pot=Pot.PROMO, now=start)
    for sku, days_ago in (("h100", 0), ("a100", 0), ("h100", 1), ("a100", 2)):
        begin = now - timedelta(days=days_ago, hours=3)
        build.usage(organization, begin, begin + timedelta(hours=2), sku=sku, project="training", now=now)
    build.usage(
        organization, start, start + timedelta(hours=5), sku="h100", gpus="8", now=start + timedelta(days=1)
    )
    build.metered(organization, until=now)
    build.closed(organization, f"{start:%Y-%m}", now=now)
    return organization


@pytest.fixture
def page(open_page, lab):
    opened = open_page()
    opened.goto("/app/lab")
    enter_password(opened)
    expect(opened.get_by_role("heading", level=1)).to_have_text("Overview")
    return opened


def heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(text)


@pytest.mark.parametrize("script", [True, False], ids=["javascript", "no-javascript"])
def test_from_the_invite_to_a_call_with_a_key_of_ones_own(open_page, lab, script):
    owner = open_page(java_script_enabled=script)
    owner.goto("/app/")
    enter_password(owner)
    heading(owner, "Overview")
    sidebar = owner.locator(".side")
    sidebar.get_by_role("link", name="Members").click()
    owner.get_by_label("E-mail address").fill("grace@example.com")
    owner.get_by_label("Role").select_option("developer")
    owner.get_by_role("button", name="Send the invite").click()
    expect(owner.get_by_role("row", name=re.compile("grace@example.com"))).to_contain_text("invited")
    sidebar.get_by_role("link", name="Settings").click()
    owner.get_by_role("button", name="Require a second factor").click()
    expect(owner.get_by_text("required soon")).to_be_visible()
    Organization.objects.update(mfa_grace_ends_at=timezone.now())

    person("grace@example.com", "Grace Hopper")
    grace = open_page(java_script_enabled=script)
    grace.goto(f"/app/invites/{organizations.token_of(Invite.objects.get())}")
    heading(grace, "Bright Lab invites you")
    grace.locator("main").get_by_role("link", name="Log in").click()
    enter_password(grace, "grace@example.com")
    heading(grace, "Join Bright Lab?")
    grace.get_by_role("button", name="Accept").click()
    heading(grace, "A second factor is needed here")
    assert Membership.objects.get(user__email="grace@example.com").role == Role.DEVELOPER
    grace.get_by_role("link", name="Set up a second factor").click()
    grace.get_by_role("link", name="Set up an authenticator").click()
    enter_code(grace, grace.locator("#totp-secret").inner_text(), "Set up")
    heading(grace, "Recovery codes")

    grace.goto("/app/lab/keys")
    heading(grace, "API keys")
    grace.get_by_role("link", name="New key").click()
    grace.get_by_label("Name", exact=True).fill("my laptop")
    grace.get_by_label("Read usage and what runs").check()
    grace.get_by_role("button", name="Make the key").click()
    heading(grace, "The secret of my laptop")
    secret = grace.locator("#secret").inner_text()
    assert build.client(secret).get("/api/v1/orgs/lab/usage").json()["data"]
    assert ApiKey.objects.get(name="my laptop").created_by.email == "grace@example.com"


def test_every_page_of_money_is_accessible_in_all_its_looks(page):
    line = InvoiceLine.objects.order_by("position").first()
    invoice = f"/app/lab/invoices/{line.invoice_id}"
    check(page)
    for path in (
        "/app/lab/usage",
        "/app/lab/invoices",
        invoice,
        f"{invoice}/lines/{line.pk}",
        "/app/lab/statement",
    ):
        page.goto(path)
        check(page)
    page.goto(f"{invoice}/lines/{line.pk}")
    page.get_by_role("row").get_by_role("link").first.click()
    check(page)


def test_every_page_of_people_and_keys_is_accessible_in_all_its_looks(page, lab):
    dora = Membership.objects.get(user__email="dora@example.com").pk
    key = ApiKey.objects.get().pk
    for path in (
        "audit", "members", f"members/{dora}", f"members/{dora}/remove", "leave", "keys", "keys/new", f"keys/{key}",
        f"keys/{key}/rotate", f"keys/{key}/revoke",
    ):  # fmt: skip
        page.goto(f"/app/lab/{path}")
        check(page)


def test_every_other_page_is_accessible_in_all_its_looks(page, lab):
    for path in (
        "lab/projects", "lab/settings", "lab/settings/billing", "lab/transfer", "lab/delete", "new", "invites/mine",
    ):  # fmt: skip
        page.goto(f"/app/{path}")
        check(page)
    Organization.objects.update(status="suspended")
    page.goto("/app/lab")
    heading(page, "This organization is suspended")
    check(page)


def test_a_wrong_form_is_accessible_and_keeps_what_was_typed(page):
    page.goto("/app/lab/settings")
    page.get_by_label("Slug").fill("Not a slug")
    page.get_by_role("button", name="Save").click()

    expect(page.get_by_label("Slug")).to_have_value("Not a slug")
    expect(page.get_by_label("Slug")).to_have_attribute("aria-invalid", "true")
    check(page)


def test_the_keyboard_leads_everywhere(page):
    page.keyboard.press("g")
    page.keyboard.press("m")
    heading(page, "Members")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    page.keyboard.press("/")
    expect(page.get_by_label("E-mail address")).to_be_focused()
    page.keyboard.type("g")
    page.keyboard.type("u")
    heading(page, "Members")


def test_a_dangerous_thing_is_asked_in_a_dialog_and_can_be_left(page):
    dora = Membership.objects.get(user__email="dora@example.com")
    page.goto(f"/app/lab/members/{dora.pk}")
    page.get_by_role("link", name="Remove from the organization").click()
    dialog = page.get_by_role("dialog", name="Remove Dora Deng from Bright Lab?")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    page.get_by_role("link", name="Remove from the organization").click()
    dialog.get_by_role("button", name="Remove").click()

    heading(page, "Members")
    assert not Membership.objects.filter(pk=dora.pk).exists()


def test_the_explorer_follows_a_choice_without_a_reload(page):
    page.goto("/app/lab/usage")
    page.evaluate("window.stays = true")
    page.get_by_label("By").select_option("project")

    expect(page.get_by_role("rowheader", name="training")).to_be_visible()
    assert page.evaluate("window.stays")
    assert "group=project" in page.url


def test_switching_from_the_menu_of_a_narrow_screen(page, lab):
    other = build.organization("other", name="Other Works")
    build.member(other, Role.VIEWER, user=Membership.objects.get(user__email="ada@example.com").user)
    page.set_viewport_size({"width": 360, "height": 800})
    page.reload()
    bar = page.locator(".topbar")
    bar.get_by_text("Menu").click()
    bar.locator(".menu--switch summary").click()
    bar.get_by_role("button", name="Other Works").click()

    expect(bar.get_by_role("link", name="Other Works")).to_be_visible()
    assert page.url.endswith("/app/other")

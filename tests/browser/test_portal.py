"""The portal in a real browser: its journeys with and without JavaScript, each page accessible in all its looks."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from apps.billing.models import Pot
from apps.core.permissions import Role
from apps.credentials.models import ApiKey
from apps.identity import services as identity
from apps.invoices.models import InvoiceLine
from apps.organizations.models import Membership, Organization
from tests import build
from tests.browser.conftest import EVERY_LOOK, PASSWORD, check, heading


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
    opened = open_page(user=Membership.objects.get(organization=lab, role=Role.OWNER).user)
    opened.goto("/app/lab")
    heading(opened, "Overview")
    return opened


def test_every_page_is_accessible(page, lab):
    line = InvoiceLine.objects.order_by("position").first()
    dora = Membership.objects.get(user__email="dora@example.com").pk
    key = ApiKey.objects.get().pk
    invoice = f"lab/invoices/{line.invoice_id}"
    check(page, EVERY_LOOK)
    for path in (
        "lab/usage", "lab/invoices", invoice, f"{invoice}/lines/{line.pk}", "lab/statement", "lab/budgets/new",
        "lab/audit", "lab/members", f"lab/members/{dora}", f"lab/members/{dora}/remove", "lab/leave", "lab/keys",
        "lab/keys/new", f"lab/keys/{key}", f"lab/keys/{key}/rotate", f"lab/keys/{key}/revoke", "lab/projects",
        "lab/settings", "lab/settings/billing", "lab/transfer", "lab/delete", "new", "invites/mine",
    ):  # fmt: skip
        page.goto(f"/app/{path}")
        check(page)
    page.goto(f"/app/{invoice}/lines/{line.pk}")
    page.get_by_role("row").get_by_role("link").first.click()
    check(page)
    page.goto("/app/lab/settings")
    page.get_by_label("Slug").fill("Not a slug")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Slug")).to_have_value("Not a slug")
    expect(page.get_by_label("Slug")).to_have_attribute("aria-invalid", "true")
    check(page)
    Organization.objects.update(status="suspended")
    page.goto("/app/lab")
    heading(page, "This organization is suspended")
    check(page)


def test_keys_dialogs_swaps_and_menus(page, lab):
    the_keyboard_leads_everywhere(page)
    a_dangerous_thing_is_asked_in_a_dialog_and_can_be_left(page)
    the_explorer_follows_a_choice_without_a_reload(page)
    one_switches_from_the_menu_of_a_narrow_screen(page)


def the_keyboard_leads_everywhere(page):
    page.keyboard.press("g")
    page.keyboard.press("m")
    heading(page, "Members")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    page.keyboard.press("/")
    palette = page.get_by_role("dialog", name="Search")
    expect(palette.get_by_role("link", name="Quotas")).to_be_visible()
    page.keyboard.type("dora")
    expect(palette.get_by_role("link", name="Dora Deng")).to_be_visible()
    check(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    heading(page, "Dora Deng")
    page.keyboard.press("/")
    page.keyboard.type("training")
    page.keyboard.press("Enter")
    heading(page, "training")


def a_dangerous_thing_is_asked_in_a_dialog_and_can_be_left(page):
    dora = Membership.objects.get(user__email="dora@example.com")
    page.goto(f"/app/lab/members/{dora.pk}")
    page.get_by_role("link", name="Remove from the organization").click()
    dialog = page.get_by_role("dialog", name="Remove Dora Deng from Bright Lab?")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    page.get_by_role("link", name="Remove from the organization").click()
    dialog.get_by_label("Type Dora Deng to go on").fill("Dora Deng")
    dialog.get_by_role("button", name="Remove").click()

    heading(page, "Members")
    assert not Membership.objects.filter(pk=dora.pk).exists()


def the_explorer_follows_a_choice_without_a_reload(page):
    page.goto("/app/lab/usage")
    page.evaluate("window.stays = true")
    page.get_by_label("By").select_option("project")

    expect(page.get_by_role("rowheader", name="training")).to_be_visible()
    assert page.evaluate("window.stays")
    assert "group=project" in page.url
    page.get_by_label("From").fill("2020-01-01")
    page.get_by_label("Each").select_option("hour")
    expect(page.locator("#found")).to_contain_text("From: At most 400 days at once.")
    assert page.evaluate("window.stays")


def one_switches_from_the_menu_of_a_narrow_screen(page):
    other = build.organization("other", name="Other Works")
    build.member(other, Role.VIEWER, user=Membership.objects.get(user__email="ada@example.com").user)
    page.set_viewport_size({"width": 360, "height": 800})
    page.reload()
    bar = page.locator(".topbar")
    bar.get_by_text("Menu").click()
    bar.locator(".menu--switch summary").click()
    bar.get_by_role("button", name="Other Works").click()

    expect(bar.get_by_role("link", name="Other Works")).to_be_visible()
    assert page.url.endswith("/app/other/usage"), "the section stays"

"""Paying in a real browser, through the hosted pages, offline."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.conf import settings
from django.utils import timezone
from django_otp import DEVICE_ID_SESSION_KEY

from apps.core.permissions import Role
from apps.identity import services as identity
from apps.identity.models import MfaDevice
from apps.invoices.models import Invoice
from apps.payments import services as payments
from apps.payments import tasks
from apps.payments.models import PaymentMethod
from tests import build
from tests.browser.conftest import PASSWORD, check
from tests.money import books, lots
from tests.payments.conftest import sandbox, stripe  # noqa: F401  Fixtures.
from tests.payments.paid import card, paid

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def lab(live_server, stripe, settings):  # noqa: F811
    settings.PUBLIC_URL = live_server.url
    policy = {**settings.SECURE_CSP, "form-action": [*settings.SECURE_CSP["form-action"], stripe.url]}
    settings.SECURE_CSP = policy
    return build.organization("lab", billing_email="money@lab.example", now=datetime(2026, 4, 1, tzinfo=UTC))


@pytest.fixture
def pages(open_page, live_server, lab):
    """Return a function that opens a page of the organization as an owner who is logged in."""
    owner = build.member(lab, Role.OWNER)

    def open_at(path="/app/lab/payments", **options):
        page = open_page(user=owner, **options)
        page.goto(path)
        return page

    return open_at


@pytest.fixture
def office(open_page, live_server, lab):
    """Return a page of the staff admin, whose user has shown a second factor."""
    user, _secret = identity.create_staff(email="ada@example.com", password=PASSWORD, now=timezone.now())
    client = build.browser(user)
    session = client.session
    session[DEVICE_ID_SESSION_KEY] = MfaDevice.objects.get(user=user).persistent_id
    session.save()
    page = open_page()
    name = settings.SESSION_COOKIE_NAME
    page.context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": live_server.url}])
    return page


def decide(page, action, reason):
    """Take an action on the only row of a list of the staff admin."""
    page.locator("input.action-select").check()
    page.get_by_role("combobox", name="Action").select_option(action)
    page.get_by_role("textbox", name="Reason").fill(reason)
    page.get_by_role("button", name="Run").click()


def enter_card(page, number, button=r"^(Pay|Save)"):
    page.get_by_label("Card number").fill(number)
    page.get_by_label("Expiry").fill("12 / 34")
    page.get_by_label("Security code").fill("123")
    page.get_by_role("button", name=re.compile(button)).click()


def top_up(page, amount="25"):
    page.get_by_label("Amount").fill(amount)
    page.get_by_role("button", name="Pay in USD").click()


@pytest.mark.parametrize("javascript", [True, False])
def test_a_top_up_with_4242(pages, lab, javascript):
    page = pages(java_script_enabled=javascript)
    top_up(page)
    enter_card(page, "4242 4242 4242 4242")

    page.get_by_text("The credit is there.").wait_for()
    assert page.get_by_text("Visa •••• 4242").is_visible()
    assert lots(lab) == [("paid", 25_000_000)]


def test_a_card_that_is_declined_and_another_that_is_not(pages, lab):
    page = pages()
    top_up(page)
    enter_card(page, "4000 0000 0000 0002")
    page.get_by_text("Your card was declined.").wait_for()
    assert lots(lab) == []

    enter_card(page, "4242 4242 4242 4242")
    page.get_by_text("The credit is there.").wait_for()


def test_a_card_whose_bank_asks(pages, lab):
    page = pages()
    top_up(page)
    enter_card(page, "4000 0025 0000 3155")
    page.get_by_role("button", name="Complete authentication").click()

    page.get_by_text("The credit is there.").wait_for()
    assert lots(lab) == [("paid", 25_000_000)]


def test_a_card_is_saved_and_tops_up_by_itself(pages, lab, run_jobs):
    page = pages()
    page.get_by_role("button", name="Save a card").click()
    enter_card(page, "4242 4242 4242 4242")
    page.get_by_text("Charged by default").wait_for()
    page.get_by_role("link", name="Change").click()
    page.get_by_label("When available credit falls below").fill("10")
    page.get_by_label("Charge", exact=True).fill("25")
    page.get_by_label("At most in a month").fill("100")
    page.get_by_role("button", name="Turn on").click()
    page.get_by_text("25.00 USD when available credit falls below 10.00").wait_for()

    tasks.sweep()  # As the beat does every minute; what it queues is the worker's.
    run_jobs()

    page.reload()
    assert page.get_by_role("link", name="Automatic top-up").is_visible()
    assert lots(lab) == [("paid", 25_000_000)]


def test_an_invoice_is_paid_with_the_saved_card(pages, lab, stripe):  # noqa: F811
    april = datetime(2026, 4, 10, tzinfo=UTC)
    build.price_book({"unit_price": "2.50"})
    build.usage(lab, april, april + timedelta(hours=4))
    invoice = build.closed(lab, "2026-04").invoice
    card(stripe, lab)

    page = pages(f"/app/lab/invoices/{invoice.id}/pay")
    page.get_by_role("button", name="Pay with Visa").click()

    page.get_by_text("It paid what was owed.").wait_for()
    assert Invoice.objects.get().state == "paid"


def test_a_refund_is_asked_for_and_approved_and_arrives(pages, office, lab, run_jobs):
    page = pages()
    top_up(page)
    enter_card(page, "4242 4242 4242 4242")
    page.get_by_text("The credit is there.").wait_for()
    page.get_by_label("Amount").fill("10")
    page.get_by_label("Why").fill("Too much")
    page.get_by_role("button", name="Ask for it").click()
    page.get_by_text("Being looked at").wait_for()

    office.goto("/admin/payments/refund/?state__exact=requested")
    decide(office, "Approve", "Not used")
    office.get_by_text("approved").first.wait_for()
    run_jobs()

    page.reload()
    page.get_by_text("Refunded").first.wait_for()
    assert books(lab) == {"clearing": -15_000_000, "paid_lot": 15_000_000}

    office.goto("/admin/payments/payment/")
    office.get_by_role("link", name="Refund…").click()
    check(office)
    office.get_by_label("Amount").fill("5")
    office.get_by_label("Where to").select_option("credit")
    office.get_by_label("Why").fill("For the trouble")
    office.get_by_role("button", name="Refund a payment").click()
    office.get_by_text("A refund of 5.00 USD waits for its decision.").wait_for()
    decide(office, "Approve", "Agreed")
    office.get_by_text("approved").first.wait_for()
    assert lots(lab) == [("paid", 15_000_000), ("promo", 5_000_000)]


def test_the_pages_are_accessible_and_fit(pages, lab, stripe):  # noqa: F811
    payment = paid(stripe, lab)
    method = card(stripe, lab)
    assert PaymentMethod.objects.get() == method
    started = payments.start_top_up(
        actor=build.actor(lab), organization=lab, amount=Decimal(25), now=timezone.now()
    )
    checkout = payments.open_checkout(payment_id=started.id, now=timezone.now())
    page = pages()
    for path in (
        "/app/lab/payments",
        f"/app/lab/payments/{payment.id}",
        "/app/lab/payments/auto-top-up",
        checkout.checkout_url,
        stripe.url,
    ):
        page.goto(path)
        check(page)

    charge = stripe.engine.get("payment_intent", payment.intent_id)["latest_charge"]
    dispute = stripe.act("dispute", charge=charge)
    stripe.act("end-dispute", dispute=dispute["id"], won=False)
    payments.sync_dispute(dispute["id"], now=timezone.now())
    PaymentMethod.objects.update(exp_year=2026, exp_month=1)
    for path in ("/app/lab/payments", f"/app/lab/payments/{payment.id}", "/app/lab/delete"):
        page.goto(path)
        check(page)

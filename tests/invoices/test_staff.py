"""What staff do with invoices in the admin, the mails that go out, and the preview of the running month."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import time_machine
from django.urls import reverse

from apps.core.permissions import Role
from apps.invoices import selectors
from apps.invoices import services as invoices
from apps.invoices.documents.content import content_of
from apps.invoices.models import Invoice, InvoiceLine, SellerEntity, TaxExemption, TaxRate
from apps.ledger.models import Transfer
from apps.notifications.models import Mail
from apps.notifications.rendering import render
from apps.organizations.models import BillingPeriod
from tests import build
from tests.billing.runs import HOUR, run, stop
from tests.invoices.conftest import APRIL
from tests.money import failing, lines
from tests.staff import staff_client, staff_user

JUNE = datetime(2026, 6, 1, tzinfo=UTC)
JULY = datetime(2026, 7, 1, tzinfo=UTC)
MAY = datetime(2026, 5, 3, tzinfo=UTC)


@pytest.fixture
def staff(db):
    return staff_client()


@pytest.fixture
def lab(db):
    build.seller()
    lab = build.organization("lab", currency="EUR", now=APRIL)
    build.billing_profile(
        lab, legal_name="Lab GmbH", country="DE", billing_emails=["ap@lab.example", "cfo@lab.example"]
    )
    build.price_book({"unit_price": "10"}, {"sku": "a100", "unit_price": "3.33"}, currency="EUR")
    build.usage(lab, APRIL, APRIL + HOUR)
    build.usage(lab, APRIL, APRIL + HOUR, sku="a100")
    return lab


def page(name, invoice, *more):
    return reverse(f"admin:invoices_{name}", args=[invoice.pk, *more])


def test_a_draft_is_finalised_credited_and_cancelled_from_its_page(staff, lab):
    draft = build.closed(lab, "2026-04", finalize=False).invoice
    change = staff.get(reverse("admin:invoices_invoice_change", args=[draft.pk])).content.decode()
    assert page("finalise", draft) in change
    assert page("credit", draft) not in change

    assert staff.post(page("finalise", draft)).status_code == 302
    invoice = Invoice.objects.get(pk=draft.pk)
    assert invoice.number == f"INV-{invoice.finalized_at.year}-000001"

    form = staff.get(page("credit", invoice))
    assert "Net of line 1, a100 eu" in form.text
    attempt = {"attempt": form.context["form"]["attempt"].value()}
    refused = staff.post(page("credit", invoice), attempt | {"amount": "1000", "reason": "too much"})
    assert "gives at most what is left of its invoice, 15.86 EUR" in refused.text
    both = staff.post(page("credit", invoice), attempt | {"amount": "1", "line_1": "1", "reason": "both"})
    assert "not both" in both.text
    finer = staff.post(page("credit", invoice), attempt | {"amount": "1.001", "reason": "finer"})
    assert "smallest unit" in finer.text
    assert not Invoice.objects.credit_notes().exists()

    for _click in range(2):
        sent = attempt | {"line_1": "3.33", "reason": "An outage"}
        assert staff.post(page("credit", invoice), sent).status_code == 302
    note = Invoice.objects.credit_notes().get()
    assert note.total_minor == -396
    change = staff.get(reverse("admin:invoices_invoice_change", args=[invoice.pk])).text
    assert reverse("admin:invoices_invoice_change", args=[note.pk]) in change
    assert reverse("admin:payments_invoice_receipt", args=[invoice.pk]) in change
    assert (
        "Write a credit note instead" in staff.post(page("cancel", invoice), {"reason": "x"}).content.decode()
    )
    assert staff.post(page("write-off", invoice), {"reason": "Insolvent"}).status_code == 302
    assert Invoice.objects.get(pk=invoice.pk).state == "uncollectible"
    assert failing() == []


def test_cancelling_says_what_follows(staff, lab):
    invoice = build.closed(lab, "2026-04").invoice

    answer = staff.post(page("cancel", invoice), {"reason": "Wrong address"}, follow=True)

    assert "the next invoice bills its usage anew" in answer.content.decode()
    assert failing() == []


def test_without_the_permission_staff_read_only(staff, lab):
    invoice = build.closed(lab, "2026-04").invoice
    user = staff_user("reader@example.com")
    user.is_superuser = False
    user.save()
    reader = staff_client(user)

    for name in ("finalise", "credit", "cancel", "write-off", "send"):
        assert reader.post(page(name, invoice), {"reason": "x"}).status_code == 403, name
    for name in ("ageing",):
        assert reader.get(reverse(f"admin:invoices_{name}")).status_code == 403
    assert reader.get(page("file", invoice, "pdf")).status_code == 403


def test_files_ageing_and_preview_open(staff, lab):
    invoice = build.closed(lab, "2026-04").invoice

    assert staff.get(page("file", invoice, "pdf")).content.startswith(b"%PDF-")
    ageing = staff.get(reverse("admin:invoices_ageing")).content.decode()
    assert "15.86" in ageing
    preview = staff.get(reverse("admin:invoices_preview", args=[lab.pk])).content.decode()
    assert "Nothing to invoice so far" in preview


def test_sellers_rates_and_exemptions_are_made_in_the_admin(staff, db):
    lab = build.organization("lab")
    seller = {
        **build.GERMAN_SELLER,
        "code": "default",
        "vat_id": "DE136695978",
        "payment_days": "30",
        "invoice_series": "INV",
        "credit_note_series": "CN",
        "tax_registrations": "gb, EU",
    }
    refused = staff.post(reverse("admin:invoices_sellerentity_add"), seller, follow=True)
    shown = refused.content.decode()
    assert re.search(r'id="id_vat_id_error".*check digits are wrong', shown, re.DOTALL)
    assert f'value="{seller["legal_name"]}"' in shown
    assert not SellerEntity.objects.exists()

    seller["vat_id"] = "DE 136 695 976"
    assert staff.post(reverse("admin:invoices_sellerentity_add"), seller).status_code == 302
    made = SellerEntity.objects.get()
    assert (made.vat_id, made.tax_registrations, made.payment_days) == ("DE136695976", ["EU", "GB"], 30)

    rate = {"country": "GB", "percent": "20", "effective_from": "2026-01-01", "source": "HMRC"}
    assert staff.post(reverse("admin:invoices_taxrate_add"), rate).status_code == 302
    assert TaxRate.objects.get(country="GB").percent == Decimal(20)

    exemption = {
        "organization": str(lab.pk), "country": "DE", "certificate": "7", "reason": "embassy",
        "valid_from": "2026-01-01",
    }  # fmt: skip
    for form, wrong, words in (
        ("taxexemption", exemption | {"valid_until": "2026-01-01"}, "The end lies after the beginning."),
        ("taxrate", rate | {"percent": "825"}, "Give a percentage from 0 to 100"),
    ):
        refused = staff.post(reverse(f"admin:invoices_{form}_add"), wrong)
        assert words in refused.content.decode(), form
    assert staff.post(reverse("admin:invoices_taxexemption_add"), exemption).status_code == 302
    change = reverse("admin:invoices_taxexemption_changelist")
    chosen = {"action": "revoke", "_selected_action": [str(TaxExemption.objects.get().pk)], "reason": "over"}
    staff.post(change, chosen)
    assert TaxExemption.objects.get().revoked_at is not None


@pytest.mark.parametrize(
    "logo",
    [
        "no svg",
        "<html/>",
        '<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg" onload="x()"/>',
        '<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg">&x;<script/></svg>',
    ],
)
def test_a_logo_that_reaches_out_or_runs_is_refused(db, logo):
    from apps.core.errors import ValidationFailed

    with pytest.raises(ValidationFailed) as refused:
        build.seller(logo=logo)

    assert [field.path for field in refused.value.fields] == ["logo"]


def readable(answer):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))


def test_a_month_below_zero_is_seen_before_it_is_final(staff, lab):
    run(lab, "a", APRIL, APRIL + 2 * HOUR, sku="a100")
    build.closed(lab, "2026-04")
    stop(lab, "a", APRIL + HOUR)
    customer = build.browser(build.member(lab, Role.VIEWER))

    with time_machine.travel(datetime(2026, 5, 20, tzinfo=UTC), tick=False):
        preview = staff.get(reverse("admin:invoices_preview", args=[lab.pk]))
    assert "it would be a credit note, which asks for nothing" in readable(preview)
    assert "Total \u22123.96 Due 0.00" in readable(preview)
    draft = build.closed(lab, "2026-05", finalize=False, now=JUNE).invoice

    listed, page = (customer.get(f"/app/lab/invoices{end}") for end in ("", f"/{draft.pk}"))
    assert f'href="/app/lab/invoices/{draft.pk}">Draft</a>' in listed.content.decode()
    assert "Draft credit note for 2026-05" in readable(page)
    assert "Gives you 3.96 EUR" in readable(page)
    assert "/file/pdf" not in page.content.decode()
    api = build.client(build.api_key(lab))
    assert api.get("/api/v1/billing/credit-notes").json()["data"] == []
    assert api.get(f"/api/v1/billing/credit-notes/{draft.pk}").status_code == 404


def test_what_waits_for_a_later_document_is_told_to_the_customer_and_to_staff(staff, lab):
    """3.33 at 19 % beside −20.00 at none: a credit note would still owe tax, so the correction waits."""
    build.billing_profile(lab, country="US")
    run(lab, "a", APRIL, APRIL + 3 * HOUR)
    build.closed(lab, "2026-04")
    build.billing_profile(lab, country="DE")
    stop(lab, "a", APRIL + HOUR)
    build.usage(lab, MAY, MAY + HOUR, sku="a100")
    customer = build.browser(build.member(lab, Role.VIEWER))

    with time_machine.travel(datetime(2026, 5, 20, tzinfo=UTC), tick=False):
        preview = readable(staff.get(reverse("admin:invoices_preview", args=[lab.pk])))
    assert "2026-04 gpu_hours h100 eu, for a later document \u22127,200 \u221220.00" in preview
    may = build.closed(lab, "2026-05", now=JUNE).invoice

    assert (may.kind, may.subtotal_minor, may.tax_minor) == ("invoice", 333, 63)
    page = readable(customer.get(f"/app/lab/invoices/{may.pk}"))
    assert "Corrections for a later document" in page
    assert "h100 eu · GPU-hours 2026-04 \u221220.00" in page
    assert "h100 -20.00" in readable(staff.get(reverse("admin:invoices_periodclose_changelist")))
    build.usage(lab, JUNE, JUNE + 3 * HOUR, now=JULY)
    june = build.closed(lab, "2026-06", now=JULY).invoice
    assert lines(june)[1] == ("adjustment", "2026-04", "h100", "-7200", -2000, 0)
    assert "for a later document" not in readable(customer.get(f"/app/lab/invoices/{june.pk}"))
    assert failing() == []


def test_the_preview_is_linked_from_its_organization(staff, lab):
    page = staff.get(reverse("admin:organizations_organization_change", args=[lab.pk]))

    assert reverse("admin:invoices_preview", args=[lab.pk]) in page.content.decode()


# --- mails


def test_a_final_invoice_is_mailed_once_to_every_address(lab):
    invoice = build.closed(lab, "2026-04").invoice
    build.closed(lab, "2026-04")

    mails = Mail.objects.filter(template="invoices/mail/document")
    assert sorted(mails.values_list("recipient", flat=True)) == ["ap@lab.example", "cfo@lab.example"]
    rendered = render(mails[0].template, mails[0].context)
    assert rendered.subject == "Invoice INV-2026-000001 from Countinghouse"
    assert "comes to 15.86 EUR, due on 2026-05-29." in rendered.text
    assert f"/app/lab/invoices/{invoice.id}/pay\n" in rendered.text
    assert f"/app/lab/invoices/{invoice.id}\n" in rendered.text


def test_a_mail_says_the_due_day_of_its_document(lab):
    build.seller(timezone="Pacific/Auckland")

    invoice = build.closed(lab, "2026-04").invoice

    # It is final at noon UTC of 15 May, which is the 16th in Auckland.
    mail = Mail.objects.filter(template="invoices/mail/document").first()
    assert mail.context["due_on"] == content_of(invoice)["due_on"] == "2026-05-30"


def test_a_credit_note_is_mailed_to_the_addresses_of_now(lab):
    invoice = build.closed(lab, "2026-04").invoice
    build.billing_profile(lab, billing_emails=["new@lab.example"])

    note = invoices.credit_invoice(
        actor=build.actor(), invoice=invoice, amount_minor=1, reason="x", now=build.NOW
    )

    (mail,) = Mail.objects.filter(cause=f"invoices.final:{note.id}")
    assert mail.recipient == "new@lab.example"
    assert mail.context["link"].endswith(f"/app/lab/invoices/{note.id}")


def test_imported_history_is_not_mailed(lab):
    march = datetime(2026, 3, 3, tzinfo=UTC)
    build.usage(lab, march, march + HOUR)
    build.closed(lab, "2026-03")

    assert not Mail.objects.filter(template="invoices/mail/document").exists()


def test_sending_again_uses_the_addresses_of_now(staff, lab):
    invoice = build.closed(lab, "2026-04").invoice
    build.billing_profile(lab, billing_emails=["new@lab.example"])

    answer = staff.post(page("send", invoice), follow=True)
    assert "Sent to new@lab.example." in answer.content.decode()
    assert Mail.objects.filter(recipient="new@lab.example").count() == 1

    build.billing_profile(lab, billing_emails=[])
    assert "Add an address to the billing details" in staff.post(page("send", invoice)).content.decode()


# --- preview


def test_the_preview_is_what_the_close_makes_and_keeps_nothing(lab):
    build.closed(lab, "2026-04")
    run(lab, "a", MAY, MAY + 50 * HOUR)
    build.usage(lab, MAY, MAY + 7 * HOUR, sku="a100")
    build.usage(lab, APRIL, APRIL + HOUR / 2, sku="late")
    build.credit(lab, "400", now=MAY)
    build.metered(lab)
    # In the middle of an hour of a run that goes on.
    until = MAY + 20.5 * HOUR
    rows = (
        Transfer.objects.count(),
        InvoiceLine.objects.count(),
        list(BillingPeriod.objects.order_by("pk").values()),
    )

    def said(composition, settlement):
        lines = [
            (line.key.meter, line.key.sku, line.kind, line.quantity, line.amount_minor, line.tax_minor)
            for line in composition.lines
        ]
        return lines, composition.total_minor, settlement.due_minor

    end = datetime(2026, 5, 31, 23, 30, tzinfo=UTC)
    for moment in (until, end):
        found = invoices.preview_period(organization_id=lab.id, now=moment)
        again = invoices.preview_period(organization_id=lab.id, now=moment)
        assert said(found.composition, found.settlement) == said(again.composition, again.settlement)
    assert rows == (
        Transfer.objects.count(),
        InvoiceLine.objects.count(),
        list(BillingPeriod.objects.order_by("pk").values()),
    )
    closed = build.closed(lab, "2026-05", now=JUNE).invoice

    # Nothing runs after the 50 hours, so what the last minutes say is what the close makes.
    kept = closed.lines.order_by("position").values_list("sku", "quantity", "amount_minor", "tax_minor")
    assert list(kept) == [
        (line.key.sku, line.quantity, line.amount_minor, line.tax_minor) for line in found.composition.lines
    ]
    assert (closed.total_minor, closed.due_minor) == (
        found.composition.total_minor,
        found.settlement.due_minor,
    )
    assert failing() == []


def test_the_preview_of_a_running_hour_counts_to_the_second(lab):
    build.closed(lab, "2026-04")
    run(lab, "a", MAY, MAY + 2 * HOUR)

    found = invoices.preview_period(organization_id=lab.id, now=MAY + timedelta(minutes=45))

    assert [(line.quantity, line.amount_minor) for line in found.composition.lines] == [(2700, 750)]
    assert found.settlement.due_minor == 893


def test_ageing_sorts_by_days_past_due(lab):
    invoice = build.closed(lab, "2026-04").invoice

    def buckets(days):
        (table,) = selectors.receivables_by_age(now=invoice.due_at + timedelta(days=days))
        return [place for place, amount in enumerate(table["rows"][0]["amounts"]) if amount]

    assert [buckets(days) for days in (-1, 0, 29, 30, 60, 90, 400)] == [[0], [1], [1], [2], [3], [4], [4]]

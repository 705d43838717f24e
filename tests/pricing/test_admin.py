"""Prices in the staff admin: every page opens, drafts are edited, steps go through the services."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.identity import services as identity
from apps.pricing.models import (
    BookAssignment,
    Meter,
    Price,
    PriceBook,
    PriceBookVersion,
    PriceOverride,
    Sku,
    VersionState,
)
from tests import build
from tests.staff import staff_client

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("rated")]

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
TIERS = {
    "tiers-0-up_to": "10", "tiers-0-unit_price": "3", "tiers-0-flat_fee": "",
    "tiers-1-up_to": "", "tiers-1-unit_price": "2", "tiers-1-flat_fee": "",
}  # fmt: skip


@pytest.fixture
def staff() -> Client:
    user, _secret = identity.create_staff(email="ada@example.com", password="correct horse", now=build.NOW)
    return staff_client(user)


@pytest.fixture
def published() -> PriceBookVersion:
    return build.price_book({"sku": "h100", "unit_price": "2.49"}, name="Standard", effective_from=SINCE)


@pytest.fixture
def draft(staff: Client, published: PriceBookVersion) -> PriceBookVersion:
    data = {"action": "start_drafts", "_selected_action": [str(published.book_id)]}
    staff.post(reverse("admin:pricing_pricebook_changelist"), data)
    return PriceBookVersion.objects.get(state=VersionState.DRAFT)


def change_url(row: Any) -> str:
    return reverse(f"admin:pricing_{row._meta.model_name}_change", args=[row.pk])


def step_url(version: PriceBookVersion, step: str) -> str:
    return reverse(f"admin:pricing_version_{step}", args=[version.pk])


def rows(*prices: dict[str, Any], existing: int = 0) -> dict[str, Any]:
    """Return the fields of the inline formset."""
    data = {"prices-TOTAL_FORMS": len(prices), "prices-INITIAL_FORMS": existing}
    for index, price in enumerate(prices):
        given = {"meter": "gpu_hours", "sku": "*", "region": "*", "model": "per_unit", **price}
        data |= {f"prices-{index}-{name}": value for name, value in given.items()}
    return data


@pytest.mark.parametrize(
    "model", ["meter", "sku", "region", "pricebook", "pricebookversion", "price", "bookassignment"]
)
def test_every_list_and_page_opens(staff: Client, published: PriceBookVersion, model: str) -> None:
    organization = build.organization()
    staff.post(
        reverse("admin:pricing_bookassignment_add"),
        {
            "organization": str(organization.pk),
            "book": str(published.book_id),
            "effective_from_0": "2026-05-01",
            "effective_from_1": "00:00:00",
        },
    )
    build.price_book({"unit_price": "1", "region": "eu"})
    row = {
        "meter": Meter,
        "sku": Sku,
        "region": Sku,
        "pricebook": PriceBook,
        "pricebookversion": PriceBookVersion,
        "price": Price,
        "bookassignment": BookAssignment,
    }[model]._default_manager.first()
    assert row is not None

    listed = staff.get(reverse(f"admin:pricing_{model}_changelist"), {"q": "a"})
    assert listed.status_code == 200
    assert staff.get(reverse(f"admin:pricing_{model}_changelist")).status_code == 200
    if model != "region":
        assert staff.get(change_url(row)).status_code == 200


def test_links_between_lists_are_allowed(staff: Client, published: PriceBookVersion) -> None:
    prices, versions = (
        reverse(f"admin:pricing_{model}_changelist") for model in ("price", "pricebookversion")
    )

    for url in (
        f"{prices}?version__id__exact={published.pk}",
        f"{prices}?sku__exact=h100",
        f"{prices}?meter__exact=gpu_hours",
        f"{versions}?book__id__exact={published.book_id}",
    ):
        answer = staff.get(url)
        assert answer.status_code == 200
        assert answer.context["cl"].result_count == 1


def test_a_draft_copies_the_newest_version(draft: PriceBookVersion) -> None:
    assert (draft.number, draft.prices.get().unit_price) == (2, Decimal("2.49"))


def test_the_rows_of_a_draft_are_edited_as_a_whole(staff: Client, draft: PriceBookVersion) -> None:
    old = draft.prices.get()
    page = staff.get(change_url(draft))
    assert page.status_code == 200

    answer = staff.post(
        change_url(draft),
        rows(
            {"id": str(old.pk), "version": str(draft.pk), "sku": "h100", "unit_price": "2.60"},
            {"version": str(draft.pk), "model": "graduated", **TIERS},
            existing=1,
        ),
    )

    assert answer.status_code == 302, answer.context["errors"]
    priced = {price.sku: (price.unit_price, price.tiers) for price in draft.prices.all()}
    assert priced == {
        "h100": (Decimal("2.6"), None),
        "*": (
            None,
            [
                {"up_to": "10", "unit_price": "3", "flat_fee": "0"},
                {"up_to": None, "unit_price": "2", "flat_fee": "0"},
            ],
        ),
    }
    assert AuditEvent.objects.filter(
        action="price_book.draft_changed", actor_label="ada@example.com"
    ).exists()


def test_a_row_is_removed_from_a_draft(staff: Client, draft: PriceBookVersion) -> None:
    old = draft.prices.get()

    staff.post(
        change_url(draft),
        rows(
            {
                "id": str(old.pk),
                "version": str(draft.pk),
                "sku": "h100",
                "unit_price": "2.49",
                "DELETE": "on",
            },
            {"version": str(draft.pk), "unit_price": "1"},
            existing=1,
        ),
    )

    assert [(price.sku, price.unit_price) for price in draft.prices.all()] == [("*", 1)]


@pytest.mark.parametrize(
    ("price", "complaint"),
    [
        ({"unit_price": "-1"}, "This must not be negative."),
        ({"unit_price": "1e5"}, "Write a decimal in plain digits"),
        ({"unit_price": ""}, "This field is missing."),
        ({"unit_price": "1", **TIERS}, "A per_unit price has no such field."),
        ({"model": "volume", "tiers-0-up_to": "1", "tiers-0-unit_price": "1"}, "The last tier is open"),
        ({"sku": "nobody", "unit_price": "1"}, "Choose one of those that are offered now."),
    ],
)
def test_a_wrong_row_is_shown_and_not_stored(
    staff: Client, draft: PriceBookVersion, price: dict[str, Any], complaint: str
) -> None:
    answer = staff.post(change_url(draft), rows({"version": str(draft.pk), **price}))

    assert answer.status_code == 200
    assert complaint in answer.content.decode()
    assert draft.prices.get().sku == "h100"


def test_a_draft_is_published_from_a_date(
    staff: Client, published: PriceBookVersion, draft: PriceBookVersion
) -> None:
    assert "Publish…" in staff.get(change_url(draft)).content.decode()
    url = step_url(draft, "publish")
    assert staff.get(url).status_code == 200

    refused = staff.post(url, {"moment_0": "2026-06-01", "moment_1": "00:30"})
    assert "whole UTC hours" in refused.content.decode()
    answer = staff.post(url, {"moment_0": "2026-06-01", "moment_1": "00:00"})

    assert answer.status_code == 302
    draft.refresh_from_db()
    published.refresh_from_db()
    assert (draft.state, draft.effective_from) == (VersionState.PUBLISHED, datetime(2026, 6, 1, tzinfo=UTC))
    assert published.effective_to == draft.effective_from


def test_a_published_version_is_read_only(staff: Client, published: PriceBookVersion) -> None:
    page = staff.get(change_url(published)).content.decode()
    assert 'name="prices-0-unit_price"' not in page
    assert 'name="_save"' not in page
    assert "2.49" in page

    price = published.prices.get()
    data = rows(
        {"id": str(price.pk), "version": str(published.pk), "sku": "h100", "unit_price": "1"}, existing=1
    )
    staff.post(change_url(published), data)

    assert published.prices.get().unit_price == Decimal("2.49")


def test_a_price_is_added_where_none_matches(staff: Client, published: PriceBookVersion) -> None:
    url = step_url(published, "add-price")
    assert staff.get(url).status_code == 200
    row = {"meter": "gpu_hours", "sku": "h100", "region": "*", "model": "per_unit", "unit_price": "3"}

    assert "already prices h100" in staff.post(url, row).content.decode()
    assert staff.post(url, {**row, "sku": "*"}).status_code == 302
    assert published.prices.get(sku="*").unit_price == 3


def test_a_version_retires(staff: Client, published: PriceBookVersion) -> None:
    url = step_url(published, "retire")

    assert staff.get(url).status_code == 200
    assert staff.post(url, {"moment_0": "2026-06-01", "moment_1": "00:00"}).status_code == 302
    published.refresh_from_db()
    assert published.state == VersionState.RETIRED


def test_steps_need_a_permission_of_their_own(published: PriceBookVersion) -> None:
    user, _secret = identity.create_staff(
        email="eve@example.com", password="correct horse", superuser=False, now=build.NOW
    )

    assert staff_client(user).get(step_url(published, "retire")).status_code == 403


def test_books_and_entries_are_added_through_services(staff: Client, published: PriceBookVersion) -> None:
    assert (
        staff.post(reverse("admin:pricing_pricebook_add"), {"name": "Special", "currency": "EUR"}).status_code
        == 302
    )
    assert PriceBook.objects.get(name="Special").currency == "EUR"
    answer = staff.post(
        reverse("admin:pricing_pricebook_add"), {"name": "Moon", "currency": "XXQ"}, follow=True
    )
    assert "is no ISO 4217 currency" in answer.content.decode()
    data = {"code": "gpu-x", "name": "X", "family": "", "attributes": "{}"}
    assert staff.post(reverse("admin:pricing_sku_add"), data).status_code == 302
    assert Sku.objects.get(code="gpu-x").name == "X"
    assert AuditEvent.objects.filter(action="catalog.sku_created").count() == 1


def test_an_assignment_that_is_refused_is_explained(staff: Client, published: PriceBookVersion) -> None:
    organization = build.organization(currency="EUR")
    data = {
        "organization": str(organization.pk),
        "book": str(published.book_id),
        "effective_from_0": "2026-05-01",
        "effective_from_1": "00:00:00",
    }

    answer = staff.post(reverse("admin:pricing_bookassignment_add"), data, follow=True)

    assert "The organization is billed in EUR, the book is in USD." in answer.content.decode()
    assert not BookAssignment.objects.exists()


def test_the_tiers_of_a_draft_come_back_as_rows(staff: Client, draft: PriceBookVersion) -> None:
    old = draft.prices.get()
    given = {"id": str(old.pk), "version": str(draft.pk), "sku": "h100", "model": "volume", **TIERS}
    assert staff.post(change_url(draft), rows(given, existing=1)).status_code == 302

    page = staff.get(change_url(draft)).content.decode()

    for field in ('tiers-0-up_to" value="10"', 'tiers-1-unit_price" value="2"', 'tiers-3-up_to" value=""'):
        assert f'name="prices-0-{field}' in page
    assert "tiers-4-" not in page


def test_the_rows_of_a_large_draft_are_changed_one_by_one(
    staff: Client, draft: PriceBookVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.pricing.admin.versions.FIELDS_EDITED_MAX", 20)
    added = {"meter": "gpu_hours", "sku": "*", "region": "*", "model": "graduated"}
    tiers = {name: value for name, value in TIERS.items() if value}
    assert staff.post(step_url(draft, "add-price"), {**added, **tiers}).status_code == 302
    page = staff.get(change_url(draft)).content.decode()
    assert "each is changed by itself" in page
    assert not any(name in page for name in ("prices-0-unit_price", 'name="_save"', 'name="_continue"'))
    h100, other = draft.prices.get(sku="h100"), draft.prices.get(sku="*")
    listed = staff.get(reverse("admin:pricing_price_changelist"), {"version__id__exact": str(draft.pk)})
    url = reverse("admin:pricing_price_edit", args=[draft.pk, h100.pk])
    assert url in listed.content.decode()
    assert 'value="2.49"' in staff.get(url).content.decode()

    row = {"meter": "gpu_hours", "sku": "h100", "region": "*", "model": "per_unit", "unit_price": "2.60"}
    assert "already have a price" in staff.post(url, {**row, "sku": "*"}).content.decode()
    assert staff.post(url, row).status_code == 302
    gone = reverse("admin:pricing_price_remove", args=[draft.pk, other.pk])
    assert staff.post(gone, {"sure": "yes"}).status_code == 302

    (left,) = draft.prices.all()
    assert (left.sku, left.unit_price) == ("h100", Decimal("2.6"))
    audited = AuditEvent.objects.filter(action="price_book.draft_changed").order_by("id").last()
    assert audited is not None
    assert [row["model"] for row in audited.diff["removed"]] == ["graduated"]
    # Somebody else's page still shows what was there.
    assert [staff.post(stale, row).status_code for stale in (gone, url)] == [404, 404]


def test_the_rows_of_a_published_version_have_no_step(staff: Client, published: PriceBookVersion) -> None:
    price = published.prices.get()
    row = {"meter": "gpu_hours", "sku": "h100", "region": "*", "model": "per_unit", "unit_price": "1"}

    for step in ("edit", "remove"):
        url = reverse(f"admin:pricing_price_{step}", args=[published.pk, price.pk])
        assert url not in staff.get(change_url(price)).content.decode()
        assert staff.post(url, row).status_code == 403

    assert published.prices.get().unit_price == Decimal("2.49")


def test_the_empty_form_at_the_end_is_no_row(staff: Client, draft: PriceBookVersion) -> None:
    old = draft.prices.get()
    kept = {"id": str(old.pk), "version": str(draft.pk), "sku": "h100", "unit_price": "2.49"}
    assert '<option value="" selected>–</option>' in staff.get(change_url(draft)).content.decode()

    answer = staff.post(change_url(draft), rows(kept, {"version": str(draft.pk), "meter": ""}, existing=1))

    assert answer.status_code == 302, answer.context["errors"]
    assert draft.prices.get().sku == "h100"


def test_publishing_shows_what_changes_and_whom_it_touches(
    staff: Client, published: PriceBookVersion, draft: PriceBookVersion
) -> None:
    old = draft.prices.get()
    given = {"id": str(old.pk), "version": str(draft.pk), "sku": "h100", "unit_price": "2.00"}
    staff.post(change_url(draft), rows(given, existing=1))
    lab, elsewhere = build.organization("lab"), build.organization("elsewhere", currency="EUR")

    for step in ("publish", "compare"):
        page = staff.get(step_url(draft, step)).content.decode()
        assert "unit price 2.49 → 2.00 (−19.68 %)" in page
        assert "From Standard v1 to Standard v2" in page
        assert f">{lab.slug}<" in page
        assert f">{elsewhere.slug}<" not in page


def test_two_versions_are_compared(staff: Client, published: PriceBookVersion) -> None:
    second = build.price_book(
        {"sku": "a100", "unit_price": "1"}, name="Standard", effective_from=SINCE.replace(month=2)
    )
    answer = staff.get(step_url(published, "compare"), {"other": str(second.pk)})

    changes = [(change.kind, change.place) for change in answer.context["changes"]]
    assert changes == [("removed", "gpu_hours · a100 · *"), ("added", "gpu_hours · h100 · *")]


def test_a_draft_is_discarded(staff: Client, draft: PriceBookVersion) -> None:
    assert staff.get(step_url(draft, "discard")).status_code == 200
    answer = staff.post(step_url(draft, "discard"), {"sure": "1"})

    assert answer.headers["Location"] == change_url(draft.book)
    assert not PriceBookVersion.objects.filter(state=VersionState.DRAFT).exists()
    assert AuditEvent.objects.filter(action="price_book.draft_discarded").count() == 1


OVERRIDE = {
    "effective_from_0": "2026-05-01",
    "effective_from_1": "00:00:00",
    "effective_to_0": "",
    "effective_to_1": "",
}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"percent": "-20"}, "−20 %"),
        (
            {"meter": "gpu_hours", "sku": "h100", "region": "*", "model": "per_unit", "unit_price": "2"},
            "2.00 USD / GPU",
        ),
        (
            {"meter": "gpu_hours", "sku": "*", "region": "*", "model": "graduated", **TIERS},
            "graduated: to 10 3",
        ),
    ],
)
def test_an_override_is_added_and_ended(
    staff: Client, published: PriceBookVersion, given: dict[str, Any], shown: str
) -> None:
    lab = build.organization("lab")
    url = reverse("admin:pricing_priceoverride_add")
    assert staff.get(url).status_code == 200

    answer = staff.post(url, {"organization": str(lab.pk), **OVERRIDE, **given})

    assert answer.status_code == 302, answer.context["errors"]
    override = PriceOverride.objects.get()
    page = staff.get(change_url(override)).content.decode()
    assert shown in page
    assert "End…" in page
    assert staff.get(reverse("admin:pricing_priceoverride_changelist"), {"q": "lab"}).status_code == 200
    end = reverse("admin:pricing_override_end", args=[override.pk])
    assert staff.get(end).status_code == 200
    assert (
        "whole UTC hours" in staff.post(end, {"moment_0": "2026-06-01", "moment_1": "00:30"}).content.decode()
    )
    assert staff.post(end, {"moment_0": "2026-06-01", "moment_1": "00:00"}).status_code == 302
    override.refresh_from_db()
    assert override.effective_to == datetime(2026, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "Give a percentage, or a meter with its price."),
        (
            {"percent": "-20", "meter": "gpu_hours", "unit_price": "1"},
            "Either a percentage or a price, not both.",
        ),
        ({"percent": "-20", "unit_price": "1"}, "A price names its meter."),
        ({"meter": "gpu_hours"}, "This field is missing."),
        ({"percent": "-2e1"}, "Write a decimal in plain digits"),
        ({"percent": "-120"}, "A percentage lies between"),
    ],
)
def test_a_wrong_override_is_explained(
    staff: Client, published: PriceBookVersion, given: dict[str, Any], complaint: str
) -> None:
    lab = build.organization("lab")
    url = reverse("admin:pricing_priceoverride_add")

    answer = staff.post(url, {"organization": str(lab.pk), **OVERRIDE, **given}, follow=True)

    assert complaint in answer.content.decode()
    assert not PriceOverride.objects.exists()


def test_a_file_is_previewed_then_imported_as_a_draft(staff: Client, published: PriceBookVersion) -> None:
    url = reverse("admin:pricing_import")
    assert "Import a file" in staff.get(reverse("admin:pricing_pricebook_changelist")).content.decode()
    assert staff.get(url).status_code == 200
    prices = [{"meter": "gpu_hours", "sku": "b200", "region": "*", "unit_price": "5"}]
    text = json.dumps({"name": "Standard", "currency": "USD", "prices": prices})

    preview = staff.post(url, {"file": SimpleUploadedFile("book.json", text.encode()), "preview": "1"})

    assert [str(change) for change in preview.context["changes"]] == [
        "+ gpu_hours · b200 · *: 5.00",
        "- gpu_hours · h100 · *: 2.49",
    ]
    assert not Sku.objects.filter(code="b200").exists()
    page = preview.content.decode()
    assert "book.json: 1 added, 1 removed, 0 changed, 0 unchanged." in page
    assert "Price, USD" in page
    done = staff.post(url, {"carried_file": preview.context["carried"], "import": "1"})
    draft = PriceBookVersion.objects.get(state=VersionState.DRAFT)
    assert (done.status_code, done.headers["Location"]) == (302, change_url(draft))
    assert draft.prices.get().sku == "b200"


def test_a_wrong_file_is_explained(staff: Client) -> None:
    url = reverse("admin:pricing_import")

    for sent, complaint in (
        ({}, "Choose a file."),
        ({"carried_file": "made-up:by:me"}, "Choose a file."),
        ({"file": SimpleUploadedFile("book.json", b"{}")}, "A price book lists at least one price."),
        ({"file": SimpleUploadedFile("book.csv", b"\xff\xfe")}, "not text in UTF-8"),
        ({"file": SimpleUploadedFile("book.csv", b"")}, "This file is empty. Choose another one."),
    ):
        answer = staff.post(url, {**sent, "import": "1"})
        assert answer.status_code == 200
        assert complaint in answer.content.decode()
    assert "Choose a file." not in answer.content.decode()  # One was chosen, but it is empty.
    assert not PriceBook.objects.exists()


def test_what_is_wrong_with_a_typed_field_stands_beside_it(staff: Client) -> None:
    catalog = b"InstanceType,AcceleratorCount,Price,Region\nm,1,2.5,eu\n"

    answer = staff.post(
        reverse("admin:pricing_import"),
        {"file": SimpleUploadedFile("book.csv", catalog), "currency": "ZZZ", "preview": "1"},
    )

    assert answer.context["form"].errors == {
        "name": ["The price book needs a name."],
        "currency": ["“ZZZ” is no ISO 4217 currency."],
    }


def test_an_override_that_would_begin_too_early_is_told_when_the_newest_does(
    staff: Client, published: PriceBookVersion
) -> None:
    lab = build.organization("lab")
    url = reverse("admin:pricing_priceoverride_add")
    newest = {"organization": str(lab.pk), **OVERRIDE, "percent": "-20"}
    assert staff.post(url, newest).status_code == 302

    answer = staff.post(url, newest, follow=True)

    begins = PriceOverride.objects.get().effective_from
    assert f"−20 % applies from {begins:%-d %b %Y, %H:%M} UTC; a new one begins after that." in (
        answer.content.decode()
    )

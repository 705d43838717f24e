"""Who invoices are made out to, over HTTP: what is kept, made compact and refused."""

from __future__ import annotations

import pytest

from apps.audit.models import AuditEvent
from apps.core.countries import normal_vat_id
from apps.core.permissions import Role
from apps.organizations import selectors
from apps.organizations.models import BillingProfile
from tests import build

PATH = "/api/v1/orgs/lab/billing-profile"
WHOLE = {
    "legal_name": "Laboratoire SA",
    "address": {"line1": "1 rue de la Paix", "postal_code": "75002", "city": "Paris"},
    "country": "fr",
    "vat_id": "fr 40 303 265 045",
    "billing_emails": ["Accounts@lab.example", "cfo@lab.example", "accounts@LAB.example"],
    "po_number": "PO-7",
}


@pytest.fixture
def client(db):
    return build.client(build.api_key(build.organization("lab")))


def test_begins_empty_and_keeps_what_is_given(client):
    assert client.get(PATH).json() == {
        "legal_name": "",
        "address": {"line1": "", "line2": "", "postal_code": "", "city": "", "region": ""},
        "country": "",
        "vat_id": "",
        "vat_state": "none",
        "vat_checked_at": None,
        "billing_emails": [],
        "po_number": "",
    }
    assert not BillingProfile.objects.exists()

    answer = client.patch(PATH, WHOLE)

    assert answer.status_code == 200
    assert (
        client.get(PATH).json()
        == answer.json()
        == {
            "legal_name": "Laboratoire SA",
            "address": {
                "line1": "1 rue de la Paix",
                "line2": "",
                "postal_code": "75002",
                "city": "Paris",
                "region": "",
            },
            "country": "FR",
            "vat_id": "FR40303265045",
            "vat_state": "unchecked",
            "vat_checked_at": None,
            "billing_emails": ["accounts@lab.example", "cfo@lab.example"],
            "po_number": "PO-7",
        }
    )
    event = AuditEvent.objects.get(action="organization.billing_profile_changed")
    assert event.diff["vat_id"] == ["", "FR40303265045"]


def test_changes_what_is_given_alone_and_writes_nothing_for_nothing(client):
    client.patch(PATH, WHOLE)

    assert client.patch(PATH, {"po_number": ""}).json()["legal_name"] == "Laboratoire SA"
    assert client.patch(PATH, {"po_number": "", "vat_id": "FR40303265045"}).status_code == 200

    assert AuditEvent.objects.filter(action="organization.billing_profile_changed").count() == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"country": "XX"}, "country"),
        ({"country": "FR", "vat_id": "FR40303265046"}, "vat_id"),
        ({"country": "DE", "vat_id": "FR40303265045"}, "vat_id"),
        ({"vat_id": "FR40303265045"}, "country"),
        ({"billing_emails": ["nobody"]}, "billing_emails.0"),
        ({"billing_emails": [f"a{number}@lab.example" for number in range(11)]}, "billing_emails"),
        ({"legal_name": "a\nb"}, "legal_name"),
        ({"po_number": "x" * 61}, "po_number"),
    ],
)
def test_refuses_what_cannot_be_right_and_names_it(client, body, field):
    answer = client.patch(PATH, body)

    assert answer.status_code == 422
    assert field in [row["path"] for row in answer.json()["details"]["fields"]]
    assert not BillingProfile.objects.exists()


def test_a_country_cannot_leave_its_vat_id_behind(client):
    client.patch(PATH, WHOLE)

    assert client.patch(PATH, {"country": "DE"}).status_code == 422
    moved = client.patch(PATH, {"country": "DE", "vat_id": "DE136695976"}).json()

    assert (moved["country"], moved["vat_id"]) == ("DE", "DE136695976")


@pytest.mark.parametrize(
    ("given", "country", "expected"),
    [
        ("094259216", "GR", "EL094259216"),
        ("EL094259216", "GR", "EL094259216"),
        ("DE 136.695.976", "DE", "DE136695976"),
        ("DE136695978", "DE", None),
        ("CHE-107.787.577 IVA", "CH", "CHE107787577IVA"),
        ("12-3456789", "US", "123456789"),
        ("...", "US", None),
    ],
)
def test_vat_ids_are_checked_by_the_rule_of_their_country(given, country, expected):
    assert normal_vat_id(given, country) == expected


def test_one_rule_says_who_hears_about_money(db):
    lab = build.organization("lab", billing_email="money@lab.example")
    for role in (Role.VIEWER, Role.BILLING, Role.DEVELOPER, Role.OWNER):
        build.member(lab, role, user=build.user(f"{role}@lab.example"))

    def told():
        lab.refresh_from_db()
        return selectors.billing_recipients(lab, now=build.NOW)

    build.billing_profile(lab, billing_emails=["ap@lab.example", "cfo@lab.example"])
    assert told() == ["ap@lab.example", "cfo@lab.example"]
    build.billing_profile(lab, billing_emails=[])
    assert told() == ["money@lab.example"]
    lab.billing_email = ""
    lab.save()
    assert told() == ["billing@lab.example", "owner@lab.example"]
